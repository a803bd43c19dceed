#!/usr/bin/env bash
# Do edges of the object graph tell the others what the user does? Trains the graph with and without
# them, three seeds each, and prints means with intervals of where objects that nobody drags end.
#   [OUT=runs/claims/click_to_move] [SEEDS="1 2 3"] [JOBS=2] [COUNT=200] \
#       bash scripts/claims/click_to_move.sh [options of `gen fit`, for both sides]
# COUNT is the number of test scenes. Ctrl-C at any time: the same command continues.
set -euo pipefail
. "$(dirname "$0")/runs.sh"
export OUT=${OUT:-runs/claims/click_to_move} count=${COUNT:-200}
export config=configs/click_to_move/movers_motion.yaml

one() { # side seed options..
  run=$OUT/$1_$2 side=$1 seed=$2
  shift 2
  begin "$run" "$config" "scenes: $count, options: $*" || return 255
  if [ -e "$run/test.jsonl" ]; then return; fi
  if [ "$side" = without ]; then set -- "$@" --model.edges false; fi
  if [ -e "$run/last.ckpt" ]; then set -- "$@" --ckpt_path "$run/last.ckpt"; fi
  .venv/bin/python -m gen fit -c "$config" --out "$run" --model.seed "$seed" --data.seed "$seed" \
    --trainer.enable_model_summary false "$@" >>"$run/log.txt" 2>&1
  .venv/bin/python scripts/evaluate.py --checkpoint "$run/last.ckpt" --data movers \
    --metrics motion response --count "$count" --out "$run/test.jsonl" >>"$run/log.txt" 2>&1
}
each "with without" "$@"
.venv/bin/python scripts/claims/click_to_move.py "$OUT" $seeds
