"""Graphs of trained methods for other runtimes: torch.export, ONNX, a page without a server.

A task of gen/tasks.py names the module here that cuts its methods into graphs.
"""
