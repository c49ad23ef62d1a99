#!/bin/sh
# What can be measured only on an NVIDIA GPU, in at most 8 minutes; run it again to continue.
#
#   PACAVIT_DATA=FOLDER sh benchmarks/gpu.sh [OUT]
#
# Runs the tests marked gpu, trains cifar10_large32 for as many epochs as there is time for, and
# compares the speed of the paper's models in fp16 and bf16. What has finished is not repeated.
# OUT (default runs/gpu) gets the logs; benchmarks/results/gpu.json gets the record, from which
# `make tables` writes the documents.
#
# The machine needs Python, PyTorch and torchvision with CUDA. Other packages that it lacks are
# installed from a folder of wheels: pip download --only-binary=:all: -d wheels pacavit
#
# PACAVIT_GPU_SECONDS  time for all, 480
# PACAVIT_GPU_WHEELS   folder of wheels, wheels
# PACAVIT_GPU_DEVICE   cuda; the test of this script sets cpu
# PACAVIT_GPU_RECIPE   cifar10_large32
# PACAVIT_GPU_SET      further changes of the recipe, separated by spaces
# PACAVIT_GPU_TESTS    what pytest runs, "-m gpu tests"
# PACAVIT_GPU_BENCH    arguments of pacavit bench
# PACAVIT_GPU_RECORD   the record
set -eu
cd "$(dirname "$0")/.."

out=${1:-runs/gpu}
device=${PACAVIT_GPU_DEVICE:-cuda}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
end=$(($(date +%s) + ${PACAVIT_GPU_SECONDS:-480}))
left() { echo $((end - $(date +%s))); }
mkdir -p "$out"

wheels=${PACAVIT_GPU_WHEELS:-wheels}
python benchmarks/gpu.py packages "$wheels" >"$out/missing.txt"
if [ -s "$out/missing.txt" ]; then
  echo "== installing from $wheels"
  python -m pip install --quiet --no-index --find-links "$wheels" -r "$out/missing.txt"
fi
python benchmarks/gpu.py device "$device"

if [ ! -f "$out/tests.done" ]; then
  echo "== tests"
  # shellcheck disable=SC2086 # several arguments
  if timeout $(($(left) / 4 + 1)) python -m pytest -q -p no:cacheprovider \
    ${PACAVIT_GPU_TESTS:--m gpu tests} >"$out/tests.log" 2>&1; then
    touch "$out/tests.done"
  fi
  tail -n 1 "$out/tests.log"
fi

echo "== training"
recipe=${PACAVIT_GPU_RECIPE:-cifar10_large32}
changes="--set train.device=$device"
for change in ${PACAVIT_GPU_SET:-}; do changes="$changes --set $change"; done
if [ ! -f "$out/epochs" ]; then
  # Three epochs tell how many fit; the first compiles.
  # shellcheck disable=SC2086
  python -m pacavit_cli train "$recipe" $changes --set train.epochs=3 --out "$out/pace" \
    --overwrite >"$out/pace.log" 2>&1 || { tail -n 3 "$out/pace.log"; exit 1; }
  # shellcheck disable=SC2086
  python benchmarks/gpu.py epochs "$out/pace" "$recipe" $(($(left) * 2 / 3)) \
    ${PACAVIT_GPU_SET:-} >"$out/epochs"
fi
if [ ! -f "$out/run/report.html" ]; then
  resume=
  [ ! -d "$out/run" ] || resume=--resume
  [ -n "$resume" ] || changes="$changes --set train.epochs=$(cat "$out/epochs")"
  # shellcheck disable=SC2086
  timeout $(($(left) > 20 ? $(left) - 10 : 10)) python -m pacavit_cli train "$recipe" \
    $changes --out "$out/run" $resume >"$out/train.log" 2>&1 || tail -n 1 "$out/train.log"
fi
if [ -f "$out/run/report.html" ] && [ ! -f "$out/run/evaluation-test/evaluation.json" ]; then
  python -m pacavit_cli evaluate "$out/run" >"$out/evaluate.log" 2>&1 || tail -n 1 "$out/evaluate.log"
fi

if [ "$(left)" -gt 10 ]; then
  echo "== speed"
  # shellcheck disable=SC2086
  timeout "$(left)" python -m pacavit_cli bench \
    ${PACAVIT_GPU_BENCH:---peers paper --precisions fp16,bf16} --device "$device" \
    --out "$out/bench" --resume >"$out/bench.log" 2>&1 || tail -n 1 "$out/bench.log"
fi

python benchmarks/gpu.py record "$out" "$device" \
  "${PACAVIT_GPU_RECORD:-benchmarks/results/gpu.json}"
