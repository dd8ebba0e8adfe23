"""Precedence, minibatch sizes, and what is filled in."""

import dataclasses
import json
import re

import pytest
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

from isaac_hydra_ext.cli.main import help_text
from isaac_hydra_ext.config.reading import complete, read
from isaac_hydra_ext.config.schema import RunConfig, all_knobs, walk
from isaac_hydra_ext.envs.loading import configure, load_run_config
from isaac_hydra_ext.errors import ConfigError

from .test_config_refusals import composed, loaded, refusal

# The trainer_defaults of gym_pendulum: W = 2, B = 16, T = 64, gamma 0.95, 4 minibatches.
PENDULUM = "env=gym_pendulum"
TASK = {
    "ppo": {"gamma": 0.9, "lam": 0.8, "num_mini_batches": 7, "clip": 0.3},
    "policy": {"obs_groups": {"actor": ["a"], "critic": ["a", "b"]}},
}


# ------------------------------------------------------------------ precedence


def test_what_nobody_sets_is_the_schemas_default() -> None:
    config = loaded("env=gym_any", "env.id=Pendulum-v1", "rollout.num_workers=1")
    given = {"env.id", "rollout.num_workers"}
    completed = {
        "experiment.name", "rollout.envs_per_worker", "rollout.device", "ppo.batch_size",
    }  # fmt: skip
    for (key, value, _), (_, default, _) in zip(walk(config), all_knobs(), strict=True):
        if key not in given | completed:
            assert value == default, key


def test_task_settings_beat_defaults_and_trainer_defaults_beats_task_settings() -> None:
    ppo = loaded(PENDULUM, task_settings=TASK).ppo
    assert (ppo.lam, ppo.clip) == (0.8, 0.3)
    assert ppo.gamma == 0.95
    assert ppo.num_mini_batches == 4
    assert ppo.desired_kl == 0.01


def test_what_is_typed_beats_everything_even_where_it_is_the_default() -> None:
    ppo = loaded(PENDULUM, "ppo.gamma=0.99", "ppo.lam=0.95", task_settings=TASK).ppo
    assert (ppo.gamma, ppo.lam) == (0.99, 0.95)


def test_a_group_choice_sets_what_differs_from_the_defaults_and_nothing_else() -> None:
    config = loaded(PENDULUM, "ppo=vtrace", "rollout=sync", "experiment=smoke", task_settings=TASK)
    assert config.ppo.advantages == "vtrace"
    assert config.rollout.max_policy_lag == 0
    assert (config.experiment.max_iterations, config.experiment.name) == (3, "smoke")
    # The rest of those files is there to be complete: recommendations hold.
    assert (config.ppo.gamma, config.ppo.lam, config.ppo.num_mini_batches) == (0.95, 0.8, 4)
    assert (config.rollout.envs_per_worker, config.rollout.steps_per_env) == (16, 64)


def test_a_typed_key_beats_a_group_choice() -> None:
    assert loaded(PENDULUM, "ppo=vtrace", "ppo.advantages=gae").ppo.advantages == "gae"


@pytest.mark.parametrize("gamma", [0.5, 0.99])
def test_a_users_own_file_beats_recommendations_also_where_it_says_the_default(
    gamma: float,
) -> None:
    cfg = composed(PENDULUM)
    cfg.ppo.gamma = gamma
    cfg.policy.hidden_dims = [256, 128, 64]
    config = load_run_config(cfg, (), TASK)
    assert (config.ppo.gamma, config.ppo.lr) == (gamma, 5e-4)
    assert config.policy.hidden_dims == [256, 128, 64]
    cfg.ppo = {"gamma": gamma}  # a file that holds what differs, and no other key
    assert load_run_config(cfg, (), TASK).ppo.gamma == gamma


def test_trainer_defaults_in_a_nested_group_hold() -> None:
    defaults = {"logging": {"video": {"every": 100}, "wandb": {"tags": ["walk"]}}}
    logging = {"video": {"length": 7}}
    env = {"id": "X-v0", "trainer_defaults": defaults}
    config = load_run_config({"env": env, "logging": logging})
    assert (config.logging.video.every, config.logging.video.length) == (100, 7)
    assert config.logging.wandb.tags == ["walk"]
    defaults["logging"]["video"] = {"evry": 1}
    with pytest.raises(ConfigError, match=r"^env\.trainer_defaults\.logging\.video\.evry: unknown"):
        load_run_config({"env": env})


def test_files_and_runs_that_say_env_appo_are_read_with_a_note() -> None:
    cfg = {"env": {"id": "X-v0", "appo": {"ppo": {"gamma": 0.5}}}}
    settings = read(cfg)
    config = settings.config()
    assert (config.ppo.gamma, config.env.trainer_defaults) == (0.5, {"ppo": {"gamma": 0.5}})
    assert settings.notes == ["env.appo is called env.trainer_defaults now; it is read as that"]
    assert not read({"env": {"id": "X-v0"}}).notes
    with pytest.raises(ConfigError, match=r"^env\.appo: is called env\.trainer_defaults now,"):
        read({"env": {**cfg["env"], "trainer_defaults": {}}})


def test_a_typed_null_takes_a_recommendation_back() -> None:
    config = loaded(PENDULUM, "policy.obs_groups=null", task_settings=TASK)
    assert config.policy.obs_groups is None
    assert loaded(PENDULUM, task_settings=TASK).policy.obs_groups == TASK["policy"]["obs_groups"]


def test_three_question_marks_leave_a_knob_to_what_lies_below() -> None:
    config = load_run_config(OmegaConf.merge(composed(PENDULUM), {"ppo": {"gamma": "???"}}))
    assert config.ppo.gamma == 0.95


# ------------------------------------------------------------------ interpolations


def test_an_interpolation_leads_to_the_value_that_the_run_has() -> None:
    overrides = ("experiment.run_name='lr${ppo.lr}_lam${ppo.lam}_seed${experiment.seed}'",)
    config = loaded(PENDULUM, *overrides, task_settings=TASK)
    assert config.experiment.run_name == "lr0.0005_lam0.8_seed1"


def test_an_interpolation_may_lead_to_the_rest_of_the_application() -> None:
    app = OmegaConf.create(
        {
            "learning_rate": 0.25,
            "shared": {"lam": 0.5, "gamma": "???"},
            "appo": {
                "env": {"id": "X-v0"},
                "ppo": {"lr": "${learning_rate}", "clip": "${appo.ppo.lr}"},
                "experiment": {"run_name": "seed${appo.experiment.seed}"},
            },
            "other": {"env": {"id": "X-v0"}, "ppo": "${shared}"},
        }
    )
    OmegaConf.set_struct(app, True)
    OmegaConf.set_readonly(app, True)
    before = OmegaConf.to_yaml(app)
    config = load_run_config(app.appo)
    assert (config.ppo.lr, config.ppo.clip) == (0.25, 0.25)
    assert config.experiment.run_name == "seed1"
    assert load_run_config(app.other).ppo.lam == 0.5
    assert OmegaConf.to_yaml(app) == before, "reading must not write"


@pytest.mark.parametrize("there", [True, False])
def test_an_applications_own_resolver_of_variables_is_put_back(there: bool) -> None:
    resolvers = BaseContainer._resolvers
    omegaconfs = resolvers["oc.env"]
    try:
        OmegaConf.clear_resolver("oc.env")
        if there:
            OmegaConf.register_new_resolver("oc.env", lambda name: f"the vault's {name}")
        registered = resolvers.get("oc.env")
        load_run_config({"env": {"id": "X-v0"}})
        with pytest.raises(ConfigError, match="oc.env:HOME is not accepted"):
            load_run_config({"env": {"id": "${oc.env:HOME}"}})
        assert resolvers.get("oc.env") is registered
        if there:
            assert OmegaConf.create({"x": "${oc.env:KEY}"}).x == "the vault's KEY"
    finally:
        resolvers["oc.env"] = omegaconfs


# ------------------------------------------------------------------ the machine


def test_reading_asks_nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError("reading a configuration looks at the machine")

    elsewhere = {
        "env": {"id": "X-v0", "task": "X"},
        "experiment": {"output_dir": "/proc/nowhere", "device": "cuda:98"},
        "rollout": {"device": ["cuda:98", " cuda:99"]},
        "ppo": {"precision": "bf16"},
        "resume": "/no/such/run",
    }
    with monkeypatch.context() as patched:
        for place in ("torch.cuda.device_count", "tempfile.TemporaryFile", "os.path.exists"):
            patched.setattr(place, asked)
        config = read(elsewhere).config({"ppo": {"lam": 0.8}})
    assert config.rollout.device == "cuda:98,cuda:99"
    assert (config.ppo.lam, config.rollout.num_workers) == (0.8, "auto")
    with pytest.raises(ConfigError, match=r"^experiment\.device=cuda:98: PyTorch sees"):
        load_run_config(elsewhere)


def test_a_drawn_seed_is_drawn_once() -> None:
    settings = read({"env": {"id": "X-v0"}, "experiment": {"seed": -1}})
    assert settings.config().experiment.seed == settings.config(TASK).experiment.seed >= 0


# ------------------------------------------------------------------ minibatches


def sized(*overrides: str) -> tuple[RunConfig, list[str]]:
    config = load_run_config(composed(*overrides), overrides)
    return config, complete(config, 32, overrides)


SMALL = ("env=gym_any", "env.id=Pendulum-v1", "rollout.num_workers=2", "rollout.envs_per_worker=4")


def test_a_default_minibatch_larger_than_n_buffer_is_lowered_with_one_line() -> None:
    config, notes = sized(*SMALL)  # 2 * 4 * 32 = 256 < 8192
    assert config.n_buffer == config.ppo.batch_size == 256
    assert notes == ["ppo.batch_size 8192 -> 256: N_buffer = W*B*T = 2*4*32 = 256"]


def test_a_typed_minibatch_larger_than_n_buffer_is_refused() -> None:
    message = refusal(*SMALL, "ppo.batch_size=257")
    assert message.startswith("ppo.batch_size=257: larger than N_buffer = W*B*T = 2*4*32 = 256")


def test_a_typed_minibatch_of_the_default_size_is_refused_too() -> None:
    assert refusal(*SMALL, "ppo.batch_size=8192").startswith("ppo.batch_size=8192: larger than")


def test_a_typed_minibatch_that_fits_is_kept() -> None:
    config, notes = sized(*SMALL, "ppo.batch_size=256")
    assert (config.ppo.batch_size, notes) == (256, [])


@pytest.mark.parametrize("group", ["default", "vtrace"])
def test_choosing_a_ppo_group_does_not_count_as_typing_its_batch_size(group: str) -> None:
    config, notes = sized(*SMALL, f"ppo={group}")
    assert config.ppo.batch_size == 256
    assert len(notes) == 1 and notes[0].startswith("ppo.batch_size 8192 -> 256")
    assert sized(PENDULUM, f"ppo={group}")[0].ppo.num_mini_batches == 4


def test_a_ppo_group_and_a_typed_number_of_minibatches_are_one_choice() -> None:
    config, _ = sized(*SMALL, "ppo=vtrace", "ppo.num_mini_batches=4")
    assert config.ppo.batch_size == 64


def test_a_number_of_minibatches_sets_their_size_rounded_up() -> None:
    config, notes = sized(*SMALL, "ppo.num_mini_batches=3")
    assert (config.ppo.batch_size, notes) == (86, [])  # 86, 86, 84


def test_more_minibatches_than_samples_are_refused() -> None:
    message = refusal(*SMALL, "ppo.num_mini_batches=257")
    assert message.startswith("ppo.num_mini_batches=257: larger than N_buffer")


@pytest.mark.parametrize("env", [SMALL, (PENDULUM,)])
def test_both_typed_are_refused(env: tuple[str, ...]) -> None:
    message = refusal(*env, "ppo.batch_size=64", "ppo.num_mini_batches=4")
    assert message == "ppo.batch_size and ppo.num_mini_batches: give one of the two, not both"


def test_a_typed_batch_size_beats_a_recommended_number_of_minibatches() -> None:
    config = loaded(PENDULUM, "ppo.batch_size=100", task_settings=TASK)
    assert (config.ppo.batch_size, config.ppo.num_mini_batches) == (100, None)


def test_a_batch_size_from_a_config_file_beats_a_recommended_number_of_minibatches() -> None:
    cfg = composed(PENDULUM)
    cfg.ppo.batch_size = 100
    config = load_run_config(cfg)
    complete(config, 32, ())
    assert config.ppo.batch_size == 100


def test_two_sizes_in_files_are_settled_with_one_line() -> None:
    settings = read({"env": {"id": "X-v0"}, "ppo": {"batch_size": 100, "num_mini_batches": 4}})
    config = configure(settings, None, 2)
    config.rollout.envs_per_worker = 4
    notes = complete(config, 32, settings.typed, settings.user)
    assert config.ppo.batch_size == 64
    assert notes == [
        "ppo.batch_size 100 -> 64: ppo.num_mini_batches=4 is set too, and N_buffer = W*B*T = "
        "2*4*32 = 256"
    ]
    again = read(config.to_dict())
    assert complete(configure(again), 32, again.typed, again.user) == [], "a run's own record"


# ------------------------------------------------------------------ what is filled in


def test_envs_are_the_tasks_number_shared_by_the_workers_and_at_least_one() -> None:
    for workers, envs in ((0, 32), (1, 32), (3, 10), (40, 1)):
        overrides = ("env=gym_any", "env.id=X-v0", f"rollout.num_workers={workers}")
        config, notes = sized(*overrides)
        assert config.rollout.envs_per_worker == envs
        said = [note for note in notes if note.startswith("envs ")]
        if max(1, workers) * envs == 32:
            assert said == []
        else:
            assert said == [
                f"envs 32 -> {workers * envs}: the env's own number does not divide among "
                f"{workers} workers, each has {envs}"
            ]


def test_the_name_is_the_environments_made_safe() -> None:
    config, _ = sized("env=gym_any", "env.id='ALE/Pong-v5'")
    assert config.experiment.name == "ale-pong-v5"


def test_auto_workers_are_a_number_and_seed_minus_one_draws() -> None:
    seeds = {loaded(PENDULUM, "experiment.seed=-1").experiment.seed for _ in range(3)}
    assert len(seeds) == 3 and min(seeds) >= 0
    assert loaded("env=gym_any", "env.id=Pendulum-v1").num_workers >= 1


def test_without_workers_one_collector_counts() -> None:
    config, _ = sized(*SMALL[:2], "rollout.num_workers=0", "rollout.envs_per_worker=4")
    assert (config.num_collectors, config.n_buffer) == (1, 128)


# ------------------------------------------------------------------ documentation


def test_every_knob_says_what_it_is() -> None:
    knobs = all_knobs()
    assert len(knobs) > 60
    for key, _, metadata in knobs:
        assert len(metadata["doc"]) > 3, key
    assert len({key for key, _, _ in knobs}) == len(knobs)


def test_every_number_says_its_unit_and_help_shows_it_with_the_bounds() -> None:
    entries = re.split(r"\n+(?=  ?[a-z_]+\.?[a-z_.]*[=:])", help_text())  # a knob's lines are one
    lines = {entry.split("=")[0].strip(): " ".join(entry.split()) for entry in entries}
    types = {
        f"{section.name}.{f.name}": f.type
        for section in dataclasses.fields(RunConfig)
        if dataclasses.is_dataclass(section.type)
        for f in dataclasses.fields(section.type)
    }
    numbers = [key for key, kind in types.items() if "int" in str(kind) or "float" in str(kind)]
    assert len(numbers) > 30
    for key in numbers:
        assert re.search(r" \[[a-z -]+\] .*\((>|<)=? [0-9.,-]+", lines[key]), lines[key]
    assert lines["ppo.gamma"].endswith("discount per env step (>= 0, <= 1)")
    assert lines["rollout.startup_timeout_s"].endswith("(> 0, <= 1,000,000)")
    assert lines["ppo.update_epochs"].endswith("(>= 1)")
    assert lines["ppo.advantages"].endswith("(gae | vtrace)")


def test_every_float_has_a_bound_that_nan_fails() -> None:
    sections = [f.type for f in dataclasses.fields(RunConfig) if dataclasses.is_dataclass(f.type)]
    floats = [
        f
        for section in sections
        for f in dataclasses.fields(section)
        if f.type in (float, float | None)
    ]
    assert len(floats) > 15
    for f in floats:
        assert any(f.metadata[limit] is not None for limit in ("ge", "gt", "le")), f.name


def test_the_configuration_as_data_is_json_ready_and_complete() -> None:
    data = loaded(PENDULUM).to_dict()
    assert load_run_config(json.loads(json.dumps(data))).to_dict() == data
    assert data["ppo"]["gamma"] == 0.95


def test_a_configuration_without_an_environment_is_refused_by_key() -> None:
    with pytest.raises(ConfigError, match=r"^env\.id: missing for env\.kind=gym"):
        load_run_config({})


@pytest.mark.parametrize(
    ("env", "key"),
    [
        ({"kwargs": {"goal": {"x": "???"}}}, "env.kwargs.goal.x"),
        ({"imports": ["json", "???"]}, "env.imports[1]"),
    ],
)
def test_a_missing_value_within_a_knob_is_refused_by_key(env: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{key}=???: the value is missing")):
        load_run_config({"env": {"id": "Pendulum-v1", **env}})
