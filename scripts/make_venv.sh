# shellcheck shell=bash
# Sourced by the scripts beside it, from the repository root: `make_venv EXTRAS` makes or updates
# .venv. Nothing is done when .venv is already what pyproject.toml and constraints.txt ask for.

# Print the first Python of a supported version: $PYTHON alone if set, else the usual names.
find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    # Started, not only looked up: pyenv's shims exist for versions that are not active.
    if "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
      2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.10 to 3.13 found${PYTHON:+ at PYTHON=$PYTHON}; install one or say" \
    "PYTHON=/path/to/python" >&2
  return 2
}

version_of() {
  "$1" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null || echo none
}

# make_venv EXTRAS: EXTRAS as in pip, "dev,mjlab" or "".
make_venv() {
  local extras=$1 python wanted stamp have_uv=""
  command -v uv >/dev/null && have_uv=yes
  stamp=".venv/.installed${extras:+-$extras}"
  # The place is part of it because an editable install points to it.
  wanted="$PWD $(cat pyproject.toml constraints.txt | cksum)"

  if [[ $(version_of .venv/bin/python) == none ||
    (-n ${PYTHON:-} && $(version_of .venv/bin/python) != "$(version_of "$PYTHON")") ]]; then
    python=$(find_python) || return
    echo "making .venv with $("$python" --version)"
    if [[ $have_uv ]]; then
      uv venv --quiet --clear --python "$python" .venv
    else
      "$python" -m venv --clear .venv
    fi
  fi
  [[ -e $stamp && $(<"$stamp") == "$wanted" ]] && return

  echo "installing into .venv (minutes the first time, most of them for torch)"
  local package=".${extras:+[$extras]}"
  if [[ $have_uv ]]; then
    uv pip install --quiet --python .venv/bin/python -c constraints.txt -e "$package"
  else
    # A .venv that uv made has no pip.
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
    .venv/bin/python -m pip install -qq --disable-pip-version-check \
      -c constraints.txt -e "$package"
  fi
  echo "$wanted" >.venv/.installed # whatever the extras, the core is in
  echo "$wanted" >"$stamp"
}
