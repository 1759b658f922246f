#!/usr/bin/env bash
# Runs the tests; sets the environment up first. Options go to pytest, paths are relative to the checkout:
#
#   bash launch/test.sh                               all but the long ones, on several cores
#   bash launch/test.sh --long                        the long ones: several processes, Slurm, simulated corpora
#   bash launch/test.sh tests/training -k grad        a part
#   PYTHON=python3.12 bash launch/test.sh -m stack    on another interpreter, in its own environment
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
cd "$here/.."
# shellcheck source=launch/env.sh
. launch/env.sh

use_environment test
cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
# A file stays on one core, so that what its tests share is made once; the order is that of tests/conftest.py.
workers=(-n "$((cores < 4 ? cores : 4))" --dist loadfile --no-loadscope-reorder --durations=12)
# The long ones wait for other processes much of their time: one more of them than there are cores.
if [ "${1:-}" = --long ]; then workers[1]=$((workers[1] + 1)); fi
if [ "$cores" -le 1 ]; then workers=(); fi
case ${1:-} in
  '') set -- ${workers[@]+"${workers[@]}"} -m "not long and not statistical" ;;
  --long) set -- ${workers[@]+"${workers[@]}"} -m "long or statistical" "${@:2}" ;;
  -m) set -- ${workers[@]+"${workers[@]}"} "$@" ;;
esac
exec "$VENV_PYTHON" -m pytest "$@"
