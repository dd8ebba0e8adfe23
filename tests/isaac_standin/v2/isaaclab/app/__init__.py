"""Stand-in: 2.x starts Kit before anything else is imported."""

import os

from isaaclab import state


class AppLauncher:
    """Takes a dict or a namespace; refuses what is not its own."""

    def __init__(self, launcher_args: dict) -> None:
        """Start Kit."""
        if launcher_args.get("headless") is not True:
            if not os.environ.get("DISPLAY"):
                raise RuntimeError("no display")
            print("[INFO] a window opens")
        state.start_kit(launcher_args)
