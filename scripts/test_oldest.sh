#!/usr/bin/env bash
# pytest on the oldest supported set (Python 3.10, the lower bounds of pyproject.toml); `--help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
usage: scripts/test_oldest.sh [PYTEST ARGUMENTS]

Makes .venv-oldest with Python 3.10 and the oldest supported releases (torch 2.5.1, Gymnasium
0.29.1, Hydra 1.3.2, NumPy 1.x), installs this package into it, and runs pytest there. Not part of
CI, because these releases of torch are gigabytes where only the CUDA build exists. mjlab needs a
newer torch; its tests are skipped.

Environment variables:
  PYTHON   the Python 3.10 to use (default: python3.10)
END
}

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
esac

trap 'exit 130' INT
python=.venv-oldest/bin/python
if ! "$python" -c 'import isaac_hydra_ext, xdist' 2>/dev/null; then
  "${PYTHON:-python3.10}" -m venv --clear .venv-oldest
  "$python" -m pip install -qq --disable-pip-version-check -e . \
    torch==2.5.1 'numpy<2' gymnasium==0.29.1 hydra-core==1.3.2 omegaconf==2.3.0 \
    safetensors==0.4.3 rich==12.6.0 tensorboard==2.10.1 \
    pytest pytest-timeout pytest-xdist hypothesis psutil build hatchling \
    'onnx<1.18' 'onnxruntime<1.20' matplotlib
fi
exec "$python" -m pytest -n "$(nproc)" --maxprocesses 8 --dist worksteal "$@"
