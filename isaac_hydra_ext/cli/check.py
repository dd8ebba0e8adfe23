"""`appo check`: whether an env keeps to what a training needs of it. Runs it in this one process.

    appo check ENV_ID [env.kwargs.KEY=VALUE ...] [--steps 1000] [--json]
    appo check env=NAME [KEY=VALUE ...]

ENV_ID is an id of Gymnasium's or a task of mjlab's; `env=NAME` is as in training.
"""

import json
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict

from isaac_hydra_ext.cli.main import end_process, run_hydra_app, run_reporting_errors
from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.terminal.findings import Finding, as_text, verdict

ENVS = 2


def main() -> None:
    """Run the command line; exits with 1 if a check fails."""
    parser = CommandParser(
        prog="appo check",
        description="Check an environment: spaces, shapes, dtypes, ends, resets, seeds, NaN.",
        epilog="warn: it trains, and something may not be as it was meant. fail: it would not "
        "train; the exit code is 1 then. An exception of the env shows its traceback.",
    )
    parser.add_argument("env", metavar="ENV", help="ENV_ID, or env=NAME as in training")
    parser.add_argument("settings", nargs="*", default=[], metavar="KEY=VALUE", help="as there")
    parser.add_argument("--steps", type=int, default=1000, help="of random actions (default: 1000)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    arguments = parser.parse_intermixed_args()
    if arguments.steps < 1:
        parser.error(f"--steps {arguments.steps}: must be at least 1")
    from isaac_hydra_ext.envs.registry import choice_of  # not for --help

    named = [arguments.env] if "=" in arguments.env else choice_of(arguments.env)
    sys.argv = ["appo check", *named, *arguments.settings]
    findings: list[Finding] = []
    code = run_hydra_app(_task(findings, arguments.steps))
    if findings and arguments.json:
        checks = [asdict(finding) for finding in findings]
        print(json.dumps({"status": verdict(findings), "checks": checks}, indent=2))
    elif findings:
        print(as_text(findings, shutil.get_terminal_size((1000, 24)).columns), flush=True)
    end_process(code or int(verdict(findings) == "fail"))


def _task(findings: list[Finding], steps: int) -> Callable[[], None]:
    """Return the `hydra.main` function that makes the checks."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf

    from isaac_hydra_ext.config.reading import complete, read
    from isaac_hydra_ext.envs.loading import configure
    from isaac_hydra_ext.envs.registry import describe_task
    from isaac_hydra_ext.evaluation.env_checks import examine

    def check(cfg: DictConfig) -> None:
        typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
        assert isinstance(typed, list)
        settings = read(cfg, typed)
        config = configure(settings, None, 0)
        task = describe_task(config.env, config.rollout.device)
        config = configure(settings, task.settings, 0)
        complete(config, task.default_num_envs, settings.typed, settings.user)
        config.rollout.envs_per_worker = ENVS
        try:
            findings.extend(examine(config, steps))
        except Exception as e:
            traceback.print_exc()
            text = f"{type(e).__name__}: {e}"
            findings.append(Finding("exception", "fail", text, "the traceback says where"))

    @hydra.main(
        version_base="1.3", config_path="pkg://isaac_hydra_ext.conf", config_name="train_appo"
    )
    def task(cfg: DictConfig) -> None:
        if code := run_reporting_errors(lambda: check(cfg)):
            sys.exit(code)

    return task


if __name__ == "__main__":
    main()
