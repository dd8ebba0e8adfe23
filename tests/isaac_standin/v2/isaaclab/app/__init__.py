"""Stand-in: 2.x starts Kit before anything else is imported."""

from isaaclab import state


class AppLauncher:
    """Takes a dict or a namespace; refuses what is not its own."""

    def __init__(self, launcher_args: dict) -> None:
        """Start Kit."""
        if launcher_args.get("headless") is not True:
            raise RuntimeError("no display")
        state.start_kit(launcher_args)
