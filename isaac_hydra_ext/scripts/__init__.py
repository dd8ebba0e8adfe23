"""Command lines in the spelling of other projects."""
