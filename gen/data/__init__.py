"""DataModules and data sets; `gen.data.NAME` finds a class in its file: no registration.

`open` makes the DataModule of a `--data` option.
"""

import importlib
import re
import sys
from inspect import isabstract
from pathlib import Path
from typing import Any

from gen import import_name, lazy_classes


def _is_data_module(cls: type) -> bool:
    from gen.data.base import ImageData

    return issubclass(cls, ImageData) and not isabstract(cls)


__getattr__, __dir__ = lazy_classes(__name__, _is_data_module)


def open(source: str | Path, kind: str = "domains", **options: Any):
    """DataModule for the `--data` option of a command.

    Args:
        source: a folder, a zip, the name of a generated data set such as `heads`; or a DataModule
            outside this package, such as "mine.Stripes".
        kind: module of this package for the wanted kind of data: its `GENERATED` names the
            generated data set, its `reader` chooses the class that reads files.
        options: options of the DataModule; `crop_pct`, `alpha` and `max_objects` are for files
            alone, and `crop_pct` below 1 for `Classes` alone.

    Raises:
        ValueError: an empty source, a generated data set of another kind, no such class, or a
            crop that the data has not.
    """
    module, here = importlib.import_module(f"{__name__}.{kind}"), sys.modules[__name__]
    generated = module.GENERATED
    wanted = f"--data: expected a folder, a zip or `{generated}`"
    if not source:
        raise ValueError(f"{wanted}, got nothing")
    place, dropped = (), ("crop_pct", "alpha", "max_objects")
    if source == generated:
        make = getattr(here, generated.capitalize())
    elif not Path(source).exists() and re.fullmatch(r"[\w.]+\.[A-Z]\w*", str(source)):
        try:
            make = import_name(str(source), "a folder, a zip, or package.Class of a DataModule")
        except ValueError as error:
            raise ValueError(f"--data: {error}") from error
    elif not Path(source).exists() and str(source).capitalize() in __dir__():
        raise ValueError(f"{wanted}, got `{source}`")
    else:
        from gen.data.attributes import is_labelled
        from gen.data.layout import as_root

        labelled = kind in ("domains", "classes") and is_labelled(as_root(source))
        place, dropped = (str(source),), ("crop_pct",) if labelled else ()
        make = getattr(here, "Attributes" if labelled else module.reader(Path(source)))
    if "crop_pct" in dropped and (crop := options.get("crop_pct", 1)) != 1:
        raise ValueError(f"--crop-pct: expected 1, as {source} is not cropped, got {crop}")
    return make(*place, **{k: v for k, v in options.items() if k not in dropped})
