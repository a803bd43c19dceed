"""Trained methods at work: what commands, demo, callbacks and reports ask of them."""
