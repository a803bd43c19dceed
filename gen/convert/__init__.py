"""Converts published weights to checkpoints of this package: read as data, checked, never run."""
