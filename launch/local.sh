#!/usr/bin/env bash
# Runs a command in several processes on this machine, which find each other as one JAX program.
#
#   launch/local.sh --processes=2 -- python -m fer_jax.train --config=configs/quickstart.py --workdir=runs/two
#
#   --processes=N   how many
#   --devices=D     run on the CPU, with D virtual devices in each process
#   --grace=S       seconds that the others get when one has failed (default 10)
#   --requeue       start again while the status is 75 (preempted, state saved)
#   --dry_run       print the commands and run nothing
#
# --coordinator_address, --num_processes and --process_id are added to the command. Without --devices, and where there
# are CUDA GPUs, process I gets the I-th GPU alone. Process 0 writes to the terminal as it is; lines of the others start
# with their number. SIGTERM and Ctrl-C reach all processes as SIGTERM: the state is saved, and the status is 75. A
# second Ctrl-C kills them. Status: of the first process that failed, else 75 if one was preempted, else 0.

set -euo pipefail
# shellcheck source=launch/options.sh
source "$(dirname "$0")/options.sh"

processes='' devices='' grace=10 requeue=
parse 'processes devices grace' 'requeue' "$@"
require processes
whole processes grace
[[ -z $devices ]] || whole devices
require_command

gpus=()
if [[ -z $devices ]] && command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1; then
  if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
    IFS=, read -r -a gpus <<< "$CUDA_VISIBLE_DEVICES"
  else
    read -r -a gpus <<< "$(nvidia-smi --query-gpu=index --format=csv,noheader | tr '\n' ' ')"
  fi
  ((${#gpus[@]} >= processes)) || fail "--processes=$processes, but there are ${#gpus[@]} GPUs: one process takes one. \
Give --devices=D to run on the CPU."
fi

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# line I PORT: sets 'line', the command of process I.
line() {
  line=(env)
  if [[ -n $devices ]]; then
    line+=(JAX_PLATFORMS=cpu "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices")
  elif ((${#gpus[@]})); then
    line+=("CUDA_VISIBLE_DEVICES=${gpus[$1]}")
  fi
  line+=("${command[@]}" "--coordinator_address=127.0.0.1:$2" "--num_processes=$processes" "--process_id=$1")
}

folder='' pids=() readers=() asked=0

# Signals of the terminal and of 'kill': the first asks for the state to be saved, the next ends everything.
forward() {
  asked=$((asked + 1))
  local signal=TERM
  ((asked == 1)) || signal=KILL
  kill -s "$signal" ${pids[@]+"${pids[@]}"} 2> /dev/null || true
}

once() {
  local i port status=0 running deadline='' preempted=
  port=$(free_port)
  pids=() readers=()
  for ((i = 0; i < processes; i++)); do
    line "$i" "$port"
    if ((i == 0)); then
      "${line[@]}" &
      pids+=($!)
      continue
    fi
    # A named pipe, not '|': the number of the process itself is needed.
    mkfifo "$folder/$port.$i"
    (trap '' TERM; while IFS= read -r text || [[ -n $text ]]; do printf '[%s] %s\n' "$i" "$text"; done) \
      < "$folder/$port.$i" &
    readers+=($!)
    "${line[@]}" > "$folder/$port.$i" 2>&1 &
    pids+=($!)
  done
  ((asked == 0)) || kill -s TERM "${pids[@]}" 2> /dev/null || true
  running=("${!pids[@]}")
  while ((${#running[@]})); do
    sleep 0.1
    local still=() code
    for i in "${running[@]}"; do
      if kill -0 "${pids[i]}" 2> /dev/null; then
        still+=("$i")
        continue
      fi
      code=0
      { wait "${pids[i]}" || code=$?; } 2> /dev/null  # Bash tells of a killed one; so do we, below.
      if ((code == 75)); then
        preempted=yes
      elif ((code && status == 0)); then
        status=$code
        deadline=$((SECONDS + grace))
        echo "local.sh: process $i ended with status $code" >&2
      fi
    done
    running=(${still[@]+"${still[@]}"})
    if [[ -n $deadline ]] && ((${#running[@]} && SECONDS >= deadline)); then
      echo "local.sh: ending process ${running[*]} after $grace s" >&2
      for i in "${running[@]}"; do
        kill -s KILL "${pids[i]}" 2> /dev/null || true
      done
      deadline=
    fi
  done
  ((${#readers[@]} == 0)) || wait "${readers[@]}" || true
  if ((status == 0)) && [[ -n $preempted ]]; then
    status=75
  fi
  return "$status"
}

if [[ -n $dry_run ]]; then
  port=$(free_port)
  for ((i = 0; i < processes; i++)); do
    line "$i" "$port"
    quoted "${line[@]}"
  done
  exit 0
fi

need python3 'it finds a free port.'
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap forward INT TERM HUP
while true; do
  status=0
  once || status=$?
  if ((status != 75 || asked)) || [[ -z $requeue ]]; then
    exit "$status"
  fi
  echo 'local.sh: preempted, starting again' >&2
done
