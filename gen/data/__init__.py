"""DataModules and data sets: `gen.data.NAME` imports one by name, `open` makes the DataModule of a
`--data` option."""

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

_PUBLIC = {  # module -> its public classes
    "domains": ("Domains", "DomainImages"),
    "classes": ("Classes", "ClassImages"),
    "codes": ("Codes",),
    "heads": ("Heads", "HeadImages"),
    "movers": ("Movers", "MoverClips"),
    "clips.cityscapes": ("Cityscapes",),
    "clips.kitti360": ("KITTI360",),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}


DRAWN = {"heads": "Heads", "movers": "Movers"}  # generated data sets, as commands name them
KINDS = {"domains": ("Domains", "heads"), "classes": ("Classes", "heads"), "clips": ("", "movers")}


def open(source: str | Path, kind: str = "domains", **options: Any):
    """DataModule for the `--data` option of a command.

    Args:
        source: a folder, a zip, the name of a generated data set: `heads` (images), `movers`
            (clips); or a DataModule outside this package, such as "mine.Stripes".
        kind: wanted kind of data: images of `domains`, images of `classes`, or `clips`, in the
            layout of Cityscapes or KITTI-360.
        options: options of the DataModule; `crop_pct` and `max_objects` are for files alone.

    Raises:
        ValueError: an empty source, a generated data set of another kind, or no such class.
    """
    (of_files, drawn), here = KINDS[kind], sys.modules[__name__]
    wanted = f"--data: expected a folder, a zip or `{drawn}`"
    if not source:
        raise ValueError(f"{wanted}, got nothing")
    drawn_options = {k: v for k, v in options.items() if k not in ("crop_pct", "max_objects")}
    if source in DRAWN:
        if source != drawn:
            raise ValueError(f"{wanted}, got `{source}`")
        return getattr(here, DRAWN[drawn])(**drawn_options)
    if re.fullmatch(r"[\w.]+\.[A-Z]\w*", str(source)) and not Path(source).exists():
        return _outside(str(source))(**drawn_options)
    if kind == "clips":
        from gen.data.clips.kitti360 import is_kitti360

        of_files = "KITTI360" if is_kitti360(Path(source)) else "Cityscapes"
    return getattr(here, of_files)(str(source), **options)


def _outside(name: str) -> type:
    """Imports a class by its path, also from the folder of the running script."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    place, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(place), last)
    except (ImportError, AttributeError, ValueError) as error:
        wanted = "--data: expected a folder, a zip, or package.Class of a DataModule"
        raise ValueError(f"{wanted}, got {name}: {error}") from error


def __getattr__(name: str) -> type:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_HOME)
