"""What a kind of environment says of itself before any of it is imported. Used in every process."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EnvFacts:
    """What a run must know of an `env.kind` to place, size and watch its processes.

    The defaults suit an adapter that says nothing. A package whose adapter differs registers an
    instance under the same name in the entry-point group `isaac_hydra_ext.env_facts`; it is read in
    the learner's process, where the adapter itself is never imported with W >= 1.

    Attributes:
        name: What messages call it; empty: `env.kind`.
        named_by: Which key names the task, `id` or `task`, and must be there; None: the adapter's
            own affair.
        needs_simulator: Describing a task imports a simulator, so it happens where the simulation
            will be. False: any process can do it, at once.
        is_pure_gym: `gymnasium.make` alone makes the env, without torch or an adapter.
        can_use_gpu: It can simulate on a GPU.
        auto_is_gpu: `rollout.device=auto` and `evaluate.device=auto` mean a GPU where there is one.
        shares_gpu: A second simulation (the evaluator's) can live on the same GPU.
        has_own_threads: It starts threads that one core a worker would starve.
        compiles_kernels: A first start takes minutes.
        process_bytes: What a worker takes at the least, torch and a small env in it [bytes].
        package: The top-level module without which there is no task to list; empty: none.
        install: How to get that; for messages.
        has_viewer: Its adapter's `make` takes `view=True`, and gives a `ViewableEnv` then.
        viewed_by: Where not: what to do instead, for a message.
        choice: The choice of `env=` that takes any task of it; empty: none.
    """

    name: str = ""
    named_by: str | None = None
    needs_simulator: bool = True
    is_pure_gym: bool = False
    can_use_gpu: bool = True
    auto_is_gpu: bool = False
    shares_gpu: bool = True
    has_own_threads: bool = False
    compiles_kernels: bool = False
    process_bytes: int = 160 * 2**20
    package: str = ""
    install: str = ""
    choice: str = ""
    has_viewer: bool = False
    viewed_by: str = "appo play RUN --video films it"
