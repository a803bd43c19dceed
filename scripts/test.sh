#!/usr/bin/env bash
# The test suite:  bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh test
# Tests run with sockets blocked, so what they need from outside is fetched now; without it they
# skip and say why.
.venv/bin/python -m gen.networks.perceptual || echo "no LPIPS weights: their tests will skip" >&2
.venv/bin/python -m gen.networks.backbones || echo "no weights of a backbone: their tests will skip" >&2
.venv/bin/python data_prep/emoji.py --size 64 --out data/emoji || echo "no emoji: their tests will skip" >&2
.venv/bin/python data_prep/emoji.py --layout classes --holdout openmoji --size 64 --out data/emoji_groups ||
  echo "no emoji groups: their tests will skip" >&2
.venv/bin/python data_prep/emoji.py --layout classes --ground clutter --holdout openmoji --size 64 \
  --out data/emoji_clutter || echo "no emoji on clutter: a trial of a claim will skip" >&2
PYTHONPATH=data_prep .venv/bin/python -c "import opencv_vtest; opencv_vtest.fetch()" ||
  echo "no pedestrian video: its test will skip" >&2
.venv/bin/python -c "from gen.export import site; site.runtime()" ||
  echo "no onnxruntime-web: tests of the page in a browser will skip" >&2
exec .venv/bin/python -m pytest -n "$(nproc)" --maxprocesses 4 --dist loadfile "$@"
