"""From a field to colours on rays: occupancy grid, surface search, UNISURF's samples, compositing."""
