"""Stand-in."""

from isaaclab.app.sim_launcher import launch_simulation  # noqa: F401
