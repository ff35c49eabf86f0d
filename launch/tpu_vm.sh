#!/usr/bin/env bash
# A run on a Cloud TPU slice: every host of it runs the same command, and JAX finds them all by itself.
#
#   launch/tpu_vm.sh create  --name=pal --zone=us-west4-a --accelerator=v5litepod-16 --spot
#   launch/tpu_vm.sh install --name=pal --zone=us-west4-a --data=gs://BUCKET/tensorflow_datasets
#   launch/tpu_vm.sh run     --name=pal --zone=us-west4-a -- python -m fer_jax.train --config=... --workdir=gs://BUCKET/pal
#   launch/tpu_vm.sh logs    --name=pal --zone=us-west4-a
#   launch/tpu_vm.sh delete  --name=pal --zone=us-west4-a
#   launch/tpu_vm.sh keep    (options of all of them)     -- python -m fer_jax.train ...
#
# create   asks for a slice by a queued resource and waits until it is there
# install  copies the committed code of this clone to all hosts, installs it in ~/env, and copies prepared data
# run      starts the command on all hosts; it goes on when the connection ends
# logs     follows the output of a host
# delete   gives the slice back, which ends its costs
# keep     all of it in a loop: creates the slice, runs, creates it again when it was preempted, runs again on status 75,
#          and deletes it when the command has ended. Its status is the command's. Start it in tmux, or on a small VM.
#
#   --name=NAME            of the queued resource and of the slice
#   --zone=ZONE            where
#   --project=PROJECT      default: gcloud's own
#   --accelerator=TYPE     v5litepod-16 (default), v5p-8, v6e-16 ...
#   --runtime=VERSION      default: the one for the accelerator
#   --spot                 cheaper; may be taken away at any time
#   --valid_until=TIME     give up waiting for the slice after this time, such as 6h
#   --data=gs://FOLDER     prepared data sets, copied to ~/tensorflow_datasets of every host
#   --worker=I             whose output 'logs' shows (default 0)
#   --poll=S               seconds between looks at the state (default 60)
#   --dry_run              print the commands and run nothing

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=launch/options.sh
source "$here/options.sh"

name='' zone='' project='' accelerator=v5litepod-16 runtime='' valid_until='' data='' worker=0 poll=60 spot=
parse 'name zone project accelerator runtime valid_until data worker poll' 'spot' "$@"
action=${words[0]:-}
case $action in
  create | install | logs | delete) ((${#command[@]} == 0)) || fail "'$action' takes no command; 'run' and 'keep' do." ;;
  run | keep) ;;
  '') fail 'say what to do: create, install, run, logs, delete or keep; see --help.' ;;
  *) fail "'$action' is not known: create, install, run, logs, delete or keep; see --help." ;;
esac
words=("${words[@]:1}")
if [[ $action == run || $action == keep ]]; then
  require_command
fi
((${#words[@]} == 0)) || fail "unexpected argument '${words[0]}': options are written --name=value; see --help."
require name zone
whole poll
need gcloud 'it comes with the Google Cloud CLI, https://cloud.google.com/sdk/docs/install'

if [[ -z $runtime ]]; then
  case $accelerator in
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    v2-* | v3-* | v4-*) runtime=tpu-ubuntu2204-base ;;
    *) fail "--accelerator=$accelerator: which software goes with it is not known here; give --runtime=VERSION." ;;
  esac
fi

place=("--zone=$zone")
[[ -z $project ]] || place+=("--project=$project")
archive=${TMPDIR:-/tmp}/fer_jax-$name.tar.gz
# In memory, so that a host that was started anew has none: 'running', or the status of the command that has ended.
status_file=/dev/shm/fer_jax.status

queued() {
  run gcloud compute tpus queued-resources "$@"
}

# remote WORKER COMMAND: runs a shell command on a host, or on 'all'.
remote() {
  run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" "--worker=$1" "--command=$2"
}

# One word, nothing where there is no such resource; fails where gcloud cannot tell.
state() {
  queued list "${place[@]}" "--filter=name ~ /$name\$" '--format=value(state.state)'
}

create() {
  local options=("--node-id=$name" "${place[@]}" "--accelerator-type=$accelerator" "--runtime-version=$runtime")
  [[ -z $spot ]] || options+=(--spot)
  [[ -z $valid_until ]] || options+=("--valid-until-duration=$valid_until")
  queued create "$name" "${options[@]}"
}

wait_for_slice() {
  if [[ -n $dry_run ]]; then
    state
    return
  fi
  local now before=
  while true; do
    now=$(state) || now='not known'
    [[ $now == "$before" ]] || echo "$name: $now"
    before=$now
    case $now in
      ACTIVE) return ;;
      FAILED | SUSPENDED) fail "the slice will not come. Give the request back: launch/tpu_vm.sh delete --name=$name --zone=$zone" ;;
    esac
    sleep "$poll"
  done
}

install() {
  local root script
  root=$(cd "$here/.." && pwd)
  [[ -z $(git -C "$root" status --porcelain 2> /dev/null) ]] || echo 'note: changes that are not committed stay here.' >&2
  run git -C "$root" archive --format=tar.gz "--output=$archive" HEAD || return
  run gcloud compute tpus tpu-vm scp "$archive" "$name:fer_jax.tar.gz" "${place[@]}" --worker=all || return
  # uv brings its own Python: the one of the TPU's system is too old.
  script='mkdir -p fer_jax && tar -xzf fer_jax.tar.gz -C fer_jax && python3 -m pip install --quiet --user uv'
  script+=' && ~/.local/bin/uv venv --quiet --allow-existing --python 3.12 env'
  script+=' && ~/.local/bin/uv pip install --quiet --python env/bin/python "jax[tpu]" "./fer_jax[gcs]"'
  [[ -z $data ]] || script+=" && mkdir -p tensorflow_datasets \
&& gcloud storage rsync --recursive $(quoted "$data") tensorflow_datasets"
  remote all "$script"
}

start() {
  local inner
  inner="$(quoted "${command[@]}"); echo \$? > $status_file"
  remote all "if [ \"\$(cat $status_file 2> /dev/null)\" = running ]; then echo 'a run is going on here' >&2; exit 1; fi; \
cd fer_jax && . ../env/bin/activate && echo running > $status_file \
&& { nohup bash -c $(quoted "$inner") >> ../fer_jax.log 2>&1 < /dev/null & }"
}

logs() {
  remote "$worker" 'tail -n 100 -F fer_jax.log'
}

delete() {
  queued delete "$name" "${place[@]}" --force --quiet
}

# What became of the command, by worker 0: 'running', 'absent' or a status; nothing where it cannot be reached.
outcome() {
  remote 0 "cat $status_file 2> /dev/null || echo absent" || true
}

keep() {
  if [[ -n $dry_run ]]; then
    echo '# Until the command has ended with another status than 75:'
    state
    create
    install
    start
    outcome
    echo '# Then:'
    save_log
    delete
    return
  fi
  local now status failures=0
  while true; do
    now=$(state) || now='not known'
    echo "$(date '+%F %T') $name: ${now:-no slice}"
    case $now in
      '') create || failures=$((failures + 1)) ;;
      FAILED | SUSPENDED) delete || failures=$((failures + 1)) ;;
      ACTIVE)
        status=$(outcome)
        case $status in
          '' | running) ;;
          absent)
            if install && start; then
              failures=0
            else
              failures=$((failures + 1))
            fi
            ;;
          75) start || failures=$((failures + 1)) ;;
          *)
            echo "the command ended with status $status; its output is in $name.log"
            save_log || true
            delete
            exit "$status"
            ;;
        esac
        ;;
    esac
    ((failures < 3)) || fail "given up after $failures failures. The slice may still cost: launch/tpu_vm.sh delete \
--name=$name --zone=$zone"
    sleep "$poll"
  done
}

save_log() {
  run gcloud compute tpus tpu-vm scp "$name:fer_jax.log" "$name.log" "${place[@]}" --worker=0
}

case $action in
  create)
    create
    wait_for_slice
    ;;
  run) start ;;
  *) "$action" ;;
esac
