#!/usr/bin/env bash
# Every check there is, in a .venv of its own making; `--help` says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/make_venv.sh
source scripts/make_venv.sh

usage() {
  cat <<'END'
usage: scripts/test.sh [PYTEST ARGUMENTS]

Makes .venv (with uv if there is one, else venv and pip), installs this package into it with the
extras dev and mjlab, then runs shellcheck, ruff check, ruff format --check, pyright and pytest, with
three processes of tests for two cores, as many of them wait, and at most 8; `-n 0` is one after
another, as a debugger needs it. Before a release: scripts/test_long.sh.

  scripts/test.sh
  scripts/test.sh tests/unit -k advantages
  scripts/test.sh -m 'not slow and not mjlab'
  scripts/test.sh tests/faults/test_stopping.py -n 0 --pdb

Environment variables:
  PYTHON   the Python to make .venv with, 3.10 to 3.13 (default: the first one found)
Without a GPU a CPU build of torch saves gigabytes: set UV_TORCH_BACKEND=cpu (uv) or
PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu (pip) for the first call.
END
}

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
esac

trap 'exit 130' INT
make_venv dev,mjlab
export PATH="$PWD/.venv/bin:$PATH" # pyright finds the packages through it

shellcheck --external-sources scripts/*.sh .ci/run
ruff check .
ruff format --check .
pyright
exec pytest -n "$((($(nproc) * 3 + 1) / 2))" --maxprocesses 8 --dist worksteal "$@"
