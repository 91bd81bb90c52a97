"""The fields that are fitted: surface, surroundings, and how each photo was exposed."""
