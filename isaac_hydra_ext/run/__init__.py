"""What exists while a run lives, and what it leaves behind."""
