#!/usr/bin/env bash
# Install this package into Isaac Lab's Python, changing nothing that is Isaac Lab's; `--help`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
usage: scripts/install_inside_container.sh [EXTRAS]

Installs this package, editable, into the Python of an Isaac Lab container or checkout, and checks
that Hydra finds its plugin there. torch, numpy and gymnasium are Isaac Lab's: where the
installation would change one of them it stops before anything is installed. EXTRAS as in pip,
such as wandb. The Python is the first of: $PYTHON, $ISAACLAB_PATH/isaaclab.sh -p,
/workspace/isaaclab/isaaclab.sh -p, /isaac-sim/python.sh.

Environment variables:
  PYTHON          the Python to install into
  ISAACLAB_PATH   Isaac Lab's checkout (default: /workspace/isaaclab)
END
}

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
esac

isaaclab=${ISAACLAB_PATH:-/workspace/isaaclab}/isaaclab.sh
if [[ ${PYTHON:-} ]]; then
  python=("$PYTHON")
elif [[ -x $isaaclab ]]; then
  python=("$isaaclab" -p)
elif [[ -x /isaac-sim/python.sh ]]; then
  python=(/isaac-sim/python.sh)
else
  echo "error: no Isaac Lab at $isaaclab; say ISAACLAB_PATH=/path/to/IsaacLab or PYTHON=..." >&2
  exit 2
fi

kept=$(mktemp)
trap 'rm -f "$kept"' EXIT
trap 'exit 130' INT
"${python[@]}" - >"$kept" <<'END'
from importlib.metadata import PackageNotFoundError, version

for name in ("torch", "numpy", "gymnasium"):
    try:
        print(f"{name}=={version(name)}")
    except PackageNotFoundError:
        raise SystemExit(f"error: {name} is not installed there: this is not Isaac Lab's Python")
END
echo "kept as they are: $(tr '\n' ' ' <"$kept")"

package=".${1:+[$1]}"
# A constraint, not a request: pip then fails instead of changing one of them.
if ! "${python[@]}" -m pip install --disable-pip-version-check --quiet -c "$kept" -e "$package"; then
  echo "error: not installed: see pip's lines above; torch, numpy and gymnasium were not touched" >&2
  exit 1
fi

"${python[@]}" - <<'END'
import warnings

warnings.simplefilter("ignore")
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

names = [plugin.__name__ for plugin in Plugins.instance().discover(SearchPathPlugin)]
if names.count("IsaacHydraSearchPathPlugin") != 1:
    raise SystemExit(f"error: Hydra does not find the plugin, only {names}")
print("Hydra finds IsaacHydraSearchPathPlugin")
END
echo "train: ${python[*]} -m isaac_hydra_ext.scripts.reinforcement_learning.appo.train --task TASK"
