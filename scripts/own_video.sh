#!/usr/bin/env bash
# A video of your own to a model that moves what is in it: clips, training, evaluation, pictures.
#   bash scripts/own_video.sh street.mp4 [--masks DIR | --class car] [--held-out end|middle|begin]
#                             [--steps N] [--out DIR]
# Without masks the camera must stand still. Ctrl-C at any time: the same command continues.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."
. scripts/install.sh prep
cd "$here"
exec "$OLDPWD/.venv/bin/python" "$OLDPWD/scripts/own_video.py" "$@"
