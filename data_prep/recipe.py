"""Shared parts of the recipes: their folders, written files, exit codes.

Exit codes: 0 done; 1 failed; 69 a registry or its client is missing; 130 interrupted.
"""

import errno
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from gen.files import UnavailableError, WeightsError, show_any_name, write_atomic

EXIT_UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h


def found(out: Path, recipe: dict, what: str) -> dict:
    """Manifest of `out`, {} for a new or empty folder; any other folder is refused.

    Args:
        out: folder of the data set.
        recipe: settings that the data set is made from, stored as `recipe` in the manifest.
        what: name of the data set, with its article.

    Raises:
        ValueError: `out` holds something else, or was made from another recipe.
    """
    if not out.exists() or (out.is_dir() and all(p.name[0] == "." for p in out.iterdir())):
        return {}
    try:
        manifest = json.loads((out / "manifest.json").read_bytes())
        got = dict(manifest["recipe"])
    except (OSError, ValueError, KeyError, TypeError):
        way_out = "choose another --out, or delete it"
        raise ValueError(f"{out}: expected a new folder or {what}; {way_out}") from None
    for key in recipe | got:
        if got.get(key) != recipe.get(key):
            raise ValueError(
                f"{out} holds another data set: expected {key} {recipe.get(key)}, got "
                f"{got.get(key)}; choose another --out, or delete it"
            )
    return manifest


def write_manifest(out: Path, manifest: dict) -> None:
    """Writes the manifest: first to claim the folder, last to mark it as complete."""
    write_atomic(out / "manifest.json", json.dumps(manifest, indent=1).encode())


def write_png(path: Path, image: Image.Image) -> None:
    """Writes a picture atomically."""
    buffer = io.BytesIO()
    image.save(buffer, "png")
    write_atomic(path, buffer.getvalue(), fsync=False)


def run(name: str, work: Callable[[], str]) -> int:
    """Runs `work`, prints its result or its error with the way out, and returns the exit code."""
    show_any_name()
    try:
        print(work())
        return 0
    except UnavailableError as error:
        return _stop(name, str(error), EXIT_UNAVAILABLE)
    except ImportError as error:
        return _stop(name, f'{error}: pip install -e ".[prep]" brings it')
    except (WeightsError, ValueError) as error:
        return _stop(name, str(error))
    except OSError as error:
        way = "free some space, then " if error.errno == errno.ENOSPC else ""
        return _stop(name, f"{error}: {way}run the same command again, it continues")
    except KeyboardInterrupt:
        return _stop(name, "interrupted: run the same command again, it continues", 130)


def _stop(name: str, message: str, code: int = 1) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return code
