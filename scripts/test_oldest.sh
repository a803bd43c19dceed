#!/usr/bin/env bash
# Tests with the oldest release of every dependency that setup.cfg allows, in an environment of its
# own: those that touch these most, or what is given, as `tests` for all; test.sh has the newest.
#   bash scripts/test_oldest.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0
stamp=.venv-oldest/installed
if [ ! -e "$stamp" ] || [ setup.cfg -nt "$stamp" ] || [ constraints-oldest.txt -nt "$stamp" ]; then
  "${PYTHON:-python3}" -m venv .venv-oldest
  .venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
    -c constraints-oldest.txt -e ".[test]"
  touch "$stamp"
fi
[ $# -gt 0 ] || set -- tests/test_{cli,cityscapes,decoding,demo,data_prep,fidelity,images,metrics,perceptual,safety,spatial_entropy,stills,video,viz,weights}.py
exec .venv-oldest/bin/python -m pytest -n "$(nproc)" --maxprocesses 4 --dist loadfile "$@"
