"""Networks, one family per file."""

from gen import lazy

__getattr__, __dir__ = lazy(__name__)
