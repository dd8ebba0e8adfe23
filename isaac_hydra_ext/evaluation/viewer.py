"""A checkpoint played to be watched, also while its training goes on. Runs in its own process."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint, load_checkpoint
from isaac_hydra_ext.checkpoints.find import iteration_of, list_checkpoints
from isaac_hydra_ext.checkpoints.saved_policy import config_of, load_weights
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import StepResult
from isaac_hydra_ext.envs.registry import facts_of, make_env
from isaac_hydra_ext.envs.viewing import ViewableEnv
from isaac_hydra_ext.errors import CheckpointError, ConfigError
from isaac_hydra_ext.evaluation.browser import Browser
from isaac_hydra_ext.evaluation.of_checkpoint import check_trained_in
from isaac_hydra_ext.evaluation.playing import Playing
from isaac_hydra_ext.models.policy import Policy
from isaac_hydra_ext.models.registry import make_policy

POLL_S = 1.0  # between looks for a new checkpoint


class Over(BaseException):
    """The end of a viewing. No `Exception`: mjlab's viewer would keep it to itself and pause."""


def watch(
    checkpoint: Checkpoint,
    seed: int,
    config: RunConfig | None = None,
    *,
    browser: Browser,
    say: Callable[[str], None] = print,
    num_envs: int = 1,
    episodes: int | None = None,
    follow: bool = False,
) -> None:
    """Show the policy in its env, in real time, until Ctrl-C.

    Args:
        checkpoint: The policy and its environment.
        seed: Of the environments.
        config: To play with; None: `config_of(checkpoint)`.
        browser: The page, for an env that is shown on one.
        say: Told which checkpoint is played.
        num_envs: Played side by side.
        episodes: The end, after so many; None: there is none.
        follow: Go over to each new checkpoint of the same run.

    Raises:
        ConfigError: This kind of env cannot be watched, or a number is not positive.
        RenderError: The env has no window, or there is no display for it.
        MissingDependencyError: The extra `viewer` is missing.
        CheckpointError: The weights do not fit the env, or the networks of their configuration.
    """
    for name, number in (("episodes", episodes), ("num_envs", num_envs)):
        if number is not None and number < 1:
            raise ConfigError(f"--{name}={number}: must be at least 1")
    config = config or config_of(checkpoint)
    facts = facts_of(config.env)
    if not facts.has_viewer:
        raise ConfigError(f"--viewer: not for {facts.name}; {facts.viewed_by}")
    config.rollout.envs_per_worker = num_envs
    with ExitStack() as stack:
        env = cast(ViewableEnv, make_env(config, seed, view=True))
        stack.callback(env.close)
        check_trained_in(env.spec, checkpoint)
        policy = make_policy(config, env.spec, config.rollout.device)
        newer = Newer(checkpoint.path) if follow else None
        player = WatchedPlayer(Playing(env, policy), policy, seed, episodes, newer)

        def tell(played: Checkpoint) -> None:
            at = f"iteration {played.meta['iteration']}"
            say(f"playing {played.path} ({at})")
            browser.title(f"{played.path.absolute().parent.parent.name}: {at}")

        player.on_swap = tell
        player.swap(checkpoint)
        stack.callback(browser.close)
        try:
            env.view(player, browser.open)
        except Over as e:
            if e.__cause__ is not None:
                raise e.__cause__ from None
        except KeyboardInterrupt:
            return  # how a viewing ends


class Newer:
    """The checkpoints that a training writes meanwhile. They are renamed into place when whole."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Look for those that are newer than this one, in its directory."""
        self._directory, self._clock = path.absolute().parent, clock
        self._seen, self._next_look = iteration_of(path), clock()

    def take(self) -> Checkpoint | None:
        """Return the newest that is new, if it is time to look and one loads."""
        if self._clock() < self._next_look:
            return None
        self._next_look = self._clock() + POLL_S
        for path in reversed(list_checkpoints(self._directory)):
            if iteration_of(path) <= self._seen:
                return None
            try:
                checkpoint = load_checkpoint(path)
            except CheckpointError:  # deleted since it was listed, or damaged: the next will do
                continue
            self._seen = checkpoint.meta["iteration"]
            return checkpoint
        return None


class WatchedPlayer:
    """Plays for `ViewableEnv.view`; what ends the viewing leaves it as `Over`.

    Attributes:
        on_swap: Told each checkpoint that is played from now on.
    """

    def __init__(
        self,
        playing: Playing,
        policy: Policy,
        seed: int,
        episodes: int | None = None,
        newer: Newer | None = None,
    ) -> None:
        """Play nothing yet; see `watch`."""
        self._playing, self._policy, self._newer = playing, policy, newer
        self._seed, self._left = seed, episodes
        self.on_swap: Callable[[Checkpoint], None] = lambda checkpoint: None

    def swap(self, checkpoint: Checkpoint) -> None:
        """Play this one from the next step on.

        Raises:
            CheckpointError: It does not fit the policy.
        """
        load_weights(self._policy, checkpoint)
        self.on_swap(checkpoint)

    def reset(self) -> None:
        """Start all episodes anew, others than before."""
        self._playing.reset(self._seed)
        self._seed += 1

    def begin(self, obs: Mapping[str, torch.Tensor], begun_B: torch.Tensor | None = None) -> None:
        """See `Playing.begin`."""
        self._playing.begin(obs, begun_B)

    def step(self) -> StepResult:
        """Take one step, with a newer checkpoint's weights if there is one.

        Raises:
            Over: From what went wrong; from nothing after the last episode.
        """
        try:
            if self._newer is not None and (checkpoint := self._newer.take()) is not None:
                self.swap(checkpoint)
            result = self._playing.step()
        except Exception as e:
            raise Over from e
        if self._left is not None:
            self._left -= int((result.terminated_B | result.truncated_B).sum())
            if self._left <= 0:
                raise Over
        return result
