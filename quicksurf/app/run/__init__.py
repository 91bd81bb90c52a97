"""One command at work: its request, its minutes, its run folder, and what it tells."""
