"""The application: commands, run folders, export, report, live view, batches; all of it stands on the core."""
