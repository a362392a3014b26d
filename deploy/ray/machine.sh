#!/bin/sh
# Joins this machine to a Talker cluster, and stays: `machine.sh head`, `machine.sh worker HEAD`, `machine.sh edge HEAD`.
# On every machine RAY_AUTH_TOKEN_PATH names a file with the same token. Ray's ports are open on all interfaces: let
# nobody but the cluster's own machines reach them.
set -eu

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
: "${RAY_AUTH_TOKEN_PATH:?name the file with the token of the cluster}"
role=${1:?head, worker or edge}
port=${RAY_PORT:-6379}
store=${RAY_STORE_BYTES:-1000000000}

if [ "$role" = head ]; then # it computes nothing: it must not be what a full machine kills
  exec ray start --block --head --port="$port" --num-cpus=0 --num-gpus=0 --object-store-memory="$store" \
    --include-dashboard=true --dashboard-host=127.0.0.1
fi

head=${2:?the address of the head}
case $role in
  worker) exec ray start --block --address="$head:$port" --object-store-memory="$store" ;;
  edge)
    ray start --address="$head:$port" --num-cpus=0 --num-gpus=0 --object-store-memory="$store"
    export TALKER_ENGINE="ray://$head:$port" TALKER_CONCURRENCY="${TALKER_CONCURRENCY:-0}"
    exec talker serve
    ;;
  *) echo "$role is no role; wanted head, worker or edge" >&2 && exit 2 ;;
esac
