"""Evaluations of trained methods: one row per metric, each with its interval."""
