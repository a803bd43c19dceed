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
            alone.

    Raises:
        ValueError: an empty source, a generated data set of another kind, or no such class.
    """
    module, here = importlib.import_module(f"{__name__}.{kind}"), sys.modules[__name__]
    generated = module.GENERATED
    wanted = f"--data: expected a folder, a zip or `{generated}`"
    if not source:
        raise ValueError(f"{wanted}, got nothing")
    of_files = ("crop_pct", "alpha", "max_objects")
    other_options = {k: v for k, v in options.items() if k not in of_files}
    if source == generated:
        return getattr(here, generated.capitalize())(**other_options)
    if not Path(source).exists():
        if re.fullmatch(r"[\w.]+\.[A-Z]\w*", str(source)):
            try:
                cls = import_name(str(source), "a folder, a zip, or package.Class of a DataModule")
            except ValueError as error:
                raise ValueError(f"--data: {error}") from error
            return cls(**other_options)
        if str(source).capitalize() in __dir__():
            raise ValueError(f"{wanted}, got `{source}`")
    if kind in ("domains", "classes") and Path(source, "labels.csv").is_file():
        return here.Attributes(str(source), **other_options)
    return getattr(here, module.reader(Path(source)))(str(source), **options)
