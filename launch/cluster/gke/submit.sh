#!/usr/bin/env bash
# Runs an experiment on GKE: fills in launch/cluster/gke/jobset.yaml and applies it.
set -euo pipefail

usage() {
  cat <<'END'
usage: bash launch/cluster/gke/submit.sh --name=NAME --image=IMAGE --claim=CLAIM --hosts=N
                                 (--tpu=ACCELERATOR --topology=TOPOLOGY | --gpu=ACCELERATOR) --per-host=N
                                 --config=configs/NAME.py[:VARIANT] --workdir=DIR [--config.SECTION.FIELD=VALUE ...]
                                 [--mount=DIR] [--dry-run]

  --name      of the job set: lower-case letters, digits and -
  --image     made from launch/cluster/gke/Containerfile
  --claim     persistent volume claim that many pods may write to at once (Filestore, or Cloud Storage FUSE)
  --mount     where the pods see it (default /shared); the workdir and the corpus are below
  --hosts     pods that extract and train together, one a host
  --tpu, --topology   of the node pool, e.g. --tpu=tpu-v6e-slice --topology=4x4
  --gpu       of the node pool, e.g. --gpu=nvidia-h100-80gb
  --per-host  chips or GPUs of one host
  --config, --workdir, --config.*   as for every launcher
  --dry-run   prints the manifest and applies nothing

The cluster needs JobSet 0.8 or newer. Follow it with kubectl get jobset NAME; what a pod prints: kubectl logs POD.
END
}

wrong() { printf '%s\n\n' "$1" >&2; usage >&2; exit 2; }

name='' image='' claim='' mount=/shared hosts='' tpu='' topology='' gpu='' config='' workdir='' is_dry=''
per_host=''
overrides=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --dry-run) is_dry=yes ;;
    --config.*=*) overrides+=("$1") ;;
    --per-host=*) per_host=${1#*=} ;;
    --name=* | --image=* | --claim=* | --mount=* | --hosts=* | --tpu=* | --topology=* | --gpu=* | --config=* | --workdir=*)
      [ -n "${1#*=}" ] || wrong "${1%%=*} needs a value"
      option=${1%%=*}
      printf -v "${option#--}" '%s' "${1#*=}" ;;
    *) wrong "unknown option: $1 (values are given as --name=VALUE)" ;;
  esac
  shift
done
for option in name image claim hosts per_host config workdir; do
  [ -n "${!option}" ] || wrong "--${option//_/-}=... is missing"
done
# Names of pods are NAME-STAGE-0-N and at most 63 characters.
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] || wrong "--name=$name: at most 40 lower-case letters, digits and -"
[[ $hosts =~ ^[1-9][0-9]*$ ]] || wrong "--hosts must be a whole number above 0, is $hosts"
[[ $per_host =~ ^[1-9][0-9]*$ ]] || wrong "--per-host must be a whole number above 0, is $per_host"
case $workdir in
  "$mount"/*) ;;
  *) wrong "--workdir=$workdir: it must be below --mount=$mount, or it is gone with the pods" ;;
esac

# A string as YAML has it between double quotes.
quoted() {
  local text=${1//\\/\\\\}
  case $text in *$'\n'*) wrong "a value has a line break: $1" ;; esac
  printf '"%s"' "${text//\"/\\\"}"
}

if [ -n "$tpu" ] && [ -n "$topology" ] && [ -z "$gpu" ]; then
  resource=google.com/tpu
  selector="{cloud.google.com/gke-tpu-accelerator: $(quoted "$tpu"), cloud.google.com/gke-tpu-topology: $(quoted "$topology")}"
elif [ -n "$gpu" ] && [ -z "$tpu$topology" ]; then
  resource=nvidia.com/gpu
  selector="{cloud.google.com/gke-accelerator: $(quoted "$gpu")}"
else
  wrong "give either --tpu and --topology, or --gpu"
fi
arguments=''
for argument in "--config=$config" "--workdir=$workdir" ${overrides[@]+"${overrides[@]}"}; do
  # In args, Kubernetes replaces $(NAME); $$ stands for $.
  arguments+=${arguments:+, }$(quoted "${argument//\$/\$\$}")
done

cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
manifest=$(<launch/cluster/gke/jobset.yaml)
fill() { manifest=${manifest//"\${$1}"/"$2"}; }
fill NAME "$name"
fill IMAGE "$(quoted "$image")"
fill CLAIM "$(quoted "$claim")"
fill MOUNT "$(quoted "$mount")"
fill NUM_HOSTS "$hosts"
fill SELECTOR "$selector"
fill RESOURCE "$resource"
fill PER_HOST "\"$per_host\""
fill ARGUMENTS "$arguments"
# The comments are about the template.
manifest=$(sed '/^#/d' <<<"$manifest")
if [ -n "$is_dry" ]; then
  printf '%s\n' "$manifest"
else
  command -v kubectl >/dev/null || { printf 'no kubectl here: install it and get the credentials of the cluster\n' >&2; exit 1; }
  kubectl apply -f - <<<"$manifest"
fi
