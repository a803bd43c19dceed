#!/usr/bin/env bash
# Clone to pictures: install, prepare the emoji data, train, evaluate, report.
#   bash scripts/quickstart.sh [--steps N] [--data DIR] [--out DIR] [--from-scratch]
# Ctrl-C at any time: the same command continues. The path of the report is printed last.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/install.sh prep
exec .venv/bin/python scripts/quickstart.py "$@"
