#!/usr/bin/env bash
# The long tests whole, as before a release; `--help` says which.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/make_venv.sh
source scripts/make_venv.sh

usage() {
  cat <<'END'
usage: scripts/test_long.sh [PYTEST ARGUMENTS]

Runs the soak, the random deaths, the stress of shared memory and descriptors and the fuzzed inputs
whole, of which scripts/test.sh runs about a fifth, and then the tests marked `release`: some minutes,
before a release. The .venv is
that of scripts/test.sh.
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
export APPO_TEST_LONG=1
.venv/bin/pytest -n "$((($(nproc) * 3 + 1) / 2))" --maxprocesses 8 --dist worksteal \
  tests/faults/test_{soak,random_deaths,stress,memory,fuzz}.py "$@"
exec .venv/bin/pytest -m release tests "$@"
