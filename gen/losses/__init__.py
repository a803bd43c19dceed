"""Losses as pure functions of tensors: one family a file, each with its equation and source."""
