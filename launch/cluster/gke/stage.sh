#!/usr/bin/env bash
# One stage, in one pod of the job set that launch/cluster/gke/submit.sh makes.
set -euo pipefail

usage() {
  cat <<'END'
usage: bash launch/cluster/gke/stage.sh STAGE --config=configs/NAME.py[:VARIANT] --workdir=DIR
              [--config.SECTION.FIELD=VALUE ...]

Runs python -m launch.STAGE: extract and train on the GPUs, as one of several processes where JAX_NUM_PROCESSES says so;
ingest and evaluate on the processor. SIGTERM (the pod is to leave its node) is passed on. Training that saved and ended
unfinished is exit status 75, so that the job set starts it again.
END
}

case ${1:-} in
  -h | --help) usage; exit 0 ;;
  ingest | evaluate) export JAX_PLATFORMS=cpu ;;
  extract | train) ;;
  *) usage >&2; exit 2 ;;
esac
stage=$1 workdir='' process=''
shift
for argument; do
  case $argument in --workdir=*) workdir=${argument#*=} ;; esac
done
[ -n "$workdir" ] || { usage >&2; exit 2; }
here=$(dirname "${BASH_SOURCE[0]}")
cd "$here/../../.."

command=("${SEREMO_PYTHON:-python}" -m "launch.$stage" "$@")
if [ "${JAX_NUM_PROCESSES:-1}" -gt 1 ]; then command+=(--distributed); fi
# The first process of a container gets no signal that it has no trap for, and passes none on by itself.
trap 'if [ -n "$process" ]; then kill -TERM "$process" 2>/dev/null || true; else exit 143; fi' TERM INT
"${command[@]}" &
process=$!
while kill -0 "$process" 2>/dev/null; do wait "$process" || true; done
status=0
wait "$process" || status=$?
if [ "$status" -eq 0 ] && [ "$stage" = train ] && [ ! -e "$workdir/train/finished.json" ]; then
  printf 'train: saved, and not finished\n'
  status=75
fi
exit "$status"
