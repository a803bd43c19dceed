# What the claims share, to be sourced: a claim defines `one SIDE SEED OPTIONS..`, which calls
# `begin`, exports what that reads, and calls `each`.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. scripts/install.sh prep
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
seeds=${SEEDS:-1 2 3}

begin() { # RUN CONFIG WHAT: the run's folder; if it was begun with something else, 255: no other begins
  mkdir -p "$1"
  { echo "$3"; grep -v '^#' "$2"; } >"$1/options.new"
  if [ -e "$1/options" ] && ! cmp -s "$1/options" "$1/options.new"; then
    echo "$1: expected the config and options it was begun with, got others; choose another OUT:" >&2
    diff "$1/options" "$1/options.new" >&2
    return 255
  fi
  mv "$1/options.new" "$1/options"
  [ -e "$1/test.jsonl" ] || echo "$1: training, see $1/log.txt"
}

each() { # "SIDES" OPTIONS..: all sides of one seed, then of the next, JOBS at once
  export -f begin one
  .venv/bin/python scripts/claims/each.py "${JOBS:-$(nproc)}" "$1" "$seeds" "${@:2}"
}
