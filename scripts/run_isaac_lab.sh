#!/usr/bin/env bash
# Isaac Lab 3.0.0 without Kit, from clone to trained policy in one command; `--help` says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/isaac_venv.sh
source scripts/isaac_venv.sh

usage() {
  cat <<'END'
usage: scripts/run_isaac_lab.sh [HYDRA OVERRIDES]

Makes .venv-isaaclab (Python 3.12, by uv if there is one), installs Isaac Lab 3.0.0 and this package
into it (8 GB, about ten minutes), and trains env=isaac_cartpole on Newton, without Isaac Sim: on
the GPU if there is one, else on the CPU. The first run compiles kernels for one to two minutes. At
the end it says where the run is and how to look at it. A second call installs nothing and starts at
once. Relative paths in overrides are relative to the repository.

  scripts/run_isaac_lab.sh
  scripts/run_isaac_lab.sh experiment.seed=2 ppo.precision=tf32
  scripts/run_isaac_lab.sh env=isaac_any env.task=Isaac-Ant-Direct

Robots and grounds come from NVIDIA's server. Without a network, make stand-ins of what packages
ship, and name their directory:
  .venv-isaaclab/bin/python scripts/make_isaac_assets.py DIR
  ISAACSIM_ASSET_ROOT=DIR scripts/run_isaac_lab.sh

Environment variables:
  PYTHON   the Python 3.12 to make .venv-isaaclab with (default: the first one found)
  EXTRAS   extras of this package to install as well, such as export,video
  ISAACSIM_ASSET_ROOT   where Isaac Lab looks for assets
END
}

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
esac

trap 'exit 130' INT # pip and uv turn Ctrl-C into exit codes of their own
make_venv "isaaclab${EXTRAS:+,$EXTRAS}"
if nvidia-smi -L >/dev/null 2>&1; then
  machine=(rollout.device=auto)
else
  machine=(rollout.device=cpu rollout.num_workers=2 rollout.envs_per_worker=128)
fi
echo "afterwards: $VENV/bin/appo play RUN, $VENV/bin/tensorboard --logdir RUN" \
  "(RUN: the run directory shown below)"
# exec: signals then reach the training itself, and it takes no shell between them to say 130.
exec "$VENV/bin/appo" train env=isaac_cartpole "${machine[@]}" "$@"
