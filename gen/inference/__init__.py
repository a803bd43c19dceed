"""Inference with trained methods, for commands, demo, callbacks and reports."""
