"""`python -m quicksurf` is the `quicksurf` command."""

from quicksurf.cli import entry_point

entry_point()
