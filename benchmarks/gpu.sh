#!/usr/bin/env bash
# Everything that is measured on a machine with a GPU, in one command:
#   bash benchmarks/gpu.sh [directory of the records]
# PYTHON names the interpreter (python by default) of an environment with jaxmnist and JAX for CUDA.
# It takes 10 to 20 minutes; SECONDS_EACH and ROUNDS make it shorter or more exact.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python}
records=${1:-benchmarks/records}
rounds=${ROUNDS:-5}
each=${SECONDS_EACH:-1}
failed=()

measure() {
  local program=$1
  shift
  printf '\n== %s %s\n' "$program" "$*"
  "$python" "benchmarks/$program.py" --records="$records" "$@" || failed+=("$program $*")
}

"$python" - <<'CHECK' || exit 1
import sys

import jax

print("JAX", jax.__version__, "on", jax.devices())
if jax.default_backend() == "cpu":
    sys.exit("this machine has no accelerator that JAX can use")
CHECK

timed=(--rounds="$rounds" --seconds="$each")
# Strategies; then types and steps per call, with the data set on the devices and sent to them.
measure throughput "${timed[@]}" --strategies=shard_map,pmap,jit --batches=1024 --convs=xla
measure throughput "${timed[@]}" --strategies=shard_map --batches=256,1024,4096,16384 \
  --convs=xla --dtypes=float32,bfloat16 --steps_per_call=1,16 --resident=on,off
measure overhead "${timed[@]}" --batches=256,1024,4096 --conv=xla
measure pipeline "${timed[@]}" --batches=256,1024,4096
measure scaling "${timed[@]}" --strong=4096 --weak=1024 --conv=xla
measure roofline "${timed[@]}" --batches=1024,4096,16384 --convs=xla --dtypes=float32,bfloat16 \
  --matmul_sizes=2048,4096,8192 --memory_mib=1024
measure startup --rounds="$rounds" --convs=xla
# Epoch seconds and time to 99 %.
measure time_to_accuracy --configs=default --seeds=5 --target=0.99
if [ -f configs/speedrun.py ]; then
  measure speedrun --config=speedrun --seeds=20
fi

if [ "${#failed[@]}" -gt 0 ]; then
  printf '\nfailed:\n'
  printf '  %s\n' "${failed[@]}"
  exit 1
fi
