#!/usr/bin/env bash
# The tests marked `isaaclab`, on Isaac Lab 3.0.0 without Kit; `--help` says how.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/isaac_venv.sh
source scripts/isaac_venv.sh

usage() {
  cat <<'END'
usage: scripts/test_isaac_lab.sh [PYTEST ARGUMENTS]

Runs the tests marked isaaclab in .venv-isaaclab, which is that of scripts/run_isaac_lab.sh with the
extra dev. Without ISAACSIM_ASSET_ROOT the robots are stand-ins that scripts/make_isaac_assets.py
makes in .venv-isaaclab/assets. Half an hour on two cores, before a release.

  scripts/test_isaac_lab.sh
  scripts/test_isaac_lab.sh tests/integration/test_isaac_contract.py -k real

Environment variables:
  PYTHON   the Python 3.12 to make .venv-isaaclab with (default: the first one found)
  ISAACSIM_ASSET_ROOT   where Isaac Lab looks for assets
END
}

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
esac

trap 'exit 130' INT
make_venv isaaclab,dev
if [[ -z ${ISAACSIM_ASSET_ROOT:-} ]]; then
  export ISAACSIM_ASSET_ROOT="$PWD/$VENV/assets"
  made="$ISAACSIM_ASSET_ROOT/ABOUT.txt" # written last
  [[ $made -nt scripts/make_isaac_assets.py && $made -nt scripts/isaac_robots.py ]] ||
    "$VENV/bin/python" scripts/make_isaac_assets.py "$ISAACSIM_ASSET_ROOT"
fi
exec "$VENV/bin/python" -m pytest -m isaaclab "$@"
