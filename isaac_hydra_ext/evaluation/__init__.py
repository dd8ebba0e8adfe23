"""Playing whole episodes: beside a training, and from the command line."""
