"""The ranks that learn together, from their start to their end. Runs in each of them.

`experiment.devices` has the first rank start the others; torchrun starts all of them. From then on
they are the same: each opens the run by itself, and what they must agree on goes through `Group`.
"""

import contextlib
import dataclasses
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]

from isaac_hydra_ext.checkpoints.fit import PER_ENV
from isaac_hydra_ext.config.nested import value_at
from isaac_hydra_ext.config.placement import learner_device
from isaac_hydra_ext.config.reading import Settings
from isaac_hydra_ext.config.schema import RunConfig, walk
from isaac_hydra_ext.config.seat import OURS, Seat
from isaac_hydra_ext.errors import (
    ConfigError,
    IsaacHydraExtError,
    RankDiffersError,
    RankError,
    first_line,
    shown,
)
from isaac_hydra_ext.learner.algorithm import Algorithm
from isaac_hydra_ext.learner.group import Group, OneProcess
from isaac_hydra_ext.learner.torch_group import TorchGroup
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.system.streams import say_error
from isaac_hydra_ext.workers.beats import Beats, connect
from isaac_hydra_ext.workers.child import redirect_output
from isaac_hydra_ext.workers.ranks import RankProcesses, become_rank, own_cores

POLL_S = 0.05
FAREWELL_S = 90.0  # for the others to close their envs and say their counts
RUN_DIR = "run_dir"  # under which torchrun's store keeps it for the next attempt
COMPARED = ("policy.", "optimizer.", "lr")  # of `state_dict`: what is the same on every rank


class Ranks:
    """The ranks as the run sees them; alone it is the only one, and nothing here waits.

    Attributes:
        seat: Of this process.
        group: What they agree through.
        restarted_from: The run directory of the attempt before, where torchrun has started anew.
    """

    def __init__(
        self,
        seat: Seat = Seat(),  # noqa: B008  # frozen
        group: Group | None = None,
        beats: Beats | None = None,
        store: Store | None = None,
        silence_s: float = 0.0,
    ) -> None:
        """Know the ranks.

        Args:
            seat: Of this process.
            group: None: alone.
            beats: Of the ranks.
            store: torchrun's, if it has one that lasts.
            silence_s: After which a rank has gone, once it has begun to learn [s].
        """
        self.seat, self.group = seat, group or OneProcess()
        self._beats, self._store, self._silence_s = beats, store, silence_s
        self.restarted_from = ""
        if store is not None and seat.attempt and store.check([RUN_DIR]):
            self.restarted_from = store.get(RUN_DIR).decode()

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that prints, saves and evaluates."""
        return self.seat.rank == 0

    @property
    def is_first_left(self) -> bool:
        """Whether this rank is the first of those that have not gone."""
        gone = self._beats.gone if self._beats is not None else {}
        return all(rank in gone for rank in range(self.seat.rank))

    def same_seed(self, settings: Settings) -> Settings:
        """Return the settings with the seed that the first rank has drawn."""
        drawn = self.group.exchange(settings.drawn_seed)[0]
        return dataclasses.replace(settings, drawn_seed=drawn)

    def settle(self, run_dir: Path | None, config: RunConfig) -> Path:
        """Return where this rank writes: the run's directory, or `rank_N/` in it.

        Args:
            run_dir: The run's; None but on the first rank.
            config: The complete one, which is compared with the others'.

        Raises:
            RankError: Another rank has another configuration.
            ConfigError: The directory cannot be made here.
        """
        if self.group.size == 1:
            assert run_dir is not None
            return run_dir
        answers = self.group.exchange({"run_dir": str(run_dir), "config": config.to_dict()})
        for rank, answer in enumerate(answers):
            _check_same(config, rank, answer["config"], answers[0]["config"])
        run_dir = Path(answers[0]["run_dir"])
        if self._store is not None and self.is_first:
            self._store.set(RUN_DIR, str(run_dir))
        if self.is_first:
            return run_dir
        own = run_dir / f"rank_{self.seat.rank}"
        try:
            own.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise ConfigError(f"experiment.output_dir: rank {self.seat.rank}: {e}") from e
        if OURS in os.environ:
            redirect_output(own / "rank.log")
        return own

    def level(self, algorithm: Algorithm) -> None:
        """Give every rank the first one's weights: processors may round differently."""
        if self.group.size > 1:
            self.group.exchange("built")  # another rank's envs may take longer than a collective
            for tensor in algorithm.state_dict().values():
                self.group.broadcast(tensor)

    def compare(self, tensors: Mapping[str, torch.Tensor], iteration: int) -> None:
        """Compare the weights' digests.

        Raises:
            RankDiffersError: With both digests.
        """
        if self.group.size == 1:
            return
        same = {name: x for name, x in tensors.items() if not name.endswith(PER_ENV)}
        digests = self.group.exchange(_digest(same))
        for rank, digest in enumerate(digests):
            if digest != digests[0]:
                raise RankDiffersError(
                    f"after iteration {iteration} rank 0 has the weights {digests[0][:16]} and "
                    f"rank {rank} {digest[:16]}: they are not saved; go on from the checkpoint "
                    "before"
                )

    def started(self) -> None:
        """From now on a silent rank is one that has gone: all have done an iteration."""
        if self._beats is not None:
            self._beats.limit_s = self._silence_s

    def fail(self, error: BaseException) -> None:
        """Tell the other ranks, which wait for this one, why it ends."""
        if self._beats is not None and not isinstance(error, RankError):
            self._beats.say("failed", first_line(error))

    def farewell(self, data: Any) -> list[Any]:
        """Leave; on the first rank, return what each of the others has said as it left.

        Args:
            data: JSON-ready. Of a rank that has not left in time there is None.
        """
        if self._beats is None:
            return []
        self._beats.say("left", data)
        others = [rank for rank in range(self.seat.size) if rank != self.seat.rank]
        deadline = time.monotonic() + (FAREWELL_S if self.is_first else 0.0)
        while time.monotonic() < deadline and not all(map(self._beats.has_ended, others)):
            time.sleep(POLL_S)
        return [self._beats.last_words(rank) for rank in others]


@contextlib.contextmanager
def joined(
    config: RunConfig, stop: StopSignals, train: Callable[..., Any], *arguments: Any
) -> Iterator[Ranks]:
    """Join the other ranks, starting them if that is this one's to do; leave them at the end.

    Args:
        config: From `configure`.
        stop: The user's signals.
        train: What a rank runs that is started here, with `arguments`.
        *arguments: Pickled.

    Raises:
        RankError: Not all of them are there in time.
        ConfigError: This process has ranks of somebody else's.
    """
    seat, rollout = config.seat, config.rollout
    if seat.size == 1:
        yield Ranks()
        return
    if dist.is_initialized():
        raise ConfigError("torch.distributed is in use in this process already: end that first")
    startup_s, silence_s = rollout.startup_timeout_s, rollout.heartbeat_timeout_s
    processes, host = RankProcesses(), seat.host or "127.0.0.1"
    with contextlib.ExitStack() as stack:
        stack.callback(processes.close, lambda: stop.at_once)
        try:
            kept = connect(host, seat.port, seat.rank == 0 and not seat.agent, startup_s)
            if not seat.host:
                processes.start(seat, kept.port, rank_main, train, arguments)
            stack.enter_context(own_cores(seat))
            store = PrefixStore(f"attempt/{seat.attempt}", kept)
            own = PrefixStore(
                f"attempt/{seat.attempt}",
                connect(host, kept.port, False, max(silence_s, 2 * startup_s)),
            )
            beats = Beats(own, seat.rank, seat.size, startup_s + silence_s, processes.how_ended)
        except RuntimeError as e:
            raise RankError(f"no connection to the ranks' store at {host}: {first_line(e)}") from e
        stack.callback(beats.close)
        stack.callback(processes.hurry_if, lambda: bool(beats.gone))
        _wait_for_all(beats, seat, processes, stop, startup_s)
        beats.start()
        patience_s = (rollout.max_restarts + 1) * (startup_s + silence_s)
        device = torch.device(learner_device(config))
        group = TorchGroup(store, seat.rank, seat.size, device, beats, silence_s, patience_s)
        stack.callback(group.close)
        ranks = Ranks(seat, group, beats, kept if seat.agent else None, silence_s)
        stop.check = group.check
        stack.callback(setattr, stop, "check", lambda: None)
        try:
            yield ranks
        except BaseException as e:
            ranks.fail(e)
            raise


def rank_main(
    pipe: Connection, parent_pid: int, train: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """Run one rank that the first one has started."""
    become_rank(parent_pid)
    pipe.close()
    try:
        train(*arguments)
    except RankError:
        sys.exit(RankError.exit_code)  # another's end, which the first rank tells
    except IsaacHydraExtError as e:
        say_error(f"rank {os.environ['RANK']}: error: {e}")
        sys.exit(e.exit_code)


def _wait_for_all(
    beats: Beats, seat: Seat, processes: RankProcesses, stop: StopSignals, limit_s: float
) -> None:
    deadline = time.monotonic() + limit_s
    while not beats.everybody_is_there():
        stop.raise_if_requested()
        for rank in range(1, seat.size):
            if how := processes.how_ended(rank):
                raise RankError(f"rank {rank} {how} before it had joined the others")
        if time.monotonic() > deadline:
            raise RankError(
                f"not all of the {seat.size} ranks are there after {limit_s:g} s "
                "(rollout.startup_timeout_s)"
            )
        time.sleep(POLL_S)


def _check_same(
    config: RunConfig, rank: int, theirs: Mapping[str, Any], first: Mapping[str, Any]
) -> None:
    for key, _, _ in walk(config):
        here, there = value_at(first, key, None), value_at(theirs, key, None)
        if here != there:
            raise RankError(
                f"{key}: rank 0 has {shown(here)}, rank {rank} {shown(there)}; start all ranks "
                "with the same command"
            )


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if name.startswith(COMPARED):
            tensor = tensors[name].detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
