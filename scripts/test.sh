#!/usr/bin/env bash
# The test suite:  bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh test
# Tests run with sockets blocked, so what they need from outside is fetched now; without it they
# skip and say why.
emoji() {
  .venv/bin/python data_prep/emoji.py --size 64 "$@" || echo "no ${!#}: tests that need it will skip" >&2
}
emoji --out data/emoji & # a minute each to draw, so at once
emoji --layout classes --holdout openmoji --out data/emoji_groups &
emoji --layout classes --ground clutter --holdout openmoji --out data/emoji_clutter &
.venv/bin/python -m gen.networks.perceptual || echo "no LPIPS weights: their tests will skip" >&2
.venv/bin/python -m gen.networks.backbones || echo "no weights of a backbone: their tests will skip" >&2
.venv/bin/python data_prep/avatars.py --train 8 --val 2 --out data/avatars_few ||
  echo "no avatars: their tests will skip" >&2
PYTHONPATH=data_prep .venv/bin/python -c "import opencv_vtest; opencv_vtest.fetch()" ||
  echo "no pedestrian video: its test will skip" >&2
.venv/bin/python -c "from gen.export import site; site.runtime()" ||
  echo "no onnxruntime-web: tests of the page in a browser will skip" >&2
wait
# worksteal: tests stay in the order of their files, and a worker that is done takes from the other
exec .venv/bin/python -m pytest -n "$(nproc)" --maxprocesses 4 --dist worksteal "$@"
