# shellcheck shell=bash
# What the batch scripts share; sourced by them in the root of the checkout:
#
#   run_stage launcher processes marker ARGUMENTS...
#
# starts `python -m launch.LAUNCHER ARGUMENTS` on every task of the job (processes = all) or on one (processes = one).
# Several tasks find each other through Slurm's own variables. A signal to this script (Slurm's warning before the time
# limit or a preemption, `scancel --batch --signal=USR1 JOB`) is passed on as SIGUSR1. When the stage is not finished
# then (the file `marker` of the workdir is missing, or the processes did not end well), the job is put back into the
# queue and goes on from its checkpoint. The same happens when the processes were told to stop and this script was not:
# when they ended by SIGUSR1 or SIGTERM, with exit status 75, or well but without the marker.
# SEREMO_PYTHON names the interpreter (default: .venv/bin/python, else python3).

MAX_RESTARTS=200

say() { printf '== %s (job %s): %s\n' "$STAGE" "${SLURM_JOB_ID:-none}" "$*"; }
fail() { say "$*" >&2; exit 1; }

pass_on() { # signal
  say "signal $1: telling the processes to save what they have"
  SIGNALLED=yes
  # Not SIGTERM, at which srun kills the step at once.
  if [ -n "$SRUN" ]; then kill -USR1 "$SRUN" 2>/dev/null || true; fi
}

requeue() {
  local state n
  # A job that was cancelled must stay so, and one that Slurm itself preempted is in the queue already. SIGNALING says
  # only that a signal of Slurm's is on its way; what the job is shows when it has arrived.
  for ((n = 0; n < 60; n++)); do
    state=$(scontrol show job --oneliner "$SLURM_JOB_ID" | sed -n 's/.* JobState=\([A-Z_]*\).*/\1/p')
    [ "$state" = SIGNALING ] || break
    sleep 1
  done
  [ "$state" = RUNNING ] || fail "not finished, and the job is $state: left to Slurm"
  [ "${SLURM_RESTART_COUNT:-0}" -lt "$MAX_RESTARTS" ] || fail "not finished after $MAX_RESTARTS restarts: given up"
  say "not finished: back into the queue (restart $((${SLURM_RESTART_COUNT:-0} + 1)))"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}

run_stage() { # launcher, processes, marker, arguments...
  local processes=$2 marker=$3 workdir='' argument status=0 num_tasks python shown usr1 term
  STAGE=$1 SIGNALLED='' SRUN=''
  shift 3
  trap 'pass_on TERM' TERM
  trap 'pass_on USR1' USR1
  for argument; do
    case $argument in --workdir=*) workdir=${argument#*=} ;; esac
  done
  [ -n "$workdir" ] || fail "--workdir=DIR is missing (see --help)"
  [ -n "${SLURM_JOB_ID:-}" ] || fail "this is no Slurm job: submit it with sbatch, or see bash launch/cluster/slurm/submit.sh --help"
  python=${SEREMO_PYTHON:-}
  if [ -z "$python" ]; then
    python=python3
    if [ -x .venv/bin/python ]; then python=$PWD/.venv/bin/python; fi
  fi

  local options=(--kill-on-bad-exit=1) command=("$python" -m "launch.$STAGE" "$@")
  num_tasks=${SLURM_NTASKS:-$((${SLURM_JOB_NUM_NODES:-1} * ${SLURM_NTASKS_PER_NODE:-1}))}
  if [ "$processes" = one ]; then
    options+=(--nodes=1 --ntasks=1)
  elif [ "$num_tasks" -gt 1 ]; then
    command+=(--distributed)
  fi
  # sbatch's option of this name does not reach srun by itself.
  if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then options+=("--cpus-per-task=$SLURM_CPUS_PER_TASK"); fi
  shown=$(printf '%q ' "${command[@]}")
  say "restart ${SLURM_RESTART_COUNT:-0} on ${SLURM_JOB_NODELIST:-}: $shown"
  if [ -z "$SIGNALLED" ]; then
    srun "${options[@]}" "${command[@]}" &
    SRUN=$!
    # A signal ends `wait` early, so that it is asked until the process is gone; the last one gives its exit status.
    while kill -0 "$SRUN" 2>/dev/null; do wait "$SRUN" || true; done
    wait "$SRUN" || status=$?
  fi
  usr1=$(kill -l USR1)
  term=$(kill -l TERM)
  case $status in
    75 | $((128 + usr1)) | $((128 + term))) SIGNALLED=yes ;;
  esac

  if [ -n "$SIGNALLED" ] && { [ -z "$marker" ] || [ "$status" -ne 0 ] || [ ! -e "$workdir/$marker" ]; }; then requeue; fi
  [ "$status" -eq 0 ] || fail "failed with exit status $status"
  if [ -n "$marker" ] && [ ! -e "$workdir/$marker" ]; then requeue; fi
  say "finished"
}
