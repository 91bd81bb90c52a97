"""Automatic masks: the votes of all photos, seen by a saliency network, carve the object in 3-D."""
