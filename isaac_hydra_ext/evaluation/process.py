"""The evaluator's process: one env, played with whatever weights the learner has put in its block.

It never asks for anything: the learner writes a version into the block and says EVALUATE, and the
block is this process's until it says EVALUATED.
"""

import os
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, VecEnv
from isaac_hydra_ext.envs.registry import make_env
from isaac_hydra_ext.errors import MissingDependencyError, RenderError
from isaac_hydra_ext.evaluation.episodes import summarize_episodes
from isaac_hydra_ext.evaluation.playing import check_same_spaces, play_episodes
from isaac_hydra_ext.evaluation.video import DIRECTORY, VideoWriter, check_rendering
from isaac_hydra_ext.models.registry import make_policy
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.workers.channel import Kind, Message
from isaac_hydra_ext.workers.child import (
    become_child,
    error_body,
    redirect_output,
    serve,
)
from isaac_hydra_ext.workers.shared_memory import SharedBlock

POLL_S = 1.0  # of a wait for the next order
NICENESS = 5  # the workers come first
LOG = "workers/evaluator.log"


def evaluator_main(pipe: Connection, block: SharedBlock, generation: int, parent_pid: int) -> None:
    """Entry point of the spawned process; returns when the run is over.

    Args:
        pipe: To the learner.
        block: Holds one version of the weights.
        generation: How many evaluators the run has had before.
        parent_pid: The learner's process.
    """
    become_child(parent_pid)
    os.nice(NICENESS)
    process = EvaluatorProcess(pipe, block, generation)
    serve(process.run, process.report)


class EvaluatorProcess:
    """The evaluator's side of the protocol in `channel.py`."""

    def __init__(self, pipe: Connection, block: SharedBlock, generation: int) -> None:
        """Know where to report; nothing is built yet."""
        self._pipe, self._block, self._generation = pipe, block, generation
        self._phase, self._env_name = "start", ""
        self._no_video = ""  # why there is none, once that is known

    def run(self) -> None:
        """Build the env, then evaluate until CLOSE."""
        while True:
            message = self._next()
            if message.kind is Kind.CLOSE:
                self._phase = "close"
                self._env.close()
                self._send(Kind.CLOSED)
                return
            if message.kind is Kind.BUILD:
                self._build(message.body)
            else:
                self._evaluate(message)

    def report(self, error: Exception) -> None:
        """Tell the learner what went wrong and where."""
        self._send(Kind.ERROR, body=error_body(error, self._phase, self._env_name))

    def _send(self, kind: Kind, **fields: Any) -> None:
        Message(kind, self._generation, **fields).send(self._pipe)

    def _next(self) -> Message:
        while not self._pipe.poll(POLL_S):
            pass
        return Message.receive(self._pipe)

    def _build(self, body: dict[str, Any]) -> None:
        self._phase = "build"
        self._run_dir = Path(body["run_dir"])
        no_log = redirect_output(self._run_dir / LOG)
        config = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(RunConfig), body["config"])
        )
        assert isinstance(config, RunConfig)
        self._config = config
        self._env_name = str(config.env.id or config.env.task)
        config.rollout.envs_per_worker = min(config.evaluate.num_envs, config.evaluate.num_episodes)
        self._env = self._make_env()
        check_same_spaces(self._env.spec, EnvSpec.from_json(body["spec"]))
        device = config.rollout.device
        self._policy = make_policy(config, self._env.spec, device)
        size = self._policy.flat.numel()
        memory = self._block.attach(body["name"], WeightStore.nbytes(size, 0))
        self._weights = WeightStore.map(memory, size, 0)
        self._send(Kind.BUILT, body={"no_video": self._no_video, "no_log": no_log})

    def _make_env(self) -> VecEnv:
        """Make the env; if it gives no pictures, one that is not asked for any."""
        config, seed = self._config, self._config.evaluate.seed
        # Not worker 0's place, whose files are that worker's, nor any other's.
        place = config.num_collectors
        if not config.logging.video.every:
            return make_env(config, seed, place, self._run_dir)
        env: VecEnv | None = None
        try:
            env = make_env(config, seed, place, self._run_dir, render=True)
            env.reset(seed)
            check_rendering(env)
            return env
        except (RenderError, MissingDependencyError) as e:
            self._no_video = str(e)
        except Exception as e:  # if the env is to blame, the next attempt says so
            self._no_video = f"{type(e).__name__}: {e}"
        if env is not None:
            env.close()
        return make_env(config, seed, place, self._run_dir)

    def _evaluate(self, order: Message) -> None:
        self._phase = "evaluate"
        self._weights.load(order.version, self._policy.flat)
        started = time.monotonic()
        body: dict[str, Any] = {}
        if order.body["video"] and not self._no_video:
            path = self._run_dir / DIRECTORY / f"eval_{order.iteration}.mp4"
            try:
                with VideoWriter(self._env, path, self._config.logging.video) as video:
                    body = self._play(video)
                body["video"] = path.name
            except RenderError as e:
                self._no_video = body["no_video"] = str(e)
        if "mean_return" not in body:
            body |= self._play(None)
        body["seconds"] = round(time.monotonic() - started, 3)
        self._send(Kind.EVALUATED, iteration=order.iteration, version=order.version, body=body)

    def _play(self, video: VideoWriter | None) -> dict[str, Any]:
        on_state = video.add if video is not None else lambda: None
        evaluate = self._config.evaluate
        return summarize_episodes(
            *play_episodes(
                self._env, self._policy, evaluate.num_episodes, evaluate.seed, on_state=on_state
            )
        )
