"""A capture on disk becomes a `Scene`: images, cameras, masks, sparse points and a region of interest."""
