"""Stand-in: where 3.0 has it."""

from isaaclab.launching import launch_simulation  # noqa: F401
