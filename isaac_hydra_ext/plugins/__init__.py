"""The Hydra plugin. Import-light: it runs inside every Hydra application of the environment."""
