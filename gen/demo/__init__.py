"""One page in the browser, with a tab for each way to use a method (`gen demo`).

Needs Gradio, extra `demo`; no other part of gen imports this package. A tab is a module here, which
its task names in `gen.tasks`.
"""
