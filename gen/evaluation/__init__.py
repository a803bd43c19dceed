"""Evaluations: how good a trained method is, one row a metric, each with its interval."""
