"""DataModules and data sets, found by name: `gen.data.NAME`, imported when they are asked for, and
`open`, which finds the one that a person types."""

import importlib
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


DRAWN = {"heads": "Heads", "movers": "Movers"}  # data sets without files, as commands name them
KINDS = {"domains": ("Domains", "heads"), "classes": ("Classes", "heads"), "clips": ("", "movers")}


def open(source: str | Path, kind: str = "domains", **options: Any):
    """The DataModule of what commands take as `--data`.

    Args:
        source: a folder, a zip, or the name of a data set that is drawn: `heads` (images), `movers`
            (clips).
        kind: what is wanted of it: images of `domains`, images of `classes`, or `clips`, in the
            layout of Cityscapes or KITTI-360.
        options: options of the DataModule; of those of files, a drawn one takes no `crop_pct` and
            no `max_objects`.

    Raises:
        ValueError: nothing, or a drawn data set of another kind.
    """
    (of_files, drawn), here = KINDS[kind], sys.modules[__name__]
    wanted = f"--data: expected a folder, a zip or `{drawn}`"
    if not source:
        raise ValueError(f"{wanted}, got nothing")
    if source in DRAWN:
        if source != drawn:
            raise ValueError(f"{wanted}, got `{source}`")
        files_only = ("crop_pct", "max_objects")
        return getattr(here, DRAWN[drawn])(
            **{k: v for k, v in options.items() if k not in files_only}
        )
    if kind == "clips":
        from gen.data.clips.kitti360 import is_kitti360

        of_files = "KITTI360" if is_kitti360(Path(source)) else "Cityscapes"
    return getattr(here, of_files)(str(source), **options)


def __getattr__(name: str) -> type:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_HOME)
