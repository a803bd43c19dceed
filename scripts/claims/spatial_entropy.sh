#!/usr/bin/env bash
# Does spatial entropy help a small ViT? Trains on emoji groups with and without it, three seeds
# each, tests on held-out emoji and on a held-out vendor, prints means with intervals, and draws
# what the heads look at.
#   [OUT=runs/claims/spatial_entropy] [SEEDS="1 2 3"] [JOBS=2] \
#       bash scripts/claims/spatial_entropy.sh [options of `gen fit`, for both sides]
# Half an hour a run on one CPU core. Ctrl-C at any time: the same command continues.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/install.sh prep
export OUT=${OUT:-runs/claims/spatial_entropy} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
config=configs/spatial_entropy/emoji_vit_tiny.yaml data=data/emoji_groups seeds=${SEEDS:-1 2 3}
.venv/bin/python data_prep/emoji.py --layout classes --holdout openmoji --size 64 --out $data

one() { # side seed options..
  run=$OUT/$1_$2 side=$1 seed=$2
  shift 2
  if [ -e "$run/test.jsonl" ]; then return; fi
  mkdir -p "$run"
  if [ "$side" = without ]; then set -- "$@" --model.regularizer none; fi
  if [ -e "$run/last.ckpt" ]; then set -- "$@" --ckpt_path "$run/last.ckpt"; fi
  echo "$run: training, see $run/log.txt"
  .venv/bin/python -m gen fit -c "$config" --data.root "$data" --out "$run" --model.seed "$seed" \
    --data.seed "$seed" --trainer.enable_model_summary false "$@" >>"$run/log.txt" 2>&1
  .venv/bin/python scripts/evaluate.py --checkpoint "$run/last.ckpt" --data "$data" \
    --split val test test_openmoji --metrics accuracy segmentation entropy \
    --out "$run/test.jsonl" >>"$run/log.txt" 2>&1
}
export -f one
export config data
for seed in $seeds; do printf '%s\n' "with $seed" "without $seed"; done |
  xargs -P "${JOBS:-$(nproc)}" -L 1 bash -euc 'n=$#; one "${@: -2}" "${@:1:n-2}"' _ "$@"
.venv/bin/python scripts/claims/spatial_entropy.py "$OUT" "$data"
