#!/usr/bin/env bash
# Do shrinkage and Mixup make interpolations smoother than the losses of CVPR 2021 alone, at equal
# distance and no worse quality? Trains StarGAN, these losses, and with shrinkage, Mixup or both, on
# the published and on the mended generator, three seeds each, and prints differences to `smooth`.
#   [OUT=runs/claims/smooth_i2i] [SEEDS="1 2 3"] [JOBS=2] [COUNT=150] [GENERATORS="mended published"]
#   [ARMS="stargan smooth origin centroid pairwise mixup mixup_image both"] \
#       bash scripts/claims/smooth_i2i.sh [options of `gen fit`, for all sides]
# COUNT is the number of sources. A quarter of an hour a run on one CPU core, 48 runs. A setting is
# searched for with other SEEDS. Ctrl-C at any time: the same command continues.
set -euo pipefail
. "$(dirname "$0")/runs.sh"
export OUT=${OUT:-runs/claims/smooth_i2i} count=${COUNT:-150}
export config=configs/smooth_i2i/heads32_cpu.yaml judge=$OUT/judge/last.ckpt
arms=${ARMS:-stargan smooth origin centroid pairwise mixup mixup_image both}

one() { # GENERATOR:ARM SEED OPTIONS..
  generator=${1%:*} arm=${1#*:} seed=$2
  run=$OUT/${generator}_${arm}_$seed
  shift 2
  begin "$run" "$config" "sources: $count, options: $*" || return 255
  if [ -e "$run/test.jsonl" ]; then return; fi
  case $generator in
    mended) ;;
    published) set -- "$@" --model.rgb_norm true ;;
    *) echo "GENERATORS: expected mended or published, got $generator" >&2; return 255 ;;
  esac
  case $arm in
    stargan) set -- "$@" --model.lambda_tri 0 --model.lambda_sr 0 --model.lambda_cont 0 ;;
    smooth) ;;
    origin | centroid | pairwise) set -- "$@" --model.lambda_shr 1 --model.shrink "$arm" ;;
    mixup) set -- "$@" --model.lambda_mix 1 ;;
    mixup_image) set -- "$@" --model.lambda_mix_image 1 --model.lambda_mix_d 1 ;;
    both) set -- "$@" --model.lambda_shr 1 --model.shrink pairwise --model.lambda_mix 1 ;;
    *) echo "ARMS: expected those of the first lines of this file, got $arm" >&2; return 255 ;;
  esac
  if [ -e "$run/last.ckpt" ]; then set -- "$@" --ckpt_path "$run/last.ckpt"; fi
  .venv/bin/python -m gen fit -c "$config" --out "$run" --model.seed "$seed" --data.seed "$seed" \
    --trainer.enable_model_summary false "$@" >>"$run/log.txt" 2>&1
  .venv/bin/python scripts/claims/smooth_i2i.py "$OUT" "$count" "$run" >>"$run/log.txt" 2>&1
}

if [ ! -e "$OUT/judge/done" ]; then
  echo "$OUT/judge: training, see $OUT/judge.txt"
  mkdir -p "$OUT"
  resume=()
  if [ -e "$OUT/judge/last.ckpt" ]; then resume=(--ckpt_path last); fi
  .venv/bin/python -m gen fit -c configs/domain_classifier/heads64_cpu.yaml --model.img_size 32 \
    --data.img_size 32 --out "$OUT/judge" "${resume[@]}" >>"$OUT/judge.txt" 2>&1
  touch "$OUT/judge/done"
fi
sides=$(for generator in ${GENERATORS:-mended published}; do printf "$generator:%s " $arms; done)
each "$sides" "$@"
.venv/bin/python scripts/claims/smooth_i2i.py "$OUT" "$count" --seeds $seeds
