# Sourced by quickstart.sh and test.sh: makes .venv and installs the package with extra $1, if needed.
export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=0 # spinning threads can be 15x slower on few cores
python=${PYTHON:-python3}
if [ ! -x .venv/bin/python ]; then
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
    echo "expected Python 3.10 or newer, got $("$python" --version 2>&1); set PYTHON=/path/to/python3" >&2
    exit 1
  }
  echo "making .venv"
  "$python" -m venv .venv
fi
stamp=.venv/installed-$1
if [ ! -e "$stamp" ] || [ setup.cfg -nt "$stamp" ]; then
  echo "installing the package and what it needs (torch for a GPU is 3 GB: minutes on a slow line)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$1]"
  touch "$stamp"
fi
