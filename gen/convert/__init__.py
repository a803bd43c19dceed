"""Published weights as checkpoints of this package: read as data, checked, never run."""
