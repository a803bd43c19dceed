"""DataModules: `Domains`, `Classes` (images), `Cityscapes`, `KITTI360` (clips), `Heads`, `Movers`
(drawn), `Codes`."""

import importlib

_HOME = {
    "Domains": "domains",
    "DomainImages": "domains",
    "Classes": "classes",
    "Codes": "codes",
    "ClassImages": "classes",
    "Heads": "heads",
    "HeadImages": "heads",
    "Movers": "movers",
    "MoverClips": "movers",
    "Cityscapes": "clips.cityscapes",
    "KITTI360": "clips.kitti360",
}


def __getattr__(name: str) -> type:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_HOME)
