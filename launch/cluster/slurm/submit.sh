#!/usr/bin/env bash
# Puts the stages of an experiment into Slurm's queue, each after the one before.
set -euo pipefail

usage() {
  cat <<'END'
usage: bash launch/cluster/slurm/submit.sh --config=configs/NAME.py[:VARIANT] --workdir=DIR
              [--config.SECTION.FIELD=VALUE ...] [--stages=STAGE,...] [--sweep=NAME --array=0-N[%MOST]] [--dry-run]
              [-- OPTIONS OF SBATCH]

  --config, --workdir, --config.*   as for every launcher; the workdir is on a disk that all nodes share
  --stages    which stages, in this order (default extract,train,evaluate; with --array: extract,sweep)
  --array     runs a sweep by N + 1 tasks that share its programs, MOST at a time, instead of train and evaluate
              (python -m launch.sweep --dry-run says how many there are)
  --sweep     which sweep of the recipe; left out, the one that was begun in the workdir
  --dry-run   prints the commands and submits nothing
  --          what follows goes to sbatch for each stage, e.g.
              -- --partition=gpu --time=12:00:00 --nodes=2 --ntasks-per-node=4 --gpus-per-task=1

The tables come first, on this machine: python -m launch.ingest with the same --config and --workdir. Each task is one
process; all of them work together, but for evaluate, which is one. A job that is preempted, or that Slurm warns of its
time limit, saves and goes back into the queue. Output: WORKDIR/slurm/STAGE-JOB.out.
END
}

wrong() { printf '%s\n\n' "$1" >&2; usage >&2; exit 2; }

config='' workdir='' stages='' array='' sweep='' is_dry=''
overrides=() sbatch_options=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --dry-run) is_dry=yes; shift ;;
    --) shift; sbatch_options=("$@"); break ;;
    --config.*=*) overrides+=("$1"); shift ;;
    --config=* | --workdir=* | --stages=* | --array=* | --sweep=*)
      [ -n "${1#*=}" ] || wrong "${1%%=*} needs a value"
      name=${1%%=*}
      printf -v "${name#--}" '%s' "${1#*=}"
      shift ;;
    *) wrong "unknown option: $1 (values are given as --name=VALUE; options of sbatch follow --)" ;;
  esac
done
if [ -n "$sweep" ] && [ -z "$array" ]; then wrong "--sweep=$sweep: how many tasks share it? Give --array=0-N"; fi
[ -n "$config" ] || wrong "--config=configs/NAME.py is missing"
[ -n "$workdir" ] || wrong "--workdir=DIR is missing"
case $workdir in
  *://*) wrong "--workdir=$workdir: the nodes of a Slurm cluster share a disk; give a folder on it" ;;
  /*) ;;
  *) workdir=$PWD/$workdir ;;
esac
if [ -z "$stages" ]; then
  stages=extract,train,evaluate
  if [ -n "$array" ]; then stages=extract,sweep; fi
fi
IFS=, read -r -a stages <<<"$stages"
for stage in "${stages[@]}"; do
  case $stage in
    extract | train | evaluate) ;;
    sweep) [ -n "$array" ] || wrong "--stages=...sweep: how many tasks share the sweep? Give --array=0-N" ;;
    *) wrong "--stages: there is no stage $stage; choose from extract, train, sweep, evaluate" ;;
  esac
done

here=$(dirname "${BASH_SOURCE[0]}")
cd "$here/../../.."
if [ -z "$is_dry" ]; then
  command -v sbatch >/dev/null || { printf 'no sbatch here: run this on a login node of the cluster\n' >&2; exit 1; }
  if [ ! -e "$workdir/ingest.json" ]; then
    printf 'no tables in %s. First, here: python -m launch.ingest --config=%s --workdir=%q ...\n' \
      "$workdir" "$config" "$workdir" >&2
    exit 1
  fi
  mkdir -p "$workdir/slurm"
fi

previous=''
for stage in "${stages[@]}"; do
  # In file names for Slurm, % and \ are special.
  output=${workdir//\\/\\\\}
  output=${output//%/%%}/slurm/$stage-%j.out
  command=(sbatch --parsable --chdir="$PWD" --output="$output" ${sbatch_options[@]+"${sbatch_options[@]}"})
  case $stage in
    evaluate) command+=(--nodes=1 --ntasks-per-node=1) ;;
    sweep) command+=(--array="$array") ;;
  esac
  if [ -n "$previous" ]; then command+=(--dependency="afterok:$previous" --kill-on-invalid-dep=yes); fi
  command+=("launch/cluster/slurm/$stage.sbatch" "--config=$config" "--workdir=$workdir" ${overrides[@]+"${overrides[@]}"})
  if [ "$stage" = sweep ] && [ -n "$sweep" ]; then command+=("--sweep=$sweep"); fi
  if [ -n "$is_dry" ]; then
    printf '%q' "${command[0]}"
    printf ' %q' "${command[@]:1}"
    printf '\n'
    previous=JOB_OF_${stage^^}
  else
    # sbatch says JOB, or JOB;CLUSTER.
    previous=$("${command[@]}")
    previous=${previous%%;*}
    printf '%s: job %s\n' "$stage" "$previous"
  fi
done
