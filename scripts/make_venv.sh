# shellcheck shell=bash
# Sourced by the scripts beside it, from the repository root: `make_venv EXTRAS` makes or updates
# a virtual environment. Nothing is done when it is already what pyproject.toml and its constraints
# ask for. What a script sets before it sources this file is kept.

VENV=${VENV:-.venv}
CONSTRAINTS=${CONSTRAINTS:-constraints.txt}
PYTHON_OLDEST=${PYTHON_OLDEST:-10} # minor versions of Python 3
PYTHON_NEWEST=${PYTHON_NEWEST:-13}
PYTHON_WHY=${PYTHON_WHY:-} # what to say of these bounds

# Print the first Python of a supported version: $PYTHON alone if set, else the usual names.
find_python() {
  local candidate names=(python3) minor
  for ((minor = PYTHON_NEWEST; minor >= PYTHON_OLDEST; minor--)); do
    # pyenv's shims answer for active versions alone; its own directories have all of them.
    names+=("python3.$minor" "${PYENV_ROOT:-${HOME:-}/.pyenv}/versions/3.$minor".*/bin/python)
  done
  for candidate in ${PYTHON:-"${names[@]}"}; do
    # Started, not only looked up: what is there may not work.
    if "$candidate" -c "import sys
sys.exit(not (3, $PYTHON_OLDEST) <= sys.version_info[:2] <= (3, $PYTHON_NEWEST))" 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  local wanted="3.$PYTHON_OLDEST to 3.$PYTHON_NEWEST"
  ((PYTHON_OLDEST < PYTHON_NEWEST)) || wanted="3.$PYTHON_OLDEST"
  echo "error: no Python $wanted found${PYTHON:+ at PYTHON=$PYTHON}$PYTHON_WHY; install one or say" \
    "PYTHON=/path/to/python" >&2
  return 2
}

version_of() {
  "$1" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null || echo none
}

# install COMMAND...: run it. On a terminal it shows its own progress; elsewhere we say every 20 s
# what it is at, but not in CI, and what it said if it fails.
install() {
  if [[ -t 1 && ${CI:-} != true ]]; then
    "$@"
    return
  fi
  local log="$VENV/install.log" start=$SECONDS ticker code=0
  # As long as this shell lives: a background job is deaf to Ctrl-C.
  while [[ ${CI:-} != true ]] && sleep 20 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    echo "  $((SECONDS - start)) s: $(tail -n 1 "$log" | cut -c -70)"
  done &
  ticker=$!
  "$@" >"$log" 2>&1 || code=$?
  kill "$ticker" 2>/dev/null || true
  wait "$ticker" 2>/dev/null || true
  ((code == 0)) || tail -n 20 "$log" >&2
  return "$code"
}

# make_venv EXTRAS: EXTRAS as in pip, "dev,mjlab" or "".
make_venv() {
  local extras=$1 python wanted stamp have_uv=""
  command -v uv >/dev/null && have_uv=yes
  stamp="$VENV/.installed${extras:+-$extras}"
  # The place is part of it because an editable install points to it.
  wanted="$PWD $(cat pyproject.toml "$CONSTRAINTS" | cksum)"

  if [[ $(version_of "$VENV/bin/python") == none ||
    (-n ${PYTHON:-} && $(version_of "$VENV/bin/python") != "$(version_of "$PYTHON")") ]]; then
    if [[ $have_uv && -z ${PYTHON:-} ]] && ! python=$(find_python 2>/dev/null); then
      python=3.$PYTHON_NEWEST # uv fetches it
    else
      python=$(find_python) || return
    fi
    if [[ $have_uv ]]; then
      echo "making $VENV with $python"
      uv venv --quiet --clear --python "$python" "$VENV"
    else
      echo "making $VENV with $("$python" --version)"
      "$python" -m venv --clear "$VENV"
    fi
  fi
  [[ -e $stamp && $(<"$stamp") == "$wanted" ]] && return

  echo "installing into $VENV (minutes the first time, most of them for torch)"
  local package=".${extras:+[$extras]}"
  if [[ $have_uv ]]; then
    install uv pip install --python "$VENV/bin/python" -c "$CONSTRAINTS" -e "$package"
  else
    # An environment that uv made has no pip.
    "$VENV/bin/python" -m pip --version >/dev/null 2>&1 ||
      "$VENV/bin/python" -m ensurepip >/dev/null
    install "$VENV/bin/python" -m pip install --disable-pip-version-check \
      -c "$CONSTRAINTS" -e "$package"
  fi || return
  echo "$wanted" >"$VENV/.installed" # whatever the extras, the core is in
  echo "$wanted" >"$stamp"
}
