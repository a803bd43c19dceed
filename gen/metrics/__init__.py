"""Metrics: torchmetrics classes and their functional forms."""
