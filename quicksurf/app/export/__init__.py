"""What leaves a run: its surface, measured, trimmed and textured, in metres and upright."""
