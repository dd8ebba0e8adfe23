"""`train` and `play` as Isaac Lab users type them."""
