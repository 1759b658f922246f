#!/usr/bin/env bash
# Runs an experiment on a TPU pod slice, every host of it a process.
set -euo pipefail

usage() {
  cat <<'END'
usage: bash launch/cluster/tpu_pod.sh --name=SLICE --zone=ZONE --type=TYPE --config=configs/NAME.py[:VARIANT]
              --workdir=DIR [--config.SECTION.FIELD=VALUE ...] [--stages=STAGE,...] [--project=PROJECT]
              [--runtime=VERSION] [--prepare=COMMAND] [--spot] [--restarts=N] [--logs=DIR] [--keep] [--dry-run]

Creates the slice (or reuses one of that name), copies this checkout to every host and installs it, runs the stages,
gathers the logs, and deletes the slice if it was created here. Needs an authenticated gcloud.

  --name, --zone, --type   of the slice, e.g. --name=emotion --zone=us-east5-b --type=v6e-16
  --config, --workdir, --config.*   as for every launcher; the workdir (and the corpus) are on a disk that all hosts
              mount at the same place, e.g. Filestore, or a bucket through Cloud Storage FUSE
  --stages    which stages, in this order (default ingest,extract,train,evaluate); ingest and evaluate run on the
              processors of the first host, the others on every host
  --project   default: gcloud's own
  --runtime   software of the hosts (default v2-alpha-tpuv6e)
  --prepare   command for every host before anything else, e.g. one that mounts the disk
  --spot      cheaper, and may be taken away: the slice is then made anew, and the stage goes on from its checkpoint
  --restarts  how often, at most (default 20)
  --logs      folder on this machine for what each host printed (default runs/tpu-SLICE)
  --keep      leaves the slice there, and running
  --dry-run   prints every command and runs none
END
}

wrong() { printf '%s\n\n' "$1" >&2; usage >&2; exit 2; }
say() { printf '== %s\n' "$*"; }

name='' zone='' type='' config='' workdir='' stages=ingest,extract,train,evaluate project='' runtime=v2-alpha-tpuv6e
prepare='' spot='' restarts=20 logs='' keep='' dry=''
overrides=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --spot | --keep) printf -v "${1#--}" yes ;;
    --dry-run) dry=yes ;;
    --config.*=*) overrides+=("$1") ;;
    --name=* | --zone=* | --type=* | --config=* | --workdir=* | --stages=* | --project=* | --runtime=* | --prepare=* | \
      --restarts=* | --logs=*)
      [ -n "${1#*=}" ] || wrong "${1%%=*} needs a value"
      option=${1%%=*}
      printf -v "${option#--}" '%s' "${1#*=}" ;;
    *) wrong "unknown option: $1 (values are given as --name=VALUE)" ;;
  esac
  shift
done
for option in name zone type config workdir; do
  [ -n "${!option}" ] || wrong "--$option=... is missing"
done
case $workdir in
  *://*) wrong "--workdir=$workdir: buckets are not written to directly yet; mount it on the hosts and give the folder" ;;
  /*) ;;
  *) wrong "--workdir=$workdir: give the whole path, as the hosts see it" ;;
esac
[[ $restarts =~ ^[0-9]+$ ]] || wrong "--restarts must be a whole number, is $restarts"
IFS=, read -r -a stages <<<"$stages"
for stage in "${stages[@]}"; do
  case $stage in
    ingest | extract | train | evaluate | report) ;;
    *) wrong "--stages: there is no stage $stage; choose from ingest, extract, train, evaluate, report" ;;
  esac
done

here=$(dirname "${BASH_SOURCE[0]}")
cd "$here/../.."
logs=${logs:-runs/tpu-$name}
where=("--zone=$zone")
if [ -n "$project" ]; then where+=("--project=$project"); fi
scratch=''
has_created=''
is_creating=''

run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  [ -n "$dry" ] || "$@"
}

on_hosts() { # all or a number, folder for the logs, command line
  if [ -z "$dry" ]; then mkdir -p "$logs/$2"; fi
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$1" "--command=$3" "--output-directory=$logs/$2"
}

state() { gcloud compute tpus tpu-vm describe "$name" "${where[@]}" '--format=value(state)' 2>/dev/null || true; }

create() {
  is_creating=yes
  run gcloud compute tpus tpu-vm create "$name" "${where[@]}" "--accelerator-type=$type" "--version=$runtime" ${spot:+--spot}
  has_created=yes is_creating=''
}

delete() { run gcloud compute tpus tpu-vm delete "$name" "${where[@]}" --quiet; }

finish() {
  local status=$?
  if [ -n "$scratch" ]; then rm -rf "$scratch"; fi
  if [ -n "$is_creating" ]; then say "the slice $name was not made in full; if it is there all the same, delete it"; fi
  if [ -n "$has_created" ] && [ -z "$keep" ]; then delete || say "the slice $name may still be there, and cost: delete it"; fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

set_up() {
  local install
  if [ -n "$prepare" ]; then on_hosts all prepare "$prepare" || return; fi
  run gcloud compute tpus tpu-vm scp "$archive" "$name:seremo_jax.tar.gz" "${where[@]}" --worker=all || return
  # Images of the hosts come with Python 3.10.
  install='set -e; rm -rf seremo_jax; mkdir seremo_jax; tar -xzf seremo_jax.tar.gz -C seremo_jax; cd seremo_jax
command -v python3.11 >/dev/null || { sudo apt-get update -qq; sudo apt-get install -y -qq python3.11 python3.11-venv; }
python3.11 -m venv .venv
.venv/bin/python -m pip install -q -e . "jax[tpu]" -c constraints-3.11.txt'
  on_hosts all install "$install"
}

stage() { # name
  local arguments stamp command="cd seremo_jax && "
  arguments=$(printf '%q ' "--config=$config" "--workdir=$workdir" ${overrides[@]+"${overrides[@]}"}) || return
  case $1 in
    extract | train) on_hosts all "$1" "${command}.venv/bin/python -m launch.$1 $arguments--distributed" ;;
    # One host of a slice cannot use its TPU chips without the others.
    *) on_hosts 0 "$1" "${command}JAX_PLATFORMS=cpu .venv/bin/python -m launch.$1 $arguments" ;;
  esac || return
  # Training that was told to stop ends well, and unfinished.
  if [ "$1" = train ]; then
    stamp=$(printf '%q' "$workdir/train/finished.json") || return
    on_hosts 0 "$1-finished" "test -e $stamp"
  fi
}

archive=seremo_jax.tar.gz
if [ -z "$dry" ]; then
  command -v gcloud >/dev/null || { printf 'no gcloud here: install the Google Cloud CLI and run gcloud auth login\n' >&2; exit 1; }
  scratch=$(mktemp -d)
  archive=$scratch/$archive
fi
run git archive --format=tar.gz "--output=$archive" HEAD

found=''
if [ -n "$dry" ]; then
  say "if there is no slice $name yet:"
else
  found=$(state)
fi
if [ -z "$found" ]; then create; else say "using the slice $name, which is $found; it will not be deleted"; fi

num_restarts=0
set_up_done=''
for name_of_stage in "${stages[@]}"; do
  say "$name_of_stage"
  until { [ -n "$set_up_done" ] || set_up; } && set_up_done=yes && stage "$name_of_stage"; do
    found=$(state)
    [ "$found" != READY ] || { printf '%s failed; see %s\n' "$name_of_stage" "$logs" >&2; exit 1; }
    [ -n "$has_created" ] || { printf 'the slice %s is gone (%s)\n' "$name" "${found:-deleted}" >&2; exit 1; }
    [ "$num_restarts" -lt "$restarts" ] || { printf 'the slice was taken away %s times\n' "$num_restarts" >&2; exit 1; }
    num_restarts=$((num_restarts + 1)) set_up_done=''
    say "the slice was taken away (${found:-deleted}): restart $num_restarts"
    if [ -n "$found" ]; then delete; fi
    has_created=''
    create
  done
done
say "finished; what the hosts printed is in $logs"
