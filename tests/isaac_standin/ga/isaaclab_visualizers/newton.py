"""Stand-in for the viewer that 3.0 draws with."""

import numpy as np
from isaaclab.utils.configclass import configclass


class NewtonGLVisualizer:
    """Gives pictures of the size that its cfg says, each a shade brighter."""

    def __init__(self, cfg: object) -> None:
        """Keep the cfg."""
        self.cfg, self.drawn = cfg, 0

    def render_rgb_array(self) -> np.ndarray:
        """Return what can be seen."""
        self.drawn += 1
        return np.full((self.cfg.window_height, self.cfg.window_width, 3), self.drawn, np.uint8)


@configclass
class NewtonGLVisualizerCfg:
    """Stand-in."""

    class_type: object = NewtonGLVisualizer
    window_width: int = 1920
    window_height: int = 1080
