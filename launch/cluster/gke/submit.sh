#!/usr/bin/env bash
# Runs an experiment on the GPUs of a GKE cluster, as one job set. For TPUs there is launch/cluster/tpu_pod.sh.
set -euo pipefail

usage() {
  cat <<'END'
usage: bash launch/cluster/gke/submit.sh --name=NAME --image=IMAGE --claim=CLAIM --hosts=N --gpu=ACCELERATOR
              --per-host=N --config=configs/NAME.py[:VARIANT] --workdir=DIR [--config.SECTION.FIELD=VALUE ...]
              [--mount=DIR] [--dry-run]

  --name      of the job set: lower-case letters, digits and -
  --image     made from launch/cluster/gke/Containerfile
  --claim     persistent volume claim that many pods may write to at once (Filestore, or Cloud Storage FUSE)
  --mount     where the pods see it (default /shared); the workdir and the corpus are below
  --hosts     pods that extract and train together, one a host
  --gpu       of the node pool, e.g. --gpu=nvidia-h100-80gb
  --per-host  GPUs of one host
  --config, --workdir, --config.*   as for every launcher
  --dry-run   prints the manifest and applies nothing

The stages follow each other; ingest and evaluate are one pod on processors. A pod that is taken away, or that ends
unfinished, restarts the set: finished stages say so in seconds, and the others go on from where they were.
The cluster needs JobSet 0.8 or newer. Follow it with kubectl get jobset NAME; what a pod prints: kubectl logs POD.
END
}

wrong() { printf '%s\n\n' "$1" >&2; usage >&2; exit 2; }

name='' image='' claim='' mount=/shared hosts='' gpu='' per_host='' config='' workdir='' is_dry=''
overrides=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --dry-run) is_dry=yes ;;
    --config.*=*) overrides+=("$1") ;;
    --per-host=*) per_host=${1#*=} ;;
    --name=* | --image=* | --claim=* | --mount=* | --hosts=* | --gpu=* | --config=* | --workdir=*)
      [ -n "${1#*=}" ] || wrong "${1%%=*} needs a value"
      option=${1%%=*}
      printf -v "${option#--}" '%s' "${1#*=}" ;;
    *) wrong "unknown option: $1 (values are given as --name=VALUE)" ;;
  esac
  shift
done
for option in name image claim hosts gpu per_host config workdir; do
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

for option in image claim mount gpu; do
  value=$(quoted "${!option}")
  printf -v "$option" '%s' "$value"
done
arguments=''
for argument in "--config=$config" "--workdir=$workdir" ${overrides[@]+"${overrides[@]}"}; do
  # In args, Kubernetes replaces $(NAME); $$ stands for $.
  value=$(quoted "${argument//\$/\$\$}")
  arguments+=", $value"
done

job() { # stage, stage before it or nothing, pods, node selector, resources
  local after=''
  if [ -n "$2" ]; then after="
      dependsOn: [{name: $2, status: Complete}]"; fi
  cat <<END
    - name: $1$after
      template:
        spec:
          parallelism: $3
          completions: $3
          completionMode: Indexed
          backoffLimit: 0
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 300
              nodeSelector: $4
              containers:
                - name: stage
                  image: $image
                  args: [$1$arguments]
                  env:
                    - name: JAX_COORDINATOR_ADDRESS
                      value: $name-$1-0-0.$name:8476
                    - name: JAX_NUM_PROCESSES
                      value: "$3"
                    - name: JAX_PROCESS_ID
                      valueFrom:
                        fieldRef: {fieldPath: "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
                  ports: [{containerPort: 8476}]
                  resources: $5
                  volumeMounts: [{name: shared, mountPath: $mount}]
              volumes:
                - name: shared
                  persistentVolumeClaim: {claimName: $claim}
END
}

manifest() {
  local on_gpus="{cloud.google.com/gke-accelerator: $gpu}" gpus="{limits: {nvidia.com/gpu: \"$per_host\"}}"
  local on_processors='{}' processors='{requests: {cpu: "4", memory: 16Gi}}'
  cat <<END
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $name
spec:
  network:
    enableDNSHostnames: true
  failurePolicy:
    maxRestarts: 50
    restartStrategy: BlockingRecreate
  replicatedJobs:
END
  job ingest '' 1 "$on_processors" "$processors"
  job extract ingest "$hosts" "$on_gpus" "$gpus"
  job train extract "$hosts" "$on_gpus" "$gpus"
  job evaluate train 1 "$on_processors" "$processors"
}

if [ -n "$is_dry" ]; then
  manifest
else
  command -v kubectl >/dev/null || { printf 'no kubectl here: install it, and get access to the cluster\n' >&2; exit 1; }
  manifest | kubectl apply -f -
fi
