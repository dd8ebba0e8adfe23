"""Collecting: worker processes, the shared buffer they write, the weights they read."""
