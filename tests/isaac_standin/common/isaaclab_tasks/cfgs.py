"""Stand-in cfgs of the tasks, and of their trainers."""

from dataclasses import MISSING

import gymnasium as gym
import isaaclab.utils.assets  # noqa: F401 - as whatever names an asset does
from isaaclab.envs import DirectMARLEnvCfg, DirectRLEnvCfg, ManagerBasedRLEnvCfg, SimCfg
from isaaclab.utils.configclass import configclass

from isaaclab_tasks.utils.generation import physics, with_presets


@configclass
class Term:
    """Stand-in."""

    weight: float = 1.0
    params: dict = {"scale": 0.25, "joints": ["a", "b"]}


@configclass
class CartpoleCfg(DirectRLEnvCfg):
    """Stand-in; `term` may be dropped with null."""

    sim: SimCfg = SimCfg(physics=physics(newton=True))
    term: Term = Term()
    func: object = max
    limits: tuple = (0.5, 1.0)

    def __post_init__(self) -> None:
        """As the real ones do."""
        with_presets(self)


@configclass
class Groups:
    """Stand-in."""

    policy: object = "concatenated"
    critic: object = "concatenated"


@configclass
class Go1Cfg(ManagerBasedRLEnvCfg):
    """Stand-in with a terrain curriculum and play_mode."""

    sim: SimCfg = SimCfg(physics=physics())
    observations: Groups = Groups()
    actor_groups: list = ["policy", "critic"]
    terrain_levels: int = 10
    action_space: object = 12

    def play_mode(self) -> None:
        self.scene.num_envs = 50


@configclass
class Go1PlayCfg(Go1Cfg):
    """Stand-in: made for playing already."""

    def __post_init__(self) -> None:
        """As the real ones do."""
        self.scene.num_envs = 20


@configclass
class NestedCfg(ManagerBasedRLEnvCfg):
    """Stand-in."""

    sim: SimCfg = SimCfg(physics=physics())
    nested: bool = True


@configclass
class DiscreteCfg(DirectRLEnvCfg):
    """Stand-in."""

    sim: SimCfg = SimCfg(physics=physics())
    is_finite_horizon: bool = True
    action_space: object = gym.spaces.Discrete(4, start=-2)


@configclass
class MultiDiscreteCfg(DirectRLEnvCfg):
    """Stand-in."""

    sim: SimCfg = SimCfg(physics=physics())
    action_space: object = gym.spaces.MultiDiscrete([3, 2])


@configclass
class BoundedCfg(DirectRLEnvCfg):
    """Stand-in."""

    sim: SimCfg = SimCfg(physics=physics())
    action_space: object = gym.spaces.Box(-2.0, 3.0, (2,))


@configclass
class MultiAgentCfg(DirectMARLEnvCfg):
    """Stand-in."""

    sim: SimCfg = SimCfg(physics=physics())


@configclass
class DiscreteAgentsCfg(DirectMARLEnvCfg):
    """Stand-in."""

    sim: SimCfg = SimCfg(physics=physics())
    action_space: object = gym.spaces.Discrete(2)


@configclass
class KitOnlyCfg(DirectRLEnvCfg):
    """Stand-in: nothing but Kit's physics."""


@configclass
class Distribution:
    """Stand-in."""

    class_name: str = "GaussianDistribution"
    init_std: float = 0.5


@configclass
class Mlp:
    """Stand-in of rsl_rl 5's model cfg; `stochastic` is MISSING there too."""

    hidden_dims: list = [32, 32]
    activation: str = "elu"
    obs_normalization: bool = False
    distribution_cfg: object = Distribution()
    stochastic: object = MISSING


@configclass
class Ppo:
    """Stand-in."""

    class_name: str = "PPO"
    num_learning_epochs: int = 2
    num_mini_batches: int = 4
    learning_rate: float = 3e-4
    schedule: str = "fixed"
    gamma: float = 0.98
    lam: float = 0.9
    entropy_coef: float = 0.01
    desired_kl: float = 0.02
    max_grad_norm: float = 0.5
    value_loss_coef: float = 2.0
    use_clipped_value_loss: bool = True
    clip_param: float = 0.3
    rnd_cfg: object = None
    symmetry_cfg: object = None


@configclass
class MlpCfg:
    """Stand-in of rsl_rl 5's runner cfg."""

    class_name: str = "OnPolicyRunner"
    num_steps_per_env: int = 8
    max_iterations: int = 3
    save_interval: int = 50
    experiment_name: str = "cartpole_direct"
    obs_groups: object = MISSING
    actor: Mlp = Mlp()
    critic: Mlp = Mlp()
    algorithm: Ppo = Ppo()


@configclass
class OldPolicy:
    """Stand-in of rsl_rl 2's policy cfg."""

    class_name: str = "ActorCritic"
    init_noise_std: float = 0.8
    actor_hidden_dims: list = [64]
    critic_hidden_dims: list = [48]
    activation: str = "elu"
    actor_obs_normalization: object = MISSING  # of rsl_rl 3


@configclass
class OldLayoutCfg:
    """Stand-in of rsl_rl 2's runner cfg; 3.0's class has both layouts, one of them unset."""

    num_steps_per_env: int = 24
    max_iterations: int = 3
    save_interval: int = 50
    experiment_name: str = "unitree_go1_flat"
    empirical_normalization: bool = True
    actor: object = MISSING
    policy: OldPolicy = OldPolicy()
    algorithm: Ppo = Ppo()


@configclass
class SkrlCfg:
    """Stand-in of another trainer's cfg."""

    seed: int = 42
    models: dict = {"separate": False}
    agent: dict = {"class": "PPO"}


@configclass
class RecurrentModel(Mlp):
    """Stand-in."""

    rnn_type: str = "lstm"


@configclass
class RecurrentCfg(MlpCfg):
    """Stand-in."""

    actor: RecurrentModel = RecurrentModel()


@configclass
class AppoCfg:
    """What a task's author recommends for this trainer."""

    ppo: dict = {"gamma": 0.93}
    rollout: dict = {"max_policy_lag": 0}
