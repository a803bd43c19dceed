#!/usr/bin/env bash
# Does spatial entropy help a small ViT? Trains on emoji groups with and without it, three seeds
# each, tests on held-out emoji and on a held-out vendor, prints means with intervals, and draws
# what the heads look at.
#   [OUT=runs/claims/spatial_entropy] [SEEDS="1 2 3"] [JOBS=2] [SPLITS="val test test_openmoji"] \
#       bash scripts/claims/spatial_entropy.sh [options of `gen fit`, for both sides]
# A setting is searched for with SPLITS=val, so that the test splits choose nothing.
# Half an hour a run on one CPU core. Ctrl-C at any time: the same command continues.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/install.sh prep
export OUT=${OUT:-runs/claims/spatial_entropy} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
config=configs/spatial_entropy/emoji_vit_tiny.yaml data=data/emoji_groups seeds=${SEEDS:-1 2 3}
splits=${SPLITS:-val test test_openmoji}
.venv/bin/python data_prep/emoji.py --layout classes --holdout openmoji --size 64 --out $data

one() { # side seed options..
  run=$OUT/$1_$2 side=$1 seed=$2
  shift 2
  mkdir -p "$run"
  { echo "splits: $splits, options: $*"; grep -v '^#' "$config"; } >"$run/options.new"
  if [ -e "$run/options" ] && ! cmp -s "$run/options" "$run/options.new"; then
    echo "$run: expected the config and options it was begun with, got others; choose another OUT:" >&2
    diff "$run/options" "$run/options.new" >&2
    return 255 # xargs stops
  fi
  mv "$run/options.new" "$run/options"
  if [ -e "$run/test.jsonl" ]; then return; fi
  if [ "$side" = without ]; then set -- "$@" --model.regularizer none; fi
  if [ -e "$run/last.ckpt" ]; then set -- "$@" --ckpt_path "$run/last.ckpt"; fi
  echo "$run: training, see $run/log.txt"
  .venv/bin/python -m gen fit -c "$config" --data.root "$data" --out "$run" --model.seed "$seed" \
    --data.seed "$seed" --trainer.enable_model_summary false "$@" >>"$run/log.txt" 2>&1
  .venv/bin/python scripts/evaluate.py --checkpoint "$run/last.ckpt" --data "$data" \
    --split $splits --metrics accuracy segmentation entropy \
    --out "$run/test.jsonl" >>"$run/log.txt" 2>&1
}
export -f one
export config data splits
for seed in $seeds; do printf '%s\n' "with $seed" "without $seed"; done |
  xargs -P "${JOBS:-$(nproc)}" -L 1 bash -euc 'n=$#; one "${@: -2}" "${@:1:n-2}"' _ "$@"
.venv/bin/python scripts/claims/spatial_entropy.py "$OUT" "$data" $seeds
