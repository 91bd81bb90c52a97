"""The optimisation: the loop against the clock, a step of it, and what a step looks at."""
