"""Isaac Lab's command line; the folders are named as Isaac Lab names its own."""
