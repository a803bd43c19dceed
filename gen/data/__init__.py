"""DataModules and data sets, found by name: `gen.data.NAME`, imported when they are asked for."""

import importlib

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


def __getattr__(name: str) -> type:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_HOME)
