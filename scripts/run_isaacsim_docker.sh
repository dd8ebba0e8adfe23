#!/usr/bin/env bash
# Run a command of this package in NVIDIA's Isaac Lab container; `--help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
usage: ACCEPT_EULA=Y scripts/run_isaacsim_docker.sh [COMMAND ...]

Starts NVIDIA's Isaac Lab container with the GPUs and this repository in it, installs this package
there (scripts/install_inside_container.sh) and runs COMMAND, or a shell. Run directories are
written to logs/ of this repository. Caches are kept, so that only the first start is slow.

  ACCEPT_EULA=Y scripts/run_isaacsim_docker.sh
  ACCEPT_EULA=Y scripts/run_isaacsim_docker.sh /workspace/isaaclab/isaaclab.sh -p \
    -m isaac_hydra_ext.scripts.reinforcement_learning.appo.train \
    --task Isaac-Velocity-Flat-Unitree-Go1-v0 --num_envs 4096 --headless

Needs docker with NVIDIA's container toolkit.

Environment variables:
  ACCEPT_EULA      Y: you accept NVIDIA's licence of the container (it does not start otherwise)
  PRIVACY_CONSENT  Y: you let it collect usage data (default: N)
  IMAGE            default: nvcr.io/nvidia/isaac-lab:2.3.2
  GPUS             what docker's --gpus takes (default: all)
  CACHE            where caches are kept (default: ~/.cache/isaac-sim-docker)
END
}

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
esac

if [[ ${ACCEPT_EULA:-} != Y ]]; then
  echo "error: NVIDIA's licence must be accepted: read it, then say ACCEPT_EULA=Y" \
    "(https://docs.nvidia.com/ngc/gpu-cloud/ngc-catalog-user-guide/index.html)" >&2
  exit 2
fi
if ! command -v docker >/dev/null; then
  echo "error: docker is not installed, or not on PATH" >&2
  exit 2
fi

here=/workspace/isaac_hydra_ext
cache=${CACHE:-$HOME/.cache/isaac-sim-docker}
options=(
  --rm --gpus "${GPUS:-all}" --network=host --entrypoint bash
  -e ACCEPT_EULA=Y -e "PRIVACY_CONSENT=${PRIVACY_CONSENT:-N}" -e OMNI_KIT_ALLOW_ROOT=1
  -v "$PWD:$here:rw" -w "$here"
)
# No --shm-size: the rollout buffer is a memfd, which /dev/shm's 64 MB do not limit.
for mount in kit:/isaac-sim/kit/cache ov:/root/.cache/ov pip:/root/.cache/pip \
  warp:/root/.cache/warp gl:/root/.cache/nvidia/GLCache compute:/root/.nv/ComputeCache; do
  mkdir -p "$cache/${mount%%:*}"
  options+=(-v "$cache/$mount:rw")
done
if [[ -t 0 && -t 1 ]]; then
  options+=(-it)
fi
if [[ $# -eq 0 ]]; then
  set -- bash
fi
# exec twice: signals reach the training, and its exit code is this script's.
exec docker run "${options[@]}" "${IMAGE:-nvcr.io/nvidia/isaac-lab:2.3.2}" \
  -c 'scripts/install_inside_container.sh && exec "$@"' run "$@"
