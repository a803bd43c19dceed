#!/usr/bin/env bash
# Does spatial entropy help a small ViT? Trains on emoji groups with and without it, three seeds
# each, tests on held-out emoji and on a held-out vendor, prints means with intervals, and draws
# what the heads look at.
#   [OUT=runs/claims/spatial_entropy] [SEEDS="1 2 3"] [JOBS=2] [SPLITS="val test test_openmoji"] \
#       bash scripts/claims/spatial_entropy.sh [options of `gen fit`, for both sides]
# A setting is searched for with SPLITS=val, so that the test splits choose nothing.
# Half an hour a run on one CPU core. Ctrl-C at any time: the same command continues.
set -euo pipefail
. "$(dirname "$0")/runs.sh"
export OUT=${OUT:-runs/claims/spatial_entropy} splits=${SPLITS:-val test test_openmoji}
export config=configs/spatial_entropy/emoji_vit_tiny.yaml data=data/emoji_groups
.venv/bin/python data_prep/emoji.py --layout classes --holdout openmoji --size 64 --out $data

one() { # side seed options..
  run=$OUT/$1_$2 side=$1 seed=$2
  shift 2
  begin "$run" "$config" "splits: $splits, options: $*" || return 255
  if [ -e "$run/test.jsonl" ]; then return; fi
  if [ "$side" = without ]; then set -- "$@" --model.regularizer none; fi
  if [ -e "$run/last.ckpt" ]; then set -- "$@" --ckpt_path "$run/last.ckpt"; fi
  .venv/bin/python -m gen fit -c "$config" --data.root "$data" --out "$run" --model.seed "$seed" \
    --data.seed "$seed" --trainer.enable_model_summary false "$@" >>"$run/log.txt" 2>&1
  .venv/bin/python scripts/evaluate.py --checkpoint "$run/last.ckpt" --data "$data" \
    --split $splits --metrics accuracy segmentation entropy \
    --out "$run/test.jsonl" >>"$run/log.txt" 2>&1
}
each "with without" "$@"
.venv/bin/python scripts/claims/spatial_entropy.py "$OUT" "$data" $seeds
