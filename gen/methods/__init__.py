"""Methods, one file each. `gen.methods.NAME` finds a method class in its file: no registration."""

import importlib
import re
from pathlib import Path


def _homes() -> dict[str, list[str]]:
    """Class -> the modules that define it, without importing one."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(__path__[0]).glob("*.py")):
        for name in re.findall(r"^class (\w+)", path.read_text("utf-8"), re.M):
            found.setdefault(name, []).append(path.stem)
    return found


def __getattr__(name: str) -> type:
    homes = _homes().get(name, []) if name[:1].isupper() else []
    if len(homes) > 1:
        raise ImportError(
            f"gen.methods: expected one class {name}, got one in each of {', '.join(homes)}; "
            "rename the copy, or make it a subclass"
        )
    if homes:
        return getattr(importlib.import_module(f"{__name__}.{homes[0]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    from gen.methods.base import GANMethod, Method

    kinds = {name: __getattr__(name) for name, homes in _homes().items() if len(homes) == 1}
    methods = (k for k, v in kinds.items() if issubclass(v, Method) and "__init__" in vars(v))
    return sorted(set(methods) - {GANMethod.__name__, Method.__name__})
