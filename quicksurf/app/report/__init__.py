"""What a capture session takes away as one page: is the capture good, what came of it, what to photograph next."""
