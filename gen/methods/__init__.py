"""Methods, one file each. `gen.methods.NAME` finds a method class in its file: no registration."""

import importlib
import pkgutil


def __getattr__(name: str) -> type:
    if name[:1].isupper():
        for info in pkgutil.iter_modules(__path__):
            module = importlib.import_module(f"{__name__}.{info.name}")
            found = vars(module).get(name)
            if isinstance(found, type) and found.__module__ == module.__name__:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
