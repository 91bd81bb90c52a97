"""Many captures by one command: each is the public `quicksurf fit` in a process of its own, here or on a cluster."""
