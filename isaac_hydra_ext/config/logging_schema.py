"""The configuration of logging, the part `logging` of `schema.py`. Used in every process."""

from dataclasses import dataclass, field

from isaac_hydra_ext.config.knob import knob


@dataclass
class VideoConfig:
    """Videos of evaluations, in the run's videos/. Needs the extra `video`."""

    every: int = knob(0, "[iterations] between videos, each of an evaluation; 0: none", ge=0)
    length: int = knob(200, "[env steps] at most, a picture each", ge=1, le=10**5)
    fps: float | None = knob(None, "[frames/s] null: real time where known, else 30", gt=0, le=1000)


@dataclass
class WandbConfig:
    """Weights & Biases. What is null comes from its own settings and variables (WANDB_...)."""

    project: str | None = knob(None, "null: WANDB_PROJECT, else experiment.name")
    entity: str | None = knob(None, "user or team that the project belongs to")
    group: str | None = knob(None, "what its pages group runs by, e.g. a study")
    tags: list[str] = knob([], "of the run")
    mode: str | None = knob(
        None,
        "null: WANDB_MODE, else online; offline: `wandb sync` uploads later",
        choices=("online", "offline", "disabled"),
    )


@dataclass
class SwanlabConfig:
    """SwanLab. What is null comes from its own settings and variables (SWANLAB_...)."""

    project: str | None = knob(None, "null: SWANLAB_PROJECT, else experiment.name")
    workspace: str | None = knob(None, "user or organisation that the project belongs to")
    group: str | None = knob(None, "what its pages group runs by, e.g. a study")
    tags: list[str] = knob([], "of the run")
    mode: str | None = knob(
        None,
        "null: SWANLAB_MODE, else online; offline: `swanlab sync` uploads later; local: `swanlab "
        "watch` shows it",
        choices=("online", "offline", "local", "disabled"),
    )


@dataclass
class LoggingConfig:
    """What is shown and written while the run goes on."""

    backends: list[str] = knob(
        ["tensorboard"], "trackers", choices=("tensorboard", "csv", "wandb", "swanlab")
    )
    every: int = knob(1, "[iterations] between lines and tracker points", ge=1)
    console: str = knob(
        "auto", "live table, plain lines, or nothing", choices=("auto", "table", "plain", "quiet")
    )
    report: bool = knob(True, "write report.md at the end, with the curve if matplotlib is there")
    profile: list[int] = knob(
        [], "[iterations] first and last one to trace into profile/, for Perfetto; []: none", ge=0
    )
    video: VideoConfig = field(default_factory=VideoConfig)
    aliases: str = knob(
        "none", "write metrics under another trainer's names too", choices=("none", "rlinf")
    )
    wandb: WandbConfig = field(default_factory=WandbConfig)
    swanlab: SwanlabConfig = field(default_factory=SwanlabConfig)
