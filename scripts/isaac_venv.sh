# shellcheck shell=bash
# Sourced by the scripts beside it: `make_venv` for Isaac Lab 3.0.0, which is for Python 3.12 alone.

VENV=.venv-isaaclab CONSTRAINTS=constraints-isaaclab.txt PYTHON_OLDEST=12 PYTHON_NEWEST=12
PYTHON_WHY=", which Isaac Lab 3.0.0 needs"
# shellcheck source=scripts/make_venv.sh
source scripts/make_venv.sh
