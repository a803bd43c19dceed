"""The page, and how it is served: to this machine alone, with limits, from a folder of its own."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

FOLDER = tempfile.mkdtemp(prefix="gen-demo-")  # of uploads and downloads; removed at the end
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
os.environ.update(GRADIO_TEMP_DIR=FOLDER, GRADIO_ANALYTICS_ENABLED="False")

import gradio as gr  # noqa: E402  (reads the environment)
import torch  # noqa: E402

from gen.demo import edit, move, translate  # noqa: E402
from gen.demo.inputs import MAX_BYTES, QUIETLY, Page  # noqa: E402
from gen.demo.player import source  # noqa: E402
from gen.networks.perceptual import LPIPS  # noqa: E402

WAITING, SESSIONS = 32, 64  # requests in the queue, people whose state is kept
FONTS = ["Avenir Next", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"]  # none is fetched


def build(
    translator, editor, judge, mover, lpips: LPIPS | None, emoji: Path = Path("data/emoji/val")
) -> gr.Blocks:
    """The page of a translator, an editor of codes with its judge, and a `ClickToMove`.

    Args:
        lpips: Measures paths; None: they are shown without numbers.
        emoji: A folder of examples to translate; drawn heads where it is not.
    """
    options = dict(title="gen", analytics_enabled=False, delete_cache=(600, 3600))
    with Page(**options) as page:
        gr.Markdown("# gen\nTranslate, edit, click to move. All of it runs on this machine.")
        with gr.Tab("Translate"):
            examples = translate.examples(emoji, Path(FOLDER))
            page.load(*translate.tab(translator, lpips, examples), **QUIETLY)
        with gr.Tab("Edit"):
            page.load(*edit.tab(editor, judge), **QUIETLY)
        with gr.Tab("Click to move"):
            move.tab(mover)
    return page.queue(max_size=WAITING, default_concurrency_limit=1)


def serve(page: gr.Blocks, port: int | None, share: bool, auth: str) -> list[str]:
    """Serves it on 127.0.0.1, and returns its address, and the public one of `share`.

    Args:
        port: None: the first free one from 7860 on.
        share: Also through a tunnel of Gradio's, to anyone who knows the link and the password.
        auth: USER:PASSWORD, or empty.

    Raises:
        ValueError: share without auth.
    """
    user, _, password = auth.partition(":")
    if (share or auth) and not (user and password):
        raise ValueError(f"auth: expected USER:PASSWORD{' with --share' * share}, got {auth!r}")
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))  # the rest serves
    page.launch(
        server_name="127.0.0.1", server_port=port, share=share,
        auth=(user, password) if auth else None, max_file_size=MAX_BYTES,
        state_session_capacity=SESSIONS, enable_monitoring=False, run_history=False,
        mcp_server=False, ssr_mode=False, pwa=False, show_error=True, footer_links=[],
        theme=gr.themes.Base(font=FONTS, font_mono=["ui-monospace", "monospace"]),
        css=source("page.css"), quiet=True, prevent_thread_lock=True,
    )  # fmt: skip
    return [page.local_url, page.share_url] if share else [page.local_url]
