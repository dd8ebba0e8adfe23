"""Learning: advantages, the loss, and the update."""
