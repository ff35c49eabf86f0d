#!/usr/bin/env bash
# A run on Google Kubernetes Engine, as a JobSet: fills in tpu.yaml or gpu.yaml and hands it to kubectl.
#
#   launch/gke/run.sh tpu --name=pal --image=IMAGE --data_bucket=BUCKET --accelerator=tpu-v5-lite-podslice --topology=4x4 \
#       -- python -m fer_jax.train --config=configs/pal.py:ferplus --workdir=gs://BUCKET/runs/pal
#   launch/gke/run.sh gpu --name=pal --image=IMAGE --data_bucket=BUCKET --nodes=2 -- python -m fer_jax.train ...
#
#   --name=NAME             of the JobSet
#   --image=IMAGE           made from launch/gke/Dockerfile
#   --data_bucket=BUCKET    its prepared data sets appear, read-only, as /data (TFDS_DATA_DIR)
#   --namespace=NAME        default: default
#   --service_account=NAME  of Kubernetes, allowed to use the buckets (default: default)
#   --restarts=N            how often to start again after a failure; status 75 does not count (default 10)
#   --spot                  spot nodes: cheaper; may be taken away at any time
#   tpu: --accelerator=LABEL, --topology=AxB, --chips=N of a host (default: tpu-v5-lite-podslice, 4x4, 4)
#   gpu: --accelerator=LABEL, --nodes=N, --gpus=N of a node (default: nvidia-h100-80gb, 1, 8)
#   --dry_run               print the manifest and run nothing

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=launch/options.sh
source "$here/../options.sh"

name='' image='' data_bucket='' namespace=default service_account=default restarts=10 spot=
accelerator='' topology=4x4 chips=4 nodes=1 gpus=8
shared='name image data_bucket namespace service_account restarts accelerator'
case ${1:-} in
  tpu) parse "$shared topology chips" 'spot' "${@:2}" ;;
  gpu) parse "$shared nodes gpus" 'spot' "${@:2}" ;;
  --help | -h) show_help && exit 0 ;;
  *) fail "say on what: tpu or gpu, as the first word; see --help." ;;
esac
require_command
require name image data_bucket
whole chips nodes gpus
[[ $restarts =~ ^[0-9]+$ ]] || fail "--restarts=$restarts: give a whole number."
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] || fail "--name=$name: small letters, digits and '-', at most 40, as in \
names of hosts."
[[ $data_bucket != *[:/]* ]] || fail "--data_bucket=$data_bucket: only the name, without gs:// and without a folder."
need kubectl 'it comes with the Google Cloud CLI: gcloud components install kubectl'

hosts=1
if [[ $1 == tpu ]]; then
  [[ $topology =~ ^[0-9]+(x[0-9]+){1,2}$ ]] || fail "--topology=$topology: write it as GKE does, such as 4x4 or 2x2x4."
  total=$((${topology//x/*}))
  ((total % chips == 0)) || fail "--topology=$topology has $total chips, which hosts of --chips=$chips do not make up."
  hosts=$((total / chips))
  accelerator=${accelerator:-tpu-v5-lite-podslice}
else
  accelerator=${accelerator:-nvidia-h100-80gb}
fi

# A word as JSON, which YAML reads too. Kubernetes would fill in $(NAME): '$$' stands for the sign itself.
json() {
  local word=${1//\\/\\\\}
  word=${word//\"/\\\"}
  printf '"%s"' "${word//\$/\$\$}"
}

list=
for word in "${command[@]}"; do
  list+="${list:+, }$(json "$word")"
done

manifest=$(< "$here/$1.yaml")
fill() {
  manifest=${manifest//"\${$1}"/"$2"}
}
fill NAME "$name"
fill NAMESPACE "$namespace"
fill SERVICE_ACCOUNT "$(json "$service_account")"
fill RESTARTS "$restarts"
fill ACCELERATOR "$(json "$accelerator")"
fill TOPOLOGY "$(json "$topology")"
fill HOSTS "$hosts"
fill NODES "$nodes"
fill CHIPS "$chips"
fill GPUS "$gpus"
fill SPOT "${spot:+cloud.google.com/gke-spot: \"true\"}"
fill IMAGE "$(json "$image")"
fill DATA_BUCKET "$(json "$data_bucket")"
fill COMMAND "[$list]"

# 'create', which refuses a name that is taken; 'apply' would say nothing and leave the finished run as it is.
create=(kubectl create --filename=-)
if [[ -n $dry_run ]]; then
  echo "# $(quoted "${create[@]}")"
  echo "$manifest"
else
  "${create[@]}" <<< "$manifest"
fi
