"""Stand-in: alternatives of which Isaac Lab picks one by name."""

from isaaclab.utils.configclass import configclass


@configclass
class PhysxCfg:
    """Needs Kit."""

    solver_type: int = 1


@configclass
class NewtonCfg:
    """Needs no Kit."""

    num_substeps: int = 1


class PresetCfg:
    """Marks a choice; `default` is taken unasked."""


@configclass
class PhysicsPresets(PresetCfg):
    """Stand-in."""

    default: object = PhysxCfg()
    isaacsim_physx: PhysxCfg = PhysxCfg()
    newton_kamino: NewtonCfg = NewtonCfg(num_substeps=2)
    newton_mjwarp: NewtonCfg = NewtonCfg()
