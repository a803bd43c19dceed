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
cd "$(dirname "$0")/../.."
. scripts/install.sh prep
export OUT=${OUT:-runs/claims/style_function} OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
generator=${GENERATOR:-checkpoints/stylegan2_heads64.safetensors}
judge=${JUDGE:-checkpoints/attribute_classifier_heads64.safetensors}
count=${COUNT:-500} seeds=${SEEDS:-1 2 3}

one() { # side seed options..
  run=$OUT/$1_$2 side=$1 seed=$2 space=W+
  shift 2
  config=configs/linear_directions/heads64_cpu.yaml
  if [ "$side" = style_function ]; then config=configs/style_function/heads64_cpu.yaml; fi
  if [ "$side" = linear_w ]; then space=W; fi
  mkdir -p "$run"
  { echo "sources: $count, options: $*"; sha256sum "$generator" "$judge"; grep -v '^#' "$config"; } \
    >"$run/options.new"
  if [ -e "$run/options" ] && ! cmp -s "$run/options" "$run/options.new"; then
    echo "$run: expected the config and options it was begun with, got others; choose another OUT:" >&2
    diff "$run/options" "$run/options.new" >&2
    return 255 # xargs stops
  fi
  mv "$run/options.new" "$run/options"
  if [ -e "$run/test.jsonl" ]; then return; fi
  if [ -e "$run/last.ckpt" ]; then set -- "$@" --ckpt_path "$run/last.ckpt"; fi
  echo "$run: training, see $run/log.txt"
  .venv/bin/python -m gen fit -c "$config" --model.space "$space" --model.generator "$generator" \
    --model.judge "$judge" --out "$run" --model.seed "$seed" --data.seed "$seed" \
    --trainer.enable_model_summary false "$@" >>"$run/log.txt" 2>&1
  .venv/bin/python scripts/evaluate.py --checkpoint "$run/last.ckpt" --classifier "$judge" \
    --metrics edits single paths --count "$count" --out "$run/test.jsonl" >>"$run/log.txt" 2>&1
}
export -f one
export generator judge count
for seed in $seeds; do printf '%s\n' "style_function $seed" "linear_w $seed" "linear_wplus $seed"; done |
  xargs -P "${JOBS:-$(nproc)}" -L 1 bash -euc 'n=$#; one "${@: -2}" "${@:1:n-2}"' _ "$@"
.venv/bin/python scripts/claims/style_function.py "$OUT" $seeds
