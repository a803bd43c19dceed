"""Metrics: torchmetrics classes and their functional forms; `gen.metrics.NAME` finds each."""

from gen import lazy

__getattr__, __dir__ = lazy(__name__, inner=True)
