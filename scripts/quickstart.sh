#!/usr/bin/env bash
# Clone to pictures: install, prepare the emoji data, train, evaluate, report.
#   bash scripts/quickstart.sh [--steps N] [--data DIR] [--out DIR] [--from-scratch]
#   bash scripts/quickstart.sh --demo [options of gen demo]    the page in the browser, at once
# Ctrl-C at any time: the same command continues. The path of the report is printed last.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1-}" = --demo ]; then
  shift
  . scripts/install.sh prep,demo
  .venv/bin/python -m gen.networks.perceptual || echo "no LPIPS weights: no smoothness, no photos" >&2
  .venv/bin/python data_prep/emoji.py --size 64 --out data/emoji || echo "no emoji: drawn examples" >&2
  exec .venv/bin/python -m gen demo "$@"
fi
. scripts/install.sh prep
exec .venv/bin/python scripts/quickstart.py "$@"
