"""The learner's side of the evaluator: it is asked, listened to, and never waited for.

Runs in the learner's main thread. One version of the weights lies in a block of its own: the
learner's while the evaluator is idle, the evaluator's from EVALUATE to EVALUATED. Whatever happens
to that process is one line on the console, and the training goes on.
"""

import os
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch

from isaac_hydra_ext.config.placement import IN_WORKER
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.envs.registry import facts_of
from isaac_hydra_ext.errors import EnvContractError
from isaac_hydra_ext.evaluation.process import evaluator_main
from isaac_hydra_ext.evaluation.video import remove_unfinished
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.workers.channel import Kind, Message
from isaac_hydra_ext.workers.closing import end_processes
from isaac_hydra_ext.workers.handle import Phase, WorkerHandle
from isaac_hydra_ext.workers.restarts import RestartBudget
from isaac_hydra_ext.workers.shared_memory import make_shared_block
from isaac_hydra_ext.workers.spawning import spawn

MAX_RESTARTS = 3  # per hour
MAX_GAP_S = 60.0  # between two polls; what is beyond was a pause, of the evaluator as well
CLOSE_GRACE_S = 5.0


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation came to.

    Attributes:
        iteration: Whose weights were played.
        result: As `summarize_episodes`, and `seconds`.
        video: Name of its MP4 in the run's videos/, where it has one.
    """

    iteration: int
    result: dict[str, Any]
    video: str | None = None


class Evaluator:
    """The evaluator's process, and what it has been asked for.

    Attributes:
        pending: The iteration that is being evaluated, None while idle.
        alive: False once it has been given up.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        spec: EnvSpec,
        size: int,
        warn: Callable[[str], None],
    ) -> None:
        """Start the process and have it build its env meanwhile.

        Args:
            config: After `complete`.
            run_dir: Of the run.
            spec: Of the training's env; the evaluator's must have the same spaces.
            size: Of the flat vector of weights.
            warn: Called with a line for everything that goes wrong.
        """
        self._config, self._run_dir, self._warn = evaluator_config(config), run_dir, warn
        self._block = make_shared_block()
        self._weights = WeightStore.map(self._block.allocate(WeightStore.nbytes(size, 0)), size, 0)
        self._build_body = {
            "config": self._config.to_dict(),
            "run_dir": str(run_dir),
            "spec": spec.to_json(),
            "name": self._block.name,
        }
        self.pending: int | None = None
        self.alive, self._closed = True, False
        self._budget = RestartBudget(MAX_RESTARTS)
        self._polled = time.monotonic()
        self._handle = self._start(0)

    def _start(self, generation: int) -> WorkerHandle:
        evaluate = self._config.evaluate
        environment = dict(evaluate.environment)
        if evaluate.cuda_visible_devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = evaluate.cuda_visible_devices
        arguments = (self._block, generation, os.getpid())
        process, pipe = spawn(evaluator_main, arguments, "appo-evaluator", environment)
        handle = WorkerHandle(0, generation, process, pipe)
        timeout_s = self._config.rollout.startup_timeout_s
        handle.ask(Kind.BUILD, Phase.BUILDING, timeout_s, self._build_body)
        return handle

    def ask(self, iteration: int, flat: torch.Tensor, video: bool) -> None:
        """Have the weights played; the evaluator is idle, or still builds its env.

        Args:
            iteration: Whose weights they are.
            flat: Copied before this returns.
            video: Make one of env 0.
        """
        assert self.alive and self.pending is None
        self._weights.publish(iteration, flat)
        self.pending = iteration
        handle = self._handle
        handle.say(Kind.EVALUATE, iteration=iteration, version=iteration, body={"video": video})
        if handle.phase is Phase.COLLECTING:
            handle.deadline = time.monotonic() + self._config.evaluate.timeout_s

    def poll(self, timeout_s: float = 0.0) -> Evaluation | None:
        """Return a result, after waiting at most `timeout_s` for it; handle failures."""
        if not self.alive:
            return None
        handle, before = self._handle, self._polled
        connection.wait([handle.pipe, handle.sentinel], timeout_s)
        ended, evaluation = handle.ended, None  # in this order: last words count
        for message in handle.received():
            if message.kind is Kind.ERROR:
                self._on_error(message.body)
                return None
            evaluation = self._on_message(message) or evaluation
        self._polled = time.monotonic()
        handle.deadline += max(0.0, self._polled - before - MAX_GAP_S)
        if ended:
            self._replace(handle.process.describe_exit())
        elif self._polled > handle.deadline:
            building = handle.phase is Phase.BUILDING
            knob = "rollout.startup_timeout_s" if building else "evaluate.timeout_s"
            self._replace(f"took longer than {knob} allows and was killed")
        return evaluation

    def _on_message(self, message: Message) -> Evaluation | None:
        if no_video := message.body.pop("no_video", ""):
            self._warn(f"no videos: {no_video}; the training goes on without")
        if no_log := message.body.pop("no_log", ""):
            self._warn(f"the evaluator: {no_log}")
        if message.kind is Kind.BUILT:
            self._handle.answered(Phase.COLLECTING)
            if self.pending is not None:
                self._handle.deadline = time.monotonic() + self._config.evaluate.timeout_s
            return None
        self.pending = None
        self._handle.answered(Phase.COLLECTING)
        video = message.body.pop("video", None)
        return Evaluation(message.iteration, message.body, video)

    def _on_error(self, body: dict[str, Any]) -> None:
        said = f"raised in {body['phase']}, env {body['env']}: {body['message']}"
        breaks_contract = body["class"] == EnvContractError.__name__
        if body["phase"] == "evaluate" and not breaks_contract:
            self._replace(said)
        else:  # it would fail again
            self._give_up(said)

    def _replace(self, how: str) -> None:
        """Start another in its place, without what it was at, or give up."""
        if self._budget.is_used_up:
            self._give_up(f"{how}, after {MAX_RESTARTS} replacements within an hour")
            return
        used = self._budget.spend(how)
        self._end()
        try:
            self._handle = self._start(self._handle.generation + 1)
        except OSError as e:  # no process, no memory, no descriptor left
            self._give_up(f"{how}, and cannot be replaced ({e})")
            return
        self._warn(f"the evaluator {how}{self._lost()}; replaced ({used})")

    def _give_up(self, how: str) -> None:
        self._end()
        self.alive = False
        self._warn(f"the evaluator {how}{self._lost()}; given up, the training goes on without")

    def _lost(self) -> str:
        iteration, self.pending = self.pending, None
        return "" if iteration is None else f" (iteration {iteration} is not evaluated)"

    def _end(self) -> None:
        self._handle.process.kill()
        self._handle.close()
        remove_unfinished(self._run_dir)

    def close(self, at_once: Callable[[], bool]) -> None:
        """End the process, bounded in time: an idle one closes its env, a busy one is killed.

        May be called again.

        Args:
            at_once: Whether the user will wait no longer.
        """
        if self.alive and self.pending is None:
            end_processes([self._handle], CLOSE_GRACE_S, at_once)
            self._handle.close()
        elif self.alive:
            self._end()
        self.alive = False
        if not self._closed:
            self._block.close()
        self._closed = True


def evaluator_config(config: RunConfig) -> RunConfig:
    """Return the configuration of the evaluator's env: the training's, on a device of its own."""
    config = deepcopy(config)
    device = config.evaluate.device
    if device == "auto":
        device = config.rollout.device if facts_of(config.env).auto_is_gpu else "cpu"
    device = "cuda:0" if device == "cuda" else device.split(",")[0]
    if device.startswith("cuda") and config.evaluate.cuda_visible_devices is not None:
        device = IN_WORKER  # the first of those that its process sees
    config.rollout.device = device
    return config
