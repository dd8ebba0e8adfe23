"""Stand-in for Isaac Lab; see README.md two directories up."""
