"""Unitree Go1 walks to targets between obstacles: on Isaac Lab, and its twin on mjlab.

`navigation` is what both share; `mjlab_task` and `isaac_task` connect it to their stack and are
imported only where that is installed: mjlab's through `env.imports`, Isaac Lab's when it is asked
for (the entry point `go1_nav` has `isaac_registration` register it).
"""
