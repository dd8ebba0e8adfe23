"""What every command shares: `--help`, one-line errors, exit codes, and `appo` itself.

Runs in the learner's main thread, before and after the run.
"""

import importlib
import os
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from isaac_hydra_ext import __version__
from isaac_hydra_ext.cli.hydra_guard import check_hydra_node
from isaac_hydra_ext.cli.sweep import signals_to_jobs
from isaac_hydra_ext.cli.sweep_results import has_begun, told_at_the_end
from isaac_hydra_ext.config.elsewhere import name_here
from isaac_hydra_ext.config.reference import as_help, sections
from isaac_hydra_ext.config.schema import RunConfig, all_knobs
from isaac_hydra_ext.errors import ConfigError, IsaacHydraExtError, SweepError, did_you_mean, shown
from isaac_hydra_ext.system.garbage import garbage_uncollected
from isaac_hydra_ext.system.streams import prepare_streams, say_error, stdout_error

COMMANDS = {
    "train": ("isaac_hydra_ext.cli.train", "train a policy: appo train env=gym_pendulum"),
    "eval": ("isaac_hydra_ext.cli.eval", "evaluate a checkpoint: appo eval RUN, appo eval latest"),
    "play": ("isaac_hydra_ext.cli.eval", "the same; --viewer shows it, --video films it"),
    "export": ("isaac_hydra_ext.cli.export", "write ONNX, TorchScript and JSON: appo export RUN"),
    "run-onnx": ("isaac_hydra_ext.cli.run_onnx", "play what was exported, without torch"),
    "plot": ("isaac_hydra_ext.cli.plot", "learning curves as PNG and SVG: appo plot RUN ..."),
    "report": ("isaac_hydra_ext.cli.report", "a run told in report.md: appo report RUN"),
    "tune": ("isaac_hydra_ext.cli.tune", "search for better settings on Ray: appo tune --help"),
    "list": ("isaac_hydra_ext.cli.listing", "list envs, tasks, configs or runs: appo list runs"),
    "new": (
        "isaac_hydra_ext.cli.new_package",
        "write a package with an env of your own: appo new NAME",
    ),
    "check": ("isaac_hydra_ext.cli.check", "check an environment: appo check Pendulum-v1"),
    "doctor": ("isaac_hydra_ext.doctor.command", "check what this machine can run"),
}
INTRODUCTION = """\
Asynchronous PPO. Usage: appo train [GROUP=CHOICE] [KNOB=VALUE] [Hydra flags]

  appo train env=gym_pendulum                the embedded default
  appo train env=gym_any env.id=Acrobot-v1   any Gymnasium environment
  appo train env=mjlab_go1_flat rollout.num_workers=2
  appo train resume=latest experiment.max_iterations=600
  appo train resume=RUN --partial policy.hidden_dims=[64]    takes what fits
  appo train --quiet logging.backends=[tensorboard,csv]      only what goes wrong
  appo train --multirun ppo.lr=1e-3,3e-4     one run after the other
  appo train --cfg job --resolve             each value, and where it is from
  eval "$(appo train -sc install=bash)"      tab completion
  appo train --hydra-help                    Hydra's own flags

Groups: {groups}
"""
SWEEP_PLUGINS = (("hydra/launcher", "joblib"), ("hydra/sweeper", "optuna"))
# Flags of ours, which are overrides.
SHORT = {"--partial": "checkpoint.partial=true", "--quiet": "logging.console=quiet"}
THREADS_BEFORE = set(threading.enumerate())  # the program's own: no env has left them


def main() -> None:
    """Run `appo COMMAND ...`; a reader that leaves (`| head`) ends it in silence."""
    prepare_streams()
    try:
        try:
            _main()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:  # while torch is being imported
        sys.exit(130)
    except OSError as e:
        why = stdout_error()
        if why is None:
            raise
        if not isinstance(e, BrokenPipeError):
            say_error(f"error: stdout: {why.strerror}")
        sys.exit(1)


def _main() -> None:
    if any(flag in sys.argv[1:] for flag in ("-sc", "--shell-completion")):
        _complete()
        return
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command == "--version":
        print(f"isaac_hydra_ext {__version__}")
        return
    if command in ("-h", "--help"):
        print("usage: appo COMMAND [ARGUMENTS]\n")
        for name, (_, what) in COMMANDS.items():
            print(f"  {name:8} {what}")
        print("\nappo COMMAND --help says more; appo --version.")
        sys.exit(0)
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        say_error(f"appo: no command {command!r}{hint}")
        sys.exit(2)
    sys.argv = [f"appo {command}", *sys.argv[2:]]
    with garbage_uncollected():  # torch's modules alone take a tenth less
        module = importlib.import_module(COMMANDS[command][0])
    module.main()


def _complete() -> None:
    """Answer the shell about `appo ...`.

    The scripts that Hydra installs ask the program's first word, `appo -sc query=SHELL` with the
    line in COMP_LINE, and Hydra then reads all that follows that word as overrides.
    """
    sys.argv = ["appo", *(word for word in sys.argv[1:] if word not in COMMANDS)]
    if any(word.startswith("query=") for word in sys.argv):
        line = os.environ.get("COMP_LINE", "")
        command = re.match(r"\s*\S+\s+(\S+)\s", line)
        if command is None:  # still being typed; the shell picks from these what fits
            print(*COMMANDS)
            return
        if command[1] != "train":
            return
        os.environ["COMP_LINE"] = line[: command.start(1)] + line[command.end() :]
    importlib.import_module(COMMANDS["train"][0]).main()


def run_hydra_app(task: Callable[[], Any]) -> int:
    """Run a `hydra.main` function; returns the process's exit code.

    Errors of Hydra's composition become one line on stderr. Anything else is a defect and keeps
    its traceback.
    """
    prepare_streams()
    THREADS_BEFORE.update(threading.enumerate())
    if any(flag in sys.argv[1:] for flag in ("--help", "-h")):
        print(help_text())
        return 0
    sys.argv = [SHORT.get(word, _quoted_run(word)) for word in sys.argv]
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # has Hydra raise instead of printing and exiting
    try:
        check_hydra_node(sys.argv[1:], task)
        with signals_to_jobs(), told_at_the_end():
            task()
        return 0
    except KeyboardInterrupt:
        return 130
    except SystemExit as e:  # how a failed run leaves Hydra
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except (HydraException, ConfigError, SweepError) as e:
        text = one_line(e) if isinstance(e, HydraException) else str(e)
        say_error(f"error: {text}")
        return e.exit_code if isinstance(e, SweepError) else ConfigError.exit_code
    finally:
        if has_begun():  # its jobs are processes of their own: no env has left a thread in this one
            THREADS_BEFORE.update(threading.enumerate())
        if before is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before


def _quoted_run(word: str) -> str:
    """Quote the run that `resume=` names: Hydra cannot read the `=` in the name of a sweep's."""
    key, _, value = word.partition("=")
    if key.lstrip("+") == "resume" and "=" in value and Path(value).expanduser().exists():
        escaped = value.replace("'", "\\'")
        return f"{key}='{escaped}'"
    return word


def run_reporting_errors(task: Callable[[], Any]) -> int:
    """Call `task`; returns 0, or the code of the error it prints as one line.

    Inside `hydra.main` the caller turns a code into SystemExit, which Hydra lets pass in silence.
    """
    try:
        task()
    except IsaacHydraExtError as e:
        say_error(f"{'' if e.exit_code > 128 else 'error: '}{e}")
        return e.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def end_process(code: int) -> NoReturn:
    """End this process with `code`.

    At once where a simulator lives in it, as that might hang; where an update still runs: a thread
    that Python's end meets in native code takes the process down with SIGABRT; and where an env has
    left a thread that Python would wait for: everything is written by now.
    """
    left = [t.name for t in threading.enumerate() if t not in THREADS_BEFORE and not t.daemon]
    if left:
        say_error(f"left running by the env, and ended with this process: thread {', '.join(left)}")
    launch = sys.modules.get("isaac_hydra_ext.envs.isaac.launch")
    sys.stdout.flush()
    sys.stderr.flush()
    updates = sys.modules.get("isaac_hydra_ext.system.background")
    if left or any(module is not None and module.is_running() for module in (launch, updates)):
        os._exit(code)
    sys.exit(code)


def one_line(error: HydraException) -> str:
    """Say what Hydra's composition found wrong as our own checks would."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        hint = did_you_mean(choice, error.options or ())
        if (group, choice) in SWEEP_PLUGINS:
            return f"{group}={choice}: install it with: pip install 'isaac-hydra-ext[sweep]'"
        if not group:  # what was typed, or what its `defaults` name
            typed = "Cannot find primary config" in str(error)
            return f"{'--config-name=' if typed else ''}{choice}: no such config"
        options = ", ".join(error.options or ())
        return f"{group}={choice}: no such config{hint or '; there are ' + options}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not an override Hydra can read (KEY=VALUE, values quoted)"
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        knobs = {key: default for key, default, _ in all_knobs()}
        below = any(found[1].startswith(f"{key}.") for key in knobs)
        if not below and isinstance(knobs.get(found[1]), dict):
            return f"{found[1]}: add new keys to it one by one: +{found[1]}.KEY=VALUE"
        if below or found[1] in knobs:
            return f"{found[1]}: not in the configuration you chose; add it: ++{found[1]}=VALUE"
        groups = [f.name for f in fields(RunConfig)]
        return f"{found[1]}: unknown key{name_here(found[1], [*knobs, *groups])}"
    return shown(text, limit=300)


def help_text() -> str:
    """Return every knob, by group, with its default and meaning."""
    groups = " ".join(f"{name}=" for name, _, _ in sections() if name)
    return INTRODUCTION.format(groups=groups) + as_help()
