#!/usr/bin/env bash
# Does an implicit style function edit better than linear directions in the same codes? Trains it,
# and linear directions in W and in W+, three seeds each, on one generator, and prints means with
# intervals of what a judge sees. It is the judge that labels their training images, for all alike.
#   [OUT=runs/claims/style_function] [SEEDS="1 2 3"] [JOBS=2] [COUNT=500] \
#       [GENERATOR=checkpoints/stylegan2_heads64.safetensors] \
#       [JUDGE=checkpoints/attribute_classifier_heads64.safetensors] \
#       bash scripts/claims/style_function.sh [options of `gen fit` that all sides have]
# COUNT is the number of sources. Ctrl-C at any time: the same command continues.
set -euo pipefail
. "$(dirname "$0")/runs.sh"
export OUT=${OUT:-runs/claims/style_function} count=${COUNT:-500}
export generator=${GENERATOR:-checkpoints/stylegan2_heads64.safetensors}
export judge=${JUDGE:-checkpoints/attribute_classifier_heads64.safetensors}

one() { # side seed options..
  run=$OUT/$1_$2 side=$1 seed=$2 space=W+
  shift 2
  config=configs/linear_directions/heads64_cpu.yaml
  if [ "$side" = style_function ]; then config=configs/style_function/heads64_cpu.yaml; fi
  if [ "$side" = linear_w ]; then space=W; fi
  begin "$run" "$config" "sources: $count, options: $*
$(sha256sum "$generator" "$judge")" || return 255
  if [ -e "$run/test.jsonl" ]; then return; fi
  if [ -e "$run/last.ckpt" ]; then set -- "$@" --ckpt_path "$run/last.ckpt"; fi
  .venv/bin/python -m gen fit -c "$config" --model.space "$space" --model.generator "$generator" \
    --model.judge "$judge" --out "$run" --model.seed "$seed" --data.seed "$seed" \
    --trainer.enable_model_summary false "$@" >>"$run/log.txt" 2>&1
  .venv/bin/python scripts/evaluate.py --checkpoint "$run/last.ckpt" --classifier "$judge" \
    --metrics edits single paths --count "$count" --out "$run/test.jsonl" >>"$run/log.txt" 2>&1
}
each "style_function linear_w linear_wplus" "$@"
.venv/bin/python scripts/claims/style_function.py "$OUT" $seeds
