"""Metrics: torchmetrics classes and their functional forms."""

from gen import lazy

__getattr__, __dir__ = lazy(__name__)
