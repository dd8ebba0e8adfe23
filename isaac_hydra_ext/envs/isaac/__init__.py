"""Isaac Lab, the only modules that import it."""
