"""The command line: `main` holds the commands, `listing` what `diffnas list` prints."""
