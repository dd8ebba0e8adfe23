"""Unitree Go1 walks to targets between obstacles: on Isaac Lab, and its twin on mjlab.

`navigation` is what both share; `mjlab_task` and `isaac_task` register the task with their stack
and are imported only where that is installed, through `env.imports`.
"""
