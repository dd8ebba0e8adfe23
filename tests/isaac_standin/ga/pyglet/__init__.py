"""Stand-in: what Newton's viewer opens a window with."""

options: dict = {}
