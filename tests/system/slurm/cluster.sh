#!/usr/bin/env bash
# A real Slurm of two nodes on this one machine, for the tests.
set -euo pipefail

usage() {
  cat <<'END'
usage: bash tests/system/slurm/cluster.sh install | up | down | --help

  install   installs Debian's munge, slurmctld, slurmd and slurm-client, if they are not there (root, apt-get)
  up        starts munged, slurmctld and two slurmd on the loopback address; prints the path of slurm.conf, which
            SLURM_CONF must name for sbatch and the others
  down      cancels what runs, stops the daemons that `up` started and removes what it wrote

Everything is in the folder SEREMO_SLURM_DIR (/tmp/seremo-slurm); the ports are SEREMO_SLURM_PORT (17800) and the next
two. The nodes' names, seremo-node1 and seremo-node2, are lines of /etc/hosts while the cluster is up.
Exit status 3: Slurm cannot run here, and why.
END
}

folder=${SEREMO_SLURM_DIR:-/tmp/seremo-slurm}
port=${SEREMO_SLURM_PORT:-17800}
nodes=(seremo-node1 seremo-node2)
mark='# seremo_jax: Slurm for the tests'
export SLURM_CONF=$folder/slurm.conf
PATH=$PATH:/usr/sbin:/sbin

impossible() { printf 'no Slurm for the tests: %s\n' "$*" >&2; exit 3; }

missing() {
  local program
  for program in munged slurmctld slurmd sbatch srun scontrol; do
    command -v "$program" >/dev/null || printf '%s ' "$program"
  done
}

install() {
  [ -n "$(missing)" ] || return 0
  [ "$(id -u)" = 0 ] || impossible "missing $(missing)and only root can install them"
  command -v apt-get >/dev/null || impossible "missing $(missing)and there is no apt-get"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || impossible "apt-get update failed"
  apt-get install -y -qq --no-install-recommends munge slurmctld slurmd slurm-client >/dev/null ||
    impossible "apt-get cannot install munge, slurmctld, slurmd and slurm-client"
}

write_hosts() { # lines to add; /etc/hosts may be a mount, so it is written and not replaced
  local kept
  kept=$(grep -vF "$mark" /etc/hosts || true)
  printf '%s\n' "$kept" "$@" >/etc/hosts
}

write_conf() {
  local node number=0
  cat >"$SLURM_CONF" <<END
$mark
ClusterName=seremo
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.sock
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=1000,bf_interval=1,preempt_send_user_signal
# Jobs of the partition urgent take the nodes from others, which are warned and go back into the queue.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
StateSaveLocation=$folder/state
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdPidFile=$folder/%n.pid
SlurmdLogFile=$folder/%n.log
SlurmdSpoolDir=$folder/spool-%n
KillWait=10
MinJobAge=900
END
  for node in "${nodes[@]}"; do
    number=$((number + 1))
    # More processors than the machine may have, so that two jobs fit beside each other.
    printf 'NodeName=%s NodeHostname=%s NodeAddr=127.0.0.1 Port=%s CPUs=8 State=UNKNOWN\n' \
      "$node" "$node" "$((port + number))" >>"$SLURM_CONF"
  done
  cat >>"$SLURM_CONF" <<END
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
END
}

has_two_idle_nodes() {
  [ "$(sinfo --noheader --Node --states=idle --format=%N 2>/dev/null | sort -u | wc -l)" = "${#nodes[@]}" ]
}

up() {
  local node
  [ -z "$(missing)" ] || impossible "missing $(missing)– root gets them with: bash tests/system/slurm/cluster.sh install"
  [ "$(id -u)" = 0 ] || impossible "its daemons start jobs, which only root may do"
  down
  [ ! -e "$folder" ] || { printf '%s is there already and not by this script: set SEREMO_SLURM_DIR\n' "$folder" >&2; exit 1; }
  mkdir -p "$folder/state"
  chmod 755 "$folder"
  write_hosts "127.0.0.1 ${nodes[*]} $mark"
  write_conf
  dd if=/dev/urandom of="$folder/munge.key" bs=128 count=1 status=none
  chmod 600 "$folder/munge.key"
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.sock" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" >&2
  slurmctld -i
  for node in "${nodes[@]}"; do
    mkdir -p "$folder/spool-$node"
    slurmd -N "$node"
  done
  for _ in $(seq 150); do
    if has_two_idle_nodes; then
      printf '%s\n' "$SLURM_CONF"
      return
    fi
    sleep 0.2
  done
  sinfo --Node --long >&2 || true
  tail -n 20 "$folder"/*.log >&2
  printf 'Slurm was started, but its nodes did not become idle; the logs are above\n' >&2
  exit 1
}

# A stopped daemon may stay a zombie where process 1 reaps nobody.
is_running() { # pid, name
  [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ] && ! grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null
}

stop() { # file with a process id, name of the program
  local pid
  [ -f "$1" ] || return 0
  pid=$(cat "$1")
  is_running "$pid" "$2" || return 0
  kill "$pid"
  for _ in $(seq 100); do
    is_running "$pid" "$2" || return 0
    sleep 0.1
  done
  kill -KILL "$pid"
}

down() {
  local node
  grep -qsF "$mark" "$SLURM_CONF" || return 0
  if is_running "$(cat "$folder/slurmctld.pid" 2>/dev/null || echo 0)" slurmctld; then
    scancel --user=root 2>/dev/null || true
    for _ in $(seq 150); do
      [ -n "$(squeue --noheader 2>/dev/null)" ] || break
      sleep 0.1
    done
  fi
  for node in "${nodes[@]}"; do stop "$folder/$node.pid" slurmd; done
  stop "$folder/slurmctld.pid" slurmctld
  stop "$folder/munged.pid" munged
  if grep -qF "$mark" /etc/hosts; then write_hosts; fi
  rm -rf "$folder"
}

case ${1:-} in
  install | up | down) "$1" ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
