"""gen: smooth image and video generation research in PyTorch Lightning."""

from __future__ import annotations

import functools
import glob
import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gen.methods.base import Method

__version__ = "0.1.0"


def load(path: str | Path, device: str = "cpu", method: type[Method] | str = "") -> Method:
    """Loads a trained method for inference from a `.safetensors` or a Lightning `.ckpt` file.

    `method.translate(x, y_trg, z=...)` and its kin use the averaged weights. Nothing in the file
    is executed, and it can only name methods of this package.

    Args:
        path: path of the file, or of the folder of a run; or the name of a checkpoint that comes
            with this package, such as "smooth_i2i_emoji64", or on the Hugging Face Hub, such as
            "hf://owner/name" or "hf://owner/name@revision".
        device: device of the method: cpu, cuda, cuda:1, ..
        method: class of a method outside this package, or its path, such as "mine.Mine".

    Raises:
        gen.files.WeightsError: the file is no checkpoint of a method; expected and got.
        ValueError: no such device.
    """
    from gen.checkpoint import check_device
    from gen.methods.loading import load

    check_device(device)
    return load(path, method).to(device).eval()


def import_name(name: str, wanted: str) -> Any:
    """Imports an object by its path, such as "mine.Mine", also from the folder of a running script.

    Raises:
        ValueError: there is no such object; says what was `wanted`.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    place, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(place), last)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"expected {wanted}, got {name}: {error}") from error


def lazy(
    package: str, *public: str, inner: bool = False
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """(__getattr__, __dir__) of a package that lists its modules and imports them on demand.

    Args:
        package: name of the package.
        public: names that the package's own file defines, to list as well.
        inner: also give the functions and classes that one module alone defines, by their names.
    """
    module = sys.modules[package]

    def modules() -> set[str]:
        found = {info.name for info in pkgutil.iter_modules(module.__path__)}
        return {name for name in found if not name.startswith("_")}

    def single() -> dict[str, str]:
        """Name -> the only module that defines it."""
        found = homes(package, "class|def") if inner else {}
        return {name: places[0] for name, places in found.items() if len(places) == 1}

    def get(name: str) -> Any:
        if name in modules():
            return importlib.import_module(f"{package}.{name}")
        if name[:1] != "_" and (place := single().get(name)):
            return getattr(importlib.import_module(f"{package}.{place}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted(modules() | {*public} | {name for name in single() if name[0] != "_"})

    return get, names


def homes(package: str, kind: str) -> dict[str, list[str]]:
    """Names that the modules of a package define -> these modules, none of which is imported.

    Args:
        package: name of the package; the names of the modules are relative to it.
        kind: regular expression of keywords, such as "class|def".
    """
    root, found = sys.modules[package].__path__[0], {}
    for name in sorted(glob.glob("**/*.py", root_dir=root, recursive=True)):
        parts = name[: -len(".py")].split(os.sep)
        if not all(map(str.isidentifier, parts)):
            continue  # a copy that an editor keeps, such as .ipynb_checkpoints/x-checkpoint.py
        home, path = ".".join(parts).removesuffix(".__init__"), os.path.join(root, name)
        for word in _defined(path, os.stat(path).st_mtime_ns, kind):
            found.setdefault(word, []).append(home)
    return found


@functools.cache
def _defined(path: str, changed: int, kind: str) -> list[str]:
    """Names that a file defines; it is read again once its time of change is another."""
    return re.findall(rf"^(?:{kind}) (\w+)[(:]", Path(path).read_text("utf-8"), re.M)


def lazy_classes(
    package: str, is_public: Callable[[type], bool]
) -> tuple[Callable[[str], type], Callable[[], list[str]]]:
    """(__getattr__, __dir__) of a package that finds each class in its file: no registration.

    Args:
        package: name of the package.
        is_public: True for a class that `dir` lists.
    """

    def get(name: str) -> type:
        places = homes(package, "class").get(name, []) if name[:1].isupper() else []
        if len(places) > 1:
            raise ImportError(
                f"{package}: expected one class {name}, got one in each of {', '.join(places)}; "
                "rename the copy, or make it a subclass"
            )
        if places:
            return getattr(importlib.import_module(f"{package}.{places[0]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        single = (name for name, places in homes(package, "class").items() if len(places) == 1)
        return sorted(name for name in single if name[0] != "_" and is_public(get(name)))

    return get, names


__getattr__, __dir__ = lazy(__name__, "load")
