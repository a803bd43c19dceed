#!/usr/bin/env bash
# Table "Systems" of the README: does each system and Python have wheels of all requirements and
# extras? One line for each, without installing any; needs uv (`pip install uv`) and takes minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v uv >/dev/null || { echo "expected uv, got none: pip install uv" >&2; exit 1; }
export MACOSX_DEPLOYMENT_TARGET=14.0 # of torch's wheels
required=$(python3 -c 'import configparser as c; s = c.ConfigParser(); s.read("setup.cfg")
print(s["options"]["install_requires"], s["options.extras_require"]["test"])') # test has all extras
for system in {x86_64,aarch64}-unknown-linux-gnu {aarch64,x86_64}-apple-darwin x86_64-pc-windows-msvc; do
  for version in 3.10 3.11 3.12 3.13 3.14; do
    found=$(uv pip compile - --quiet --no-header --no-annotate --only-binary :all: \
      --python-platform "$system" --python-version "$version" <<<"$required" 2>&1) &&
      answer="$(grep -c == <<<"$found") wheels, $(grep ^torch== <<<"$found")" ||
      answer="no: $(tr -s ' \n' ' ' <<<"$found" | cut -c 1-200)"
    echo "$system $version $answer"
  done
done
