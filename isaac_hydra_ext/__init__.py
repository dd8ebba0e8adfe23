"""Asynchronous PPO for NVIDIA Isaac Lab, mjlab and Gymnasium, configured with Hydra.

This module imports nothing: Hydra's plugin scan passes through it in unrelated applications.
"""

__version__ = "0.1.0"
