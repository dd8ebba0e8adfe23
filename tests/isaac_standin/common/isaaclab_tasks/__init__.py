"""Stand-in: fills the registry."""

from isaaclab_tasks import registrations  # noqa: F401
