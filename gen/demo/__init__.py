"""One page in the browser: translate and interpolate, edit, click to move (`scripts/demo.py`).

Needs Gradio, extra `demo`; nothing else of gen imports this.
"""
