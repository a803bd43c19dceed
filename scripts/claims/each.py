"""Calls `one SIDE SEED OPTIONS..`, a function of bash, for all sides and seeds: see runs.sh."""

import sys

from gen.commands import call_each

jobs, sides, seeds, *options = sys.argv[1:]
if int(jobs) < 1:
    sys.exit(f"JOBS: expected at least 1, got {jobs}")
job = ["bash", "-euc", 'one "$@"', "_"]
pairs = [(side, seed) for seed in seeds.split() for side in sides.split()]
sys.exit(max(call_each([[*job, *pair, *options] for pair in pairs], int(jobs)), key=abs, default=0))
