"""What Hydra 1.3 scans. The class lives elsewhere because Hydra 1.3 runs scanned modules anew."""

from isaac_hydra_ext.plugins.searchpath_plugin import IsaacHydraSearchPathPlugin

__all__ = ["IsaacHydraSearchPathPlugin"]
