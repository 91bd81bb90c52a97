"""`python -m quicksurf` is the `quicksurf` command."""

from quicksurf.app.cli import entry_point

entry_point()
