"""Checkpoint files: written, found, checked and compared."""
