#!/usr/bin/env bash
# Runs the tests; sets the environment up first. Options go to pytest, paths are relative to the checkout:
#
#   bash launch/test.sh                           everything, on several cores
#   bash launch/test.sh tests/test_gru.py -k grad  a part
#   PYTHON=python3.12 bash launch/test.sh         on another interpreter, in its own environment
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/env.sh
. launch/env.sh

use_environment test
if [ $# -eq 0 ]; then
  cores=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
  # A file stays on one core, so that what its tests share is made once.
  if [ "$cores" -gt 1 ]; then set -- -n "$((cores < 4 ? cores : 4))" --dist loadfile; fi
fi
exec "$VENV_PYTHON" -m pytest "$@"
