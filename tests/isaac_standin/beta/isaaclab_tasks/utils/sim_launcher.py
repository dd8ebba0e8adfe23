"""Stand-in: where the beta has it."""

from isaaclab.launching import launch_simulation  # noqa: F401
