"""Masks without a person drawing them: a saliency network's view of each photo, put to the vote in 3-D."""
