"""For all tests: the longest first, no deadlines, and no neighbours for those that want none."""

import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

try:
    from hypothesis import settings

    settings.register_profile("no_deadline", deadline=None)  # busy CI machines miss them
    settings.load_profile("no_deadline")
except ImportError:  # the packaging tests run without it, against a bare wheel
    pass


# What the tests start finds its modules compiled, also where PYTHONDONTWRITEBYTECODE is set, and
# leaves no litter beside them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault(
    "PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / ".pytest_cache" / "modules")
)

# By what they take, the longest first: where these came last, one process would end long after the
# others. CONTRIBUTING.md has the seconds.
LONGEST = (
    "test_isaac_commands", "test_go1_nav", "test_worker_death", "test_isaac_start", "test_soak",
    "test_compiled_cpu", "test_stopping", "test_hydra_plugin", "test_sweep_signals",
    "test_evaluation_in_runs", "test_evaluator", "test_isaac_bad_input", "test_isaac_processes",
    "test_memory", "test_random_deaths", "test_raising_env", "test_tracing", "test_commands",
    "test_mjlab",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the longest files first; files stay together, as their fixtures are shared."""
    if "APPO_TEST_LONG" not in os.environ:
        for item in items:
            if item.get_closest_marker("release") is not None:
                item.add_marker(pytest.mark.skip(reason="scripts/test_long.sh runs it"))
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(autouse=True)
def neighbours(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Where tests run in several processes: while one marked `alone` runs, no other does."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    alone = request.node.get_closest_marker("alone") is not None
    place = tmp_path_factory.getbasetemp().parent  # of all processes of this session
    # A test's time limit bounds its wait for these locks, too.
    with (place / "door").open("w") as door, (place / "room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)  # nobody passes one who waits for an empty room
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard() -> Iterator[None]:
    """Undo what a shell does for its background jobs: they ignore Ctrl-C, and tests wait for it."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def commands_leave_the_process() -> Iterator[None]:
    """Keep a command called here from ending pytest, as it would beside an earlier update.

    For the session, as fixtures of modules call commands too.
    """
    with mock.patch.object(os, "_exit", sys.exit):
        yield


@pytest.fixture(autouse=True)
def no_service_of_wandb() -> Iterator[None]:
    """End the process that wandb starts beside a test's: others count processes."""
    yield
    wandb = sys.modules.get("wandb")
    if hasattr(wandb, "teardown"):
        wandb.teardown()
