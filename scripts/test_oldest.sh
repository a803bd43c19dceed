#!/usr/bin/env bash
# Tests with the oldest release of every dependency that setup.cfg allows, in an environment of its
# own: those that touch these most, or what is given, as `tests` for all; test.sh has the newest.
#   bash scripts/test_oldest.sh [pytest arguments]
#   bash scripts/test_oldest.sh --dependencies     only installs these, all but the package itself
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0
stamp=.venv-oldest/installed
if [ ! -e "$stamp" ] || [ setup.cfg -nt "$stamp" ] || [ constraints-oldest.txt -nt "$stamp" ]; then
  [ -x .venv-oldest/bin/python ] || "${PYTHON:-python3}" -m venv .venv-oldest
  pip=(.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check)
  "${pip[@]}" -r constraints-oldest.txt
  [ "${1:-}" != --dependencies ] || exit 0
  "${pip[@]}" -c constraints-oldest.txt -e ".[test]"
  touch "$stamp"
fi
[ "${1:-}" != --dependencies ] || exit 0
[ $# -gt 0 ] || set -- tests/viz tests/commands/test_cli.py tests/data/test_{decoding,images}.py \
  tests/demo/test_demo.py tests/files/test_weights.py tests/losses/test_spatial_entropy.py \
  tests/metrics/test_{fidelity,smoothness}.py tests/networks/test_perceptual.py
exec .venv-oldest/bin/python -m pytest -n "$(nproc)" --maxprocesses 4 --dist worksteal "$@"
