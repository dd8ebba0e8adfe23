"""Stand-in: how both 3.0 walk and apply choices."""

from isaaclab_tasks.utils.preset_cfg import PresetCfg


def collect_presets(cfg: object) -> dict:
    """Return {path: {name: value}} of every choice."""
    choice = cfg.sim.physics
    return {"sim.physics": dict(vars(choice))} if isinstance(choice, PresetCfg) else {}


def apply_tokens(env_cfg: object, tokens: list) -> None:
    """Pick the alternatives that the tokens name; end the process at a foreign one."""
    name = "default"
    for token in tokens:
        key, _, value = token.partition("=")
        if key not in ("physics", "presets", "env.sim.physics"):
            print(f"unrecognised: {token}")
            raise SystemExit(1)
        name = {"newton": "newton_mjwarp"}.get(value, value)
    if isinstance(env_cfg.sim.physics, PresetCfg):
        env_cfg.sim.physics = getattr(env_cfg.sim.physics, name)
