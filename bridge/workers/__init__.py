"""Worker processes: where the user's filters run."""
