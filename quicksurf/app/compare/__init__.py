"""Several methods fitted to one capture at equal minutes, side by side on one page."""
