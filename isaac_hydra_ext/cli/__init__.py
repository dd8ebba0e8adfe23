"""The command line: `appo` and its commands."""
