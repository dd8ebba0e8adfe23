"""The README's commands and links, and the example of docs/configuration.md, run as it stands."""

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
CONFIGURATION = README.parent / "docs" / "configuration.md"


def test_the_plugin_from_somebody_elses_app(tmp_path: Path) -> None:
    text = CONFIGURATION.read_text()
    for language, name in (("python", "my_app.py"), ("yaml", "my_app.yaml")):
        (block,) = (b for b in re.findall(rf"```{language}\n(.*?)```", text, re.S) if name in b)
        (tmp_path / name).write_text(block)
    with (tmp_path / "my_app.yaml").open("a") as f:  # our defaults, which the env's file moves
        f.write("  ppo: {lr: 0.001, update_epochs: 5}\n")
    line = [sys.executable, "my_app.py", "appo.rollout.steps_per_env=8", "appo.ppo.gamma=0.8"]
    line += ["appo.experiment.max_iterations=2", "hydra.run.dir=."]
    line += ["appo.ppo.lr_schedule=adaptive"]  # our default: only its being typed says so
    line += ["+api_token=${oc.env:APPO_SECRET}"]  # of the application; none of our business
    secret = secrets.token_hex()  # a word of this file would be in git/*.diff
    env = {**os.environ, "APPO_SECRET": secret}
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "my_logs" / "pendulum-v1").iterdir()
    agent = (run / "params" / "agent.yaml").read_text()
    assert "gamma: 0.8" in agent
    assert "lr_schedule: adaptive" in agent
    assert "num_mini_batches: 4" in agent, "what env=gym_pendulum recommends"
    assert "\n  lr: 0.001\n" in agent and "\n  update_epochs: 5\n" in agent
    assert (run / ".hydra" / "config.yaml").read_text() == agent
    written = [path for path in run.rglob("*") if path.is_file()]
    assert [path for path in written if secret.encode() in path.read_bytes()] == []


def test_every_command_and_link_names_something_that_exists() -> None:
    text = README.read_text()
    for path in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (README.parent / path).exists(), path
    for script in re.findall(r"scripts/\w+\.sh", text):
        assert (README.parent / script).exists(), script
    envs = {p.stem for p in (README.parent / "isaac_hydra_ext/conf/env").glob("*.yaml")}
    named = set(re.findall(r"`((?:gym|mjlab|isaac)_\w+)", text)) - {"isaac_hydra_ext"}
    assert named == envs
