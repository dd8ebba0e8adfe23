"""What has been started in this process; the real thing keeps this in Kit."""

import os
import signal
import sys
import time

started: list[str] = []
needs_kit_first = False
arguments: dict = {}  # what the launcher was given


def start_kit(launcher_args: dict) -> None:
    """Do to the host process what Kit does."""
    if started:
        raise RuntimeError("a simulation app runs already")
    too_early = [m for m in ("isaaclab.envs", "isaaclab_tasks") if m in sys.modules]
    if too_early and launcher_args.get("checks_order", True):
        raise RuntimeError(f"imported before AppLauncher: {too_early}")
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    print("[Info] [carb] a hundred lines of start-up output")
    how = os.environ.get("KIT_START")
    if how == "raise":
        raise RuntimeError("no driver")
    if how == "exit":
        os._exit(0)
    if how == "hang":
        time.sleep(3600)
    arguments.update(launcher_args)
    started.append("kit")
