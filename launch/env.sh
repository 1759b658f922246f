# shellcheck shell=bash
# Makes or reuses the virtual environment. Sourced by quickstart.sh, test.sh and configs/reproduce.sh, from the root of the
# checkout:
#
#   use_environment        installs the package and its core dependencies, if they are not there yet
#   use_environment test   the same with the dependencies of the tests
#
# Afterwards $VENV_PYTHON is the environment's interpreter. PYTHON=python3.12 picks another one, with an environment of
# its own (.venv-3.12). Nothing to do takes well under a second.

OLDEST_MINOR=11

# Some machines forbid Python to keep what it has compiled. Every stage would then compile all that it imports anew, which
# takes longer than most stages.
unset PYTHONDONTWRITEBYTECODE

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$@" >&2; exit 1; }

# A folder named on a command line is relative to where that was typed, which the caller keeps in `called_from`.
absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "${called_from:-$PWD}" "$1" ;; esac; }

# Prints the path of the interpreter `$1` really is, if it runs and is new enough. (pyenv's shims exist for versions that
# are not switched on, so being on PATH proves nothing.)
real_python() {
  "$1" -c "import sys; sys.exit(1) if sys.version_info < (3, $OLDEST_MINOR) else print(sys.executable)" 2>/dev/null
}

# Prints an interpreter for $PYTHON, or for python3 and then newer names where $PYTHON is not set.
find_python() {
  local name candidate
  for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    for candidate in "$name" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"${name#python}"*/bin/"$name"; do
      real_python "$candidate" && return
    done
  done
  return 1
}

explain_no_python() {
  if [ -n "${PYTHON:-}" ]; then
    die "PYTHON=$PYTHON does not run, or is older than Python 3.$OLDEST_MINOR." \
      "Give the name or path of a Python 3.$OLDEST_MINOR or newer, or leave PYTHON unset."
  fi
  die "No Python 3.$OLDEST_MINOR or newer found (looked for python3, python3.13, python3.12, python3.11, on PATH and in pyenv)." \
    "Install one, e.g.: apt install python3 python3-venv  |  brew install python@3.13  |  pyenv install 3.13" \
    "or name one: PYTHON=/path/to/python3 bash $0"
}

# What the installation depends on; printed by the environment's own Python, so this also shows that it works.
fingerprint() {
  "$VENV_PYTHON" - "$PWD" "$@" 2>/dev/null <<'PYTHON_END'
import hashlib, pathlib, sys
parts = [sys.version, sys.prefix, *sys.argv[1:]]
constraints = pathlib.Path("constraints-%d.%d.txt" % sys.version_info[:2])
for path in (pathlib.Path("pyproject.toml"), constraints):
    parts.append(path.read_text() if path.exists() else "")
print(hashlib.sha256("\0".join(parts).encode()).hexdigest())
PYTHON_END
}

is_stamped() { # extras
  local now stamp
  now=$(fingerprint "$1") && stamp=$(cat "$VENV/.seremo-stamp-$1" 2>/dev/null) && [ "$stamp" = "$now" ]
}

create_venv() {
  local base log
  base=$(find_python) || explain_no_python
  [ ! -e "$VENV" ] || say "$VENV does not work or was left half-installed: making it anew."
  say "making $VENV with $base"
  # Renamed before it is deleted: a deletion cut short must not leave what looks like an environment.
  rm -rf "$VENV.old"
  if [ -e "$VENV" ]; then mv "$VENV" "$VENV.old"; fi
  mkdir "$VENV"
  : >"$VENV/.seremo-installing"
  if ! log=$("$base" -m venv "$VENV" 2>&1); then
    rm -rf "$VENV"
    die "$log" "" "This Python cannot make virtual environments: $base" \
      "On Debian and Ubuntu its module comes apart: apt install python3-venv (or python3.X-venv for that version)." \
      "If the disk is full or the folder read-only, the lines above say so."
  fi
  rm -rf "$VENV.old"
}

# pip install, quiet when all goes well; on failure pip's own words and what they mean. Python compiles what is imported
# at its first import, so that modules nobody imports cost nothing here.
pip_install() {
  local log=$VENV/.seremo-pip.log version
  "$VENV_PYTHON" -m pip install -q --no-compile --disable-pip-version-check --no-input "$@" 2>"$log" && return
  grep -vE 'is ignored: it is neither a file nor a directory|WARNING: Retrying' "$log" | tail -n 20 >&2 || true
  # These two come before pip unpacks anything, so the environment is still what it was.
  if grep -qE 'NewConnectionError|NameResolutionError|ProxyError|ConnectTimeout|ReadTimeout|No matching distribution' "$log"; then
    rm -f "$VENV/.seremo-installing"
  fi
  if grep -q 'No space left on device' "$log"; then
    say "The disk is full: the environment takes up to 3 GB here ($PWD), pip's temporary files as much in ${TMPDIR:-/tmp}." >&2
  elif grep -qE 'NewConnectionError|NameResolutionError|ProxyError|ConnectTimeout|ReadTimeout' "$log"; then
    say "The package registry cannot be reached. Connect to the network, or name a mirror: PIP_INDEX_URL=... bash $0" >&2
  elif grep -qE 'No matching distribution|Could not find a version' "$log"; then
    version=$("$VENV_PYTHON" -V) || version="that of $VENV"
    say "The package registry lacks a package named above, for this Python ($version) or at the version of the" \
      "constraints file. Try another Python: PYTHON=python3.12 bash $0" >&2
  fi
  return 1
}

install() { # extras
  local version constraints target=.
  [ "$1" = core ] || target=".[$1]"
  version=$("$VENV_PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  constraints=constraints-$version.txt
  if [ ! -f "$constraints" ]; then
    say "no $constraints: installing the newest versions, which are untested together on Python $version"
    constraints=
  fi
  say "installing seremo_jax ($1) into $VENV (about 2 minutes, once) ..."
  # The marker outlives a killed pip, whose half-unpacked packages the next pip would take for whole ones.
  : >"$VENV/.seremo-installing"
  "$VENV_PYTHON" -c 'import pip' 2>/dev/null || "$VENV_PYTHON" -m ensurepip >/dev/null 2>&1 ||
    die "$VENV has no pip and cannot get one. Delete it, and this command makes another: rm -rf $VENV"
  pip_install -e "$target" ${constraints:+-c "$constraints"} ||
    die "Installation failed. Nothing needs cleaning up: the same command tries again."
  fingerprint "$1" >"$VENV/.seremo-stamp-$1"
  [ "$1" = core ] || fingerprint core >"$VENV/.seremo-stamp-core"
  rm -f "$VENV/.seremo-installing"
}

# Tests against PyTorch run on Python 3.11, where a CPU build of it can be had; everywhere else they skip.
add_torch() {
  local constraints=constraints-3.11.txt version
  "$VENV_PYTHON" -c '
import importlib.util, sys
sys.exit(1 if sys.version_info[:2] == (3, 11) and importlib.util.find_spec("torch") is None else 0)' && return
  version=$(sed -n 's/^torch==//p' "$constraints")
  if [ "${CI:-}" = true ] || ! is_stamped no-torch; then
    say "looking for a CPU build of PyTorch $version ..."
    : >"$VENV/.seremo-installing"
    if "$VENV_PYTHON" -m pip install -q --no-compile --disable-pip-version-check --no-input "torch==$version+cpu" -c "$constraints" \
      2>"$VENV/.seremo-pip.log"; then
      rm -f "$VENV/.seremo-installing"
      return
    fi
    rm -f "$VENV/.seremo-installing"
    fingerprint no-torch >"$VENV/.seremo-stamp-no-torch"
  fi
  [ "${CI:-}" != true ] || die "CI=true and no torch==$version+cpu in the package registry: the parity tests cannot run."
  say "No CPU build of PyTorch in this package registry: tests against PyTorch will skip. To run them:" \
    "$VENV/bin/python -m pip install -e '.[parity]' -c $constraints"
}

use_environment() { # [extras]
  local extras=${1:-core} base version
  VENV=.venv
  if [ -n "${PYTHON:-}" ]; then
    base=$(find_python) || explain_no_python
    version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    VENV=.venv-$version
  fi
  VENV_PYTHON=$PWD/$VENV/bin/python
  # Two commands started at once must not install into the same environment at once.
  if command -v flock >/dev/null; then
    exec 9>"$VENV.lock"
    flock -n 9 || { say "another command is installing into $VENV: waiting for it ..."; flock 9; }
  fi
  trap 'exit 130' INT TERM
  if [ -e "$VENV/.seremo-installing" ] || ! real_python "$VENV_PYTHON" >/dev/null; then create_venv; fi
  is_stamped "$extras" || install "$extras"
  if [ "$extras" = test ]; then add_torch; fi
  trap - INT TERM
  if command -v flock >/dev/null; then exec 9>&-; fi
}
