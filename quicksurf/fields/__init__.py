"""What is fitted: the surface, the background, and the exposure of each photo."""
