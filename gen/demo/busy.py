"""Handlers that show, while they run, that a region of the page is busy; see page.js."""

from collections.abc import Callable
from functools import partial

import gradio as gr

BEGIN = "(...values) => {{ window.busy('{0}', 1); return values.slice(0, {1}) }}"
END = "() => window.busy('{0}', -1)"


def on(region: str, event: Callable | list, fn: Callable, inputs, outputs, **options):
    """Binds a handler to an event, or to several; until it ends or fails, `region` is busy.

    `region` is the id of an element. The script runs just before each request, so also before one
    that waited for an earlier one.
    """
    count = len(inputs or []) if isinstance(inputs, list | None) else 1
    bind = partial(gr.on, event) if isinstance(event, list) else event
    begun = bind(fn, inputs, outputs, js=BEGIN.format(region, count), **options)
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    for ended in (begun.success, begun.failure):  # Gradio's `then` leaves out errors
        ended(None, js=END.format(region), **quiet)
    return begun


def starts(region: str) -> list[str]:
    """Classes of a button that begins requests for a region: it is off while the region is busy."""
    return [f"starts-{region}"]
