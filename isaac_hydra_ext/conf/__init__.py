"""Hydra configs. A package, because Hydra 1.4 composes nothing from a plain directory."""
