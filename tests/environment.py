"""An environment of a wheel: Python, the wheel, what it requires, and nothing else."""

import os
import subprocess
import sys
import venv
from collections import defaultdict
from importlib.metadata import distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make(folder: Path, wheel: Path, requirements: list[str]) -> Path:
    """Makes an environment, installs a wheel in it, and returns its Python.

    What `pip install WHEEL` would fetch and write, 5 GB in 90 s on an idle machine, lies beside
    these tests already. So it is linked from there, and nothing else is: what setup.cfg forgets is
    missing here, too. Then pip installs the wheel and all that it requires without an index: it
    fails if something of that is not there in the right version.

    Args:
        folder: new folder of the environment.
        wheel: file to install.
        requirements: what the wheel requires.
    """
    venv.create(folder, symlinks=True)  # without pip
    [site] = folder.glob("lib/*/site-packages")
    names, owners = required(requirements), defaultdict(set)
    for dist in distributions():
        for top in files(dist.name):
            owners[top].add(canonicalize_name(dist.name))
    for name in names:
        for top, inner in files(name).items():
            for file in [top] if owners[top] <= names else inner:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                if not (site / file).exists():
                    (site / file).symlink_to(distribution(name).locate_file(file))
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "install", "--no-index"]
    own = {"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull}  # which may name more places
    subprocess.run([*pip, str(wheel)], check=True, env=own)
    return python


def required(requirements: list[str]) -> set[str]:
    """Names of all distributions that requirements, with their extras, lead to."""
    found: dict[str, set[str]] = {}  # name -> its extras; "" for the distribution itself
    waiting = [*map(Requirement, requirements)]
    while waiting:
        wanted = waiting.pop()
        extras = found.setdefault(canonicalize_name(wanted.name), set())
        new = {"", *wanted.extras} - extras
        extras |= new
        for line in map(Requirement, distribution(wanted.name).requires or ()):
            if any(not line.marker or line.marker.evaluate({"extra": extra}) for extra in new):
                waiting.append(line)
    return {*found}


def files(name: str) -> dict[str, list[str]]:
    """Files of a distribution in site-packages, by the folder or file there that has them."""
    found = defaultdict(list)
    for line in (distribution(name).read_text("RECORD") or "").splitlines():
        file = line.rsplit(",", 2)[0].strip('"')
        found[file.partition("/")[0]].append(file)
    found.pop("..", None)  # commands
    return found
