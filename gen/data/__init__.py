"""Data sets as DataModules: `Domains`, `Classes` (folders of images) and `Heads` (procedural)."""

import importlib

_HOME = {
    "Domains": "domains",
    "DomainImages": "domains",
    "Classes": "classes",
    "ClassImages": "classes",
    "Heads": "heads",
    "HeadImages": "heads",
}


def __getattr__(name: str) -> type:
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
