"""quicksurf: a folder of photos to a surface mesh in minutes."""
