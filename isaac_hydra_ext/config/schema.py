"""The run's configuration: typed dataclasses, one documented knob a field.

`config/reading.py` fills them from what Hydra composed, and checks them. Used in every process.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from isaac_hydra_ext.config.distillation_schema import DistillationConfig
from isaac_hydra_ext.config.knob import MAX_INT, MAX_WAIT_S, knob
from isaac_hydra_ext.config.logging_schema import LoggingConfig
from isaac_hydra_ext.config.nested import walk
from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.config.ppo_schema import PPOConfig
from isaac_hydra_ext.config.seat import Seat


@dataclass
class ExperimentConfig:
    """What the run is called, where it goes, when it ends."""

    name: str | None = knob(None, "directory of related runs; null: the environment's id")
    run_name: str = knob("", "suffix of this run's directory")
    output_dir: str = knob("logs/appo", "root of all run directories")
    seed: int = knob(
        1, "[-] seeds everything: envs, policy noise, shuffles; -1 draws one", ge=-1, le=2**63 - 1
    )
    device: str = knob("auto", "the learner's device: auto, cpu, cuda:0, ...")
    devices: list[str] = knob(
        [], "a learner on each, which learn together: [cuda:0,cuda:1], [cpu,cpu]; []: one"
    )
    max_iterations: int = knob(300, "[iterations] in all, a resume included", ge=1)
    max_env_steps: int | None = knob(None, "[env steps] of all envs, after which to end", ge=1)
    objective: str = knob(
        "mean_return",
        "of summary.json: what a sweeper optimises",
        choices=("mean_return", "best_return", "mean_episode_length", "fps"),
    )


@dataclass
class EnvConfig:
    """Which environment; the rest of what it needs is its own."""

    kind: str = knob("gym", "adapter: gym, mjlab, isaaclab, or one that a package registers")
    id: str | None = knob(None, "Gymnasium id (kind=gym)")
    task: str | None = knob(None, "task name (kind=mjlab, isaaclab)")
    kwargs: dict[str, Any] = knob({}, "keyword arguments of gymnasium.make (kind=gym)")
    imports: list[str] = knob([], "packages imported in each worker before the env is made")
    trainer_defaults: dict[str, Any] = knob(
        {}, "settings this task recommends; anything you type wins"
    )
    cfg: dict[str, Any] = knob({}, "Isaac Lab: the task's own cfg: ++env.cfg.decimation=4")
    physics: str | None = knob(None, "Isaac Lab 3.0: physics preset, e.g. newton_mjwarp")
    renderer: str | None = knob(None, "Isaac Lab 3.0: renderer preset")
    presets: list[str] = knob([], "Isaac Lab 3.0: further presets of the task")
    agent: str | None = knob(
        None, "Isaac Lab: whose agent cfg to start from: rsl_rl, skrl, rl_games (null: the first "
        "that the task has), its entry, or none"
    )  # fmt: skip
    play: bool = knob(False, "Isaac Lab: the task's play_mode(), where it has one")
    launcher: dict[str, Any] = knob({}, "Isaac Lab: arguments of AppLauncher")


@dataclass
class RolloutConfig:
    """Who collects how much, and how far it may run ahead of the learner."""

    source: str = knob(
        "auto", "of rollouts: auto (workers, or this process with W=0), or one a package registers"
    )
    launcher: str = knob(
        "local", "where workers live: on this machine, or on Ray's nodes", choices=("local", "ray")
    )
    num_workers: int | str = knob(
        "auto",
        "[processes] W: workers; 0: in the learner's own process; auto: cores - 1, or one for each "
        "GPU that simulates (0 where there is one GPU in all)",
        ge=0,
        le=1024,
    )
    envs_per_worker: int | None = knob(
        None, "[envs] B: in each worker; null: the env's own number", ge=1, le=10**6
    )
    steps_per_env: int = knob(32, "[steps] T: in each env per rollout", ge=1, le=10**6)
    frame_stack: int = knob(
        1, "[pictures] K: the last ones of an episode, which the actor's encoders see", ge=1, le=64
    )
    burn_in: int = knob(
        0,
        "[steps] K: before a rollout, from which the learner computes a memory's state anew",
        ge=0,
    )
    image_storage: str = knob(
        "as_is",
        "of float images that an encoder reads: as they come, or half as large (up to 65,504)",
        choices=("as_is", "float16"),
    )
    max_policy_lag: int = knob(
        1, "[versions] L: how far acting may lag; 0 is synchronous PPO", ge=0, le=100
    )
    deterministic: bool = knob(
        False, "rollout k always uses version max(0, k - L): bit-reproducible on the CPU"
    )
    device: str = knob(
        "auto",
        "the simulation's: cpu, cuda:N, [cuda:1, cuda:2] (a worker each), cuda (all that the "
        "learner leaves), auto (the task's own, else cpu)",
    )
    pin_cores: bool = knob(
        True, "give each CPU worker a core of its own, where there is one more (Linux)"
    )
    init_at_random_ep_len: bool = knob(
        True, "start envs at random episode times, so that episodes do not end in step"
    )
    on_worker_failure: str = knob(
        "restart", "a worker that dies or raises in step", choices=("restart", "stop")
    )
    on_invalid: str = knob(
        "stop",
        "NaN or Inf in an observation, action or reward: end the run, leave that env's samples "
        "out and reset it, or replace its worker",
        choices=("stop", "drop_env", "restart_worker"),
    )
    max_restarts: int = knob(10, "[per hour] workers replaced before the run stops", ge=0)
    startup_timeout_s: float = knob(600.0, "[s] to build an env and reset it", gt=0, le=MAX_WAIT_S)
    # Below 2 s a worker that waits, and shows that it lives once a second, could seem dead.
    heartbeat_timeout_s: float = knob(
        120.0, "[s] without an env step before a kill", ge=2, le=MAX_WAIT_S
    )


@dataclass
class ClusterConfig:
    """Which GPU does what, on one machine or several."""

    placement: Any = knob(
        {},
        "{learner: 0-1, env: 2-7, evaluator: 8}: GPUs, counted through all nodes, or NODE:GPUS, or "
        "cpu; {}: experiment.device, rollout.device and num_workers say it",
    )
    num_nodes: int = knob(1, "[nodes] of the placement, each with as many GPUs as this one", ge=1)


@dataclass
class AlgorithmConfig:
    """Which algorithm learns from the rollouts."""

    kind: str = knob(
        "ppo", "ppo or distillation (each with knobs in its group), or one that a package registers"
    )
    kwargs: dict[str, Any] = knob({}, "what a registered algorithm reads")


@dataclass
class EvaluateConfig:
    """Whole episodes with deterministic actions, played beside the training by another process."""

    every: int = knob(0, "[iterations] between evaluations, each also saved; 0: none", ge=0)
    num_episodes: int = knob(32, "[episodes] of each evaluation", ge=1)
    num_envs: int = knob(
        16, "[envs] that play them side by side, at most one an episode", ge=1, le=10**6
    )
    seed: int = knob(0, "[-] of its envs, the same for each evaluation", ge=0, le=2**31 - 1)
    device: str = knob("auto", "of its simulation; auto: cpu, and Isaac Lab's own")
    cuda_visible_devices: str | None = knob(
        None, "GPUs that its process sees, e.g. '1'; cuda:0 is then the first of them"
    )
    environment: dict[str, str] = knob(
        {}, "variables of its process, for the renderer: +evaluate.environment.MUJOCO_GL=osmesa"
    )
    timeout_s: float = knob(600.0, "[s] for one evaluation, before a kill", gt=0, le=MAX_WAIT_S)


@dataclass
class CheckpointConfig:
    """When the run is saved and what is kept."""

    every: int = knob(50, "[iterations] between checkpoints; the last is always saved", ge=1)
    keep_last: int = knob(5, "[checkpoints] newest ones kept; 0: all", ge=0)
    keep_every: int | None = knob(
        None, "[iterations] also keep each multiple of this", ge=1, le=MAX_INT
    )
    keep_best: bool = knob(True, "also keep the best: in evaluation, else in training")
    on_error: str = knob("warn", "a checkpoint that cannot be written", choices=("warn", "stop"))
    partial: bool = knob(False, "resume with what fits of a checkpoint; the rest is listed")


@dataclass
class RayConfig:
    """Ray's cluster, for `rollout.launcher=ray` and `appo tune`. Needs the extra `ray`."""

    address: str = knob(
        "auto",
        "of the cluster: auto (the one this machine is in), local (a new one here), HOST:PORT",
    )
    worker_resources: dict[str, Any] = knob(
        {}, "what Ray keeps for each worker, besides one CPU: {num_cpus: 2, num_gpus: 0.25}"
    )


@dataclass
class RunConfig:
    """One whole run. The field names are the Hydra groups."""

    experiment: ExperimentConfig = field(default_factory=ExperimentConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    ppo: PPOConfig = field(default_factory=PPOConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    resume: str | None = knob(
        None, "latest or best of this experiment.name and task, a run directory, or a checkpoint"
    )

    # Of the process that holds this, and no knob: `config/ranks.py` sets it.
    seat = Seat()

    @property
    def num_workers(self) -> int:
        """W as a number; `place` has resolved `auto`."""
        return int(self.rollout.num_workers)

    @property
    def num_collectors(self) -> int:
        """Rollouts per iteration: one a worker, and one with W = 0."""
        return max(1, self.num_workers)

    @property
    def n_buffer(self) -> int:
        """N_buffer = W * B * T [transitions]: the samples of one iteration, of this rank."""
        assert self.rollout.envs_per_worker is not None, "complete() sets it"
        return self.num_collectors * self.rollout.envs_per_worker * self.rollout.steps_per_env

    @property
    def has_teacher(self) -> bool:
        """Whether the policy is a student: it needs no critic, and its teacher's obs groups."""
        return self.algorithm.kind == "distillation"

    @property
    def teacher_groups(self) -> list[str]:
        """Obs groups that a teacher reads; known once the run has found it."""
        return (self.distillation.teacher_groups or []) if self.has_teacher else []

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain, JSON-ready data, the same on every rank."""
        data = dataclasses.asdict(self)
        for section, name, value in self.seat.named:
            data[section][name] = value
        return data


def all_knobs() -> list[tuple[str, Any, Mapping[str, Any]]]:
    """Return (key, default, metadata) of every knob; metadata has `doc`, bounds and choices."""
    return list(walk(RunConfig()))
