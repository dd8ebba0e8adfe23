"""One job of a Hydra multirun: a training in a process of its own.

Runs in the process that Hydra's launcher calls: the command's own (basic), or one of joblib's.
Isaac's simulators live once in a process, and a job that crashes must not take the others along;
so each job is a new process, whoever launches it. It leads its own process group, is told of every
signal, and is asked to save and end (SIGTERM) when its launcher dies.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from isaac_hydra_ext.cli import sweep_results
from isaac_hydra_ext.config.checks import MAX_NAME
from isaac_hydra_ext.errors import SweepError
from isaac_hydra_ext.system.parent_death import die_with_parent
from isaac_hydra_ext.system.stop_signals import SIGNALS, signal_name

KILL_LIMIT_S = 10.0  # for the kernel to end a killed job
# The job finds the packages that its launcher has found, wherever it is started from.
PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from isaac_hydra_ext.cli.sweep_job import main
main(int(sys.argv[2]), int(sys.argv[3]))
"""
POLL_S = 0.2  # how soon a signal is passed on
_interrupted = 0  # what this process exits with once a signal has ended one of its jobs
UNSET = "???"
BASIC = "hydra._internal.core_plugins.basic_"


def is_sweep() -> bool:
    """Return whether Hydra has called this job as one of many."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def run_job(cfg: DictConfig, typed: Sequence[str]) -> float | None:
    """Train in a new process; ends this one if the user has ended the job.

    Args:
        cfg: What Hydra composed for this job.
        typed: Its override tokens, the swept ones among them.

    Returns:
        What `experiment.objective` names.

    Raises:
        SweepError: The job has failed, and has said why; or an optimiser gets no number from it.
    """
    hydra = HydraConfig.get()
    number, values = int(hydra.job.num), sweep_results.varied(typed)
    changed = ",".join(f"{k}={v}" for k, v in values.items()) or hydra.job.override_dirname
    beside = not str(hydra.launcher._target_).startswith(BASIC)
    if beside:
        _obey_the_sweep()
    print(f"job {number}: {changed}", flush=True)
    node = _node_of_job(cfg, sweep_results.label(values), quiet=beside)
    request = {"cfg": node, "hydra": OmegaConf.to_yaml(HydraConfig.instance().cfg), "typed": typed}
    code, signum, result = run_in_process(request)
    interrupted = bool(signum) or code in (128 + number for number in SIGNALS)
    ended = "interrupted" if interrupted else "killed" if code < 0 else "failed"
    sweep_results.add(number, values, ended, result)
    if interrupted:
        print(f"job {number}: interrupted", flush=True)
        global _interrupted
        _interrupted = 128 + signum if signum else code
        if not beside:
            sys.exit(_interrupted)
        raise _interruption()  # joblib would kill the others, which are saving, upon an exit
    if code < 0:
        raise SweepError(f"job {number} ({changed}) was killed by {signal_name(-code)}")
    if code or not result:
        raise SweepError(f"job {number} ({changed}) failed with exit code {code}")
    name = result["objective"]
    value = result["summary"].get(name)
    print(f"job {number}: {name} {value}, run: {result['run_dir']}", flush=True)
    if value is None and not str(hydra.sweeper._target_).startswith(BASIC):
        raise SweepError(
            f"job {number} ({changed}): has no {name}, as no episode ended; raise "
            "experiment.max_iterations"
        )
    return value


def _node_of_job(cfg: DictConfig, label: str, quiet: bool) -> dict[str, Any]:
    """Return a job's configuration, whose run's name says what the sweep varies.

    Args:
        cfg: What Hydra composed.
        label: From `sweep_results`.
        quiet: Its table would be one of several on the terminal.
    """
    node = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(node, dict)
    logging, experiment = node.get("logging") or {}, node.get("experiment") or {}
    if quiet and logging.get("console", UNSET) in (UNSET, "auto"):
        node["logging"] = {**logging, "console": "quiet"}
    named = experiment.get("run_name")
    both = [part for part in ("" if named == UNSET else named, label) if part]
    if label:
        node["experiment"] = {**experiment, "run_name": "_".join(both)[:MAX_NAME]}
    return {str(key): value for key, value in node.items()}


def _obey_the_sweep() -> None:
    """In a process of joblib's: be told of signals by the sweep alone, and end with it.

    Raises:
        SweepError: The sweep is over; this job was still waiting.
    """
    if _interrupted:
        raise _interruption()
    os.setpgid(0, 0)  # a terminal's Ctrl-C comes from the sweep, and once
    die_with_parent(signal.SIGTERM)


def _interruption() -> SweepError:
    error = SweepError("the sweep was interrupted; its jobs have saved, and said how to go on")
    error.exit_code = _interrupted
    return error


@contextlib.contextmanager
def signals_to_jobs() -> Iterator[None]:
    """Pass a first Ctrl-C on to the processes of a sweep's joblib, and let them save.

    Where there are none, and at a second one, it is a KeyboardInterrupt as ever. Those of a single
    run are its workers, which are started before it handles signals.
    """
    passed_on = False

    def handle(signum: int, frame: object) -> None:
        nonlocal passed_on
        children = multiprocessing.active_children() if sweep_results.has_begun() else []
        if passed_on or not children:
            raise KeyboardInterrupt
        passed_on = True
        for child in children:
            with contextlib.suppress(OSError):
                os.kill(child.pid or 0, signum)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_in_process(
    request: Mapping[str, Any], errors: int | None = None
) -> tuple[int, int, dict[str, Any]]:
    """Train in a new process, which ends with this one.

    Args:
        request: What `sweep_job.py` reads: `cfg`, `hydra`, `typed`, and where to end, `until`.
        errors: Descriptor that its stderr goes to instead of ours.

    Returns:
        Its exit code, the signal that we were sent, and its result.

    Raises:
        SweepError: There is no process for it.
    """
    read, write = os.pipe()
    path = json.dumps([p or os.getcwd() for p in sys.path])
    command = [sys.executable, "-c", PROGRAM, path, str(os.getpid()), str(write)]
    try:
        with os.fdopen(read, "rb") as answer:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stderr=errors,
                pass_fds=(write,),
                start_new_session=True,
            )
            os.close(write)
            with _signals_passed_on(process) as received:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError), process.stdin:
                    process.stdin.write(json.dumps(request).encode())
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        code = process.wait(POLL_S)
                        break
            text = answer.read()
    except OSError as e:
        raise SweepError(f"no process for this job: {e}") from e
    return code, received[0] if received else 0, json.loads(text) if text else {}


@contextlib.contextmanager
def _signals_passed_on(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Pass each signal on to the job, which decides what it means; yields those received."""
    received: list[int] = []

    def pass_on(signum: int, frame: object) -> None:
        received.append(signum)
        process.send_signal(signum)

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, pass_on)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:  # only an error gets here
            process.kill()
            process.wait(timeout=KILL_LIMIT_S)
