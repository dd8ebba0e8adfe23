#!/usr/bin/env bash
# Clone to trained policy in one command; `--help` says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/make_venv.sh
source scripts/make_venv.sh

usage() {
  cat <<'END'
usage: scripts/run_gym_local.sh [HYDRA OVERRIDES]

Makes .venv (with uv if there is one, else venv and pip), installs this package into it, and trains
env=gym_pendulum, about a minute on two CPU cores. At the end it says where the run, its TensorBoard
command and its checkpoint are. A second call installs nothing and starts at once.
Relative paths in overrides are relative to the repository.

  scripts/run_gym_local.sh
  scripts/run_gym_local.sh env=gym_cartpole experiment.seed=2
  EXTRAS=mjlab scripts/run_gym_local.sh env=mjlab_cartpole_balance
  scripts/run_gym_local.sh resume=latest experiment.max_iterations=300

.venv/bin/appo train --help names every knob. Ctrl-C once: finish the iteration, save, exit 130.

Environment variables:
  PYTHON   the Python to make .venv with, 3.10 to 3.13 (default: the first one found)
  EXTRAS   extras of this package to install as well, such as mjlab
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

trap 'exit 130' INT # pip and uv turn Ctrl-C into exit codes of their own
make_venv "${EXTRAS:-}"
echo "evaluate afterwards: .venv/bin/appo eval RUN (the run directory shown below)"
# exec: signals then reach the training itself, and it takes no shell between them to say 130.
exec .venv/bin/appo train env=gym_pendulum "$@"
