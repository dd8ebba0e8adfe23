"""A student that learns what a teacher would do."""
