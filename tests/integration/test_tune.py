"""`appo tune`: what is typed becomes a search space, and a trial is a run that resumes exactly."""

import json
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.cli import main as cli
from isaac_hydra_ext.errors import ConfigError

ray = pytest.importorskip("ray", reason="pip install -e '.[ray]'")
from isaac_hydra_ext.cli.tune import _inside, search_space  # noqa: E402
from isaac_hydra_ext.cli.tune_trial import Trial  # noqa: E402

TINY = [
    "env=gym_pendulum", "rollout.num_workers=0", "rollout.envs_per_worker=2",
    "rollout.steps_per_env=200", "rollout.init_at_random_ep_len=false", "logging.report=false",
    "experiment.device=cpu", "rollout=sync",
]  # fmt: skip


def test_hydras_sweep_syntax_becomes_tunes_search_space() -> None:
    fixed, space = search_space(
        [
            "env=gym_pendulum", "ppo.lr=tag(log, interval(1e-4, 1e-2))",
            "ppo.gamma=choice(0.95, 0.99)", "ppo.update_epochs=range(2, 6, 2)",
            "ppo.lam=0.9,0.95", "ppo.clip=interval(0.1, 0.3)",
            "+ppo.terms.x.k=int(interval(1, 3))", "policy.hidden_dims=choice([64,64],[128])",
        ]
    )  # fmt: skip
    assert fixed == ["env=gym_pendulum"]
    assert space["ppo.gamma"].categories == ["0.95", "0.99"] and space["ppo.lam"].categories == [
        "0.9",
        "0.95",
    ]
    assert space["ppo.update_epochs"].categories == ["2", "4"]
    assert space["policy.hidden_dims"].categories == ["[64,64]", "[128]"]
    lr, clip, whole = space["ppo.lr"], space["ppo.clip"], space["+ppo.terms.x.k"]
    assert (lr.lower, lr.upper, clip.lower, clip.upper) == (1e-4, 1e-2, 0.1, 0.3)
    assert type(lr.get_sampler()) is not type(clip.get_sampler()), "logarithmic"
    assert {whole.sample() for _ in range(100)} == {1, 2, 3}, "both ends, as in Hydra"
    moved = {"ppo.lr": 0.012, "ppo.clip": 0.05, "+ppo.terms.x.k": 4, "ppo.gamma": "0.95"}
    assert _inside(moved, {k: space[k] for k in moved}) == {
        "ppo.lr": 1e-2, "ppo.clip": 0.1, "+ppo.terms.x.k": 3, "ppo.gamma": "0.95",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("ppo.lr=interval(2, 1)", "not an interval to search"),
        ("ppo.lr=tag(log, interval(0.0, 1.0))", "not an interval to search"),
        ("ppo.lr=glob(*)", "use choice(), range() or interval()"),
        ("hydra/sweeper=optuna", "Ray Tune has the place of"),
        ("ppo.lr=[", "not an override Hydra can read"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_a_line(typed: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        search_space([typed])
    assert says in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.release
def test_a_trial_in_parts_is_the_run_in_one_piece(tmp_path: Path) -> None:
    models = []
    for every in (2, 4):
        trial = Trial(TINY, until=4, every=every, output_dir=str(tmp_path / str(every)))
        model = ""
        for until in range(every, 5, every):
            run_dir = trial._train({"ppo.lr": 0.001}, model, until, "trial")["run_dir"]
            model = f"{run_dir}/checkpoints/model_{until}.safetensors"
        models.append(load_checkpoint(Path(model)).tensors)
    parts, whole = models
    assert parts.keys() == whole.keys()
    assert all(torch.equal(x, whole[name]) for name, x in parts.items())


def appo_tune(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["appo", "tune", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.release
def test_pbt_goes_on_from_the_better_trial_with_other_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (*TINY, f"experiment.output_dir={tmp_path}", "experiment.max_iterations=4",
             "ppo.lr=interval(1e-4, 1e-2)", "ray.address=local")  # fmt: skip
    try:
        code = appo_tune(monkeypatch, "--trials", "2", "--every", "2", "--scheduler", "pbt", *words)
    finally:
        ray.shutdown()
    said = capfd.readouterr()
    assert code == 0, said
    summaries = [json.loads(p.read_text()) for p in tmp_path.glob("*/*/summary.json")]
    assert sorted(s["iterations"] for s in summaries) == [2, 2, 4, 4]
    assert (
        f"best: mean_return {max(s['mean_return'] for s in summaries if s['iterations'] == 4):g}"
        in said.out
    )
    parts = [OmegaConf.load(p) for p in tmp_path.glob("*/*/.hydra/overrides.yaml")]
    rates = {next(x for x in part if x.startswith("ppo.lr=")) for part in parts}
    assert len(rates) == 3, "two drawn, and one that PBT has made of the better"


def test_nothing_to_search_and_a_misspelt_key_are_refused_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert appo_tune(monkeypatch, *TINY) == 2
    assert "nothing to search" in capfd.readouterr().err
    assert appo_tune(monkeypatch, *TINY, "ppo.lrr=interval(1e-4, 1e-2)") == 2
    assert "ppo.lrr" in capfd.readouterr().err
