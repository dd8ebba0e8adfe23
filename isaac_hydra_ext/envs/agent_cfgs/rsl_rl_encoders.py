"""rsl_rl's `cnn_cfg`, and the encoders of Isaac Lab's own models, as our `policy.encoders`.

Runs in worker 0 during `describe`.
"""

from typing import Any

from isaac_hydra_ext.envs.agent_cfgs.section import Section

KEYS = {
    "output_channels": "channels",
    "kernel_size": "kernel",
    "stride": "stride",
    "dilation": "dilation",
    "padding": "padding",
    "activation": "activation",
    "max_pool": "max_pool",
}
POOLS = {"none": "flatten", "avg": "avg", "max": "max"}
PICTURES = "*"  # every group of pictures: rsl_rl tells them from vectors by the shapes it sees
# Models with encoders that are known by name: Isaac Lab 3.0.0's, and mjlab's, whose temperature is
# not learned.
SPATIAL_SOFTMAX, SHARED = "SpatialSoftmaxCNNModel", "SharedEncoderMLPModel"
FIXED_TEMPERATURE = "SpatialSoftmaxCNNModel of mjlab"


def encoders(model: Section, kind: str) -> dict[str, Any]:
    """Return the encoders of one model, by obs group.

    Args:
        model: `actor` or `critic`.
        kind: The name of its class.

    Raises:
        ConfigError: An encoder that there is none of here.
    """
    temperature = model.get("init_temperature", 1.0)
    found: dict[str, Any] = {}
    given = model.part("encoder_cfg") if kind == SHARED else Section("rsl_rl", {})
    for group in given.names():
        found[group] = _vectors(given.part(group))
    cnn = model.part("cnn_cfg")
    if kind == SPATIAL_SOFTMAX:
        model.note(
            "class_name", kind, f"its learned temperature ({temperature:g}) is 1 here, and uint8 "
            "pictures are scaled to 0..1"
        )  # fmt: skip
    if not cnn:
        return found
    by_group = "output_channels" not in cnn
    for group in cnn.names() if by_group else [PICTURES]:
        found[group] = _pictures(cnn.part(group) if by_group else cnn, kind)
    return found


def _vectors(part: Section) -> dict[str, Any]:
    settings = {
        "kind": "mlp",
        "hidden_dims": list(part["hidden_dims"]),
        "features": part["latent_dim"],
        "activation": part.get("activation", "elu"),
        "last_activation": part.get("last_activation"),
    }
    part.done()
    return settings


def _pictures(cnn: Section, kind: str) -> dict[str, Any]:
    settings: dict[str, Any] = {"kind": "cnn"}
    for theirs, ours in KEYS.items():
        if theirs in cnn:
            value = cnn[theirs]
            settings[ours] = list(value) if isinstance(value, (list, tuple)) else value
    settings.setdefault("stride", 1)
    norms = cnn.get("norm", "none")
    kinds = {norms} if isinstance(norms, str) else set(norms)
    if len(kinds) != 1 or not kinds <= {"none", "layer"}:
        raise cnn.refuse("norm", norms, "is not supported: none or layer, the same for all layers")
    settings["norm"] = kinds.pop()
    settings["pool"] = POOLS[cnn.get("global_pool", "none")]
    if kind in (SPATIAL_SOFTMAX, FIXED_TEMPERATURE):
        settings["pool"] = "spatial_softmax"
        cnn.ignore("spatial_softmax")
        cnn.expect("spatial_softmax_temperature", 1.0, "it is 1 here")
    cnn.expect("flatten", True, "features are flattened here")
    cnn.done()
    return settings
