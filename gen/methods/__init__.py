"""Methods, one file each; `gen.methods.NAME` finds a method class in its file: no registration."""

from gen import lazy_classes


def _is_method(cls: type) -> bool:
    from gen.methods.base import GANMethod, Method

    return issubclass(cls, Method) and "__init__" in vars(cls) and cls not in (Method, GANMethod)


__getattr__, __dir__ = lazy_classes(__name__, _is_method)
