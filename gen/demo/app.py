"""The page and its server: for this machine alone, with limits, in a folder of its own."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

FOLDER = tempfile.mkdtemp(prefix="gen-demo-")  # for all written files; removed at the end
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
os.environ.update(GRADIO_TEMP_DIR=FOLDER, GRADIO_ANALYTICS_ENABLED="False")

import gradio as gr  # noqa: E402  (reads the environment)
import torch  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.middleware.trustedhost import TrustedHostMiddleware  # noqa: E402

from gen.demo import edit, translate  # noqa: E402
from gen.demo.middleware import KEPT_S, RequestLimits  # noqa: E402
from gen.demo.player import source  # noqa: E402
from gen.demo.validation import MAX_BYTES, Page  # noqa: E402
from gen.networks.perceptual import LPIPS  # noqa: E402
from gen.tasks import TABS  # noqa: E402

WAITING, SESSIONS = 32, 64  # requests in the queue, sessions whose state is kept
PLAIN = gr.themes.Base(
    font=["Avenir Next", "Segoe UI", "Helvetica Neue", "Arial", "sans-serif"],  # no font is fetched
    font_mono=["ui-monospace", "monospace"],
).set(body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400")


def build(
    methods: Mapping[str, torch.nn.Module],
    about: Mapping[str, str],
    lpips: LPIPS | None,
    emoji: Path = Path("data/emoji/val"),
) -> gr.Blocks:
    """The page with all tabs of `gen.tasks.TABS`.

    Args:
        methods: method for each role of the tabs; a role without a shipped one may be left out.
        about: text on each method, in Markdown; a tab shows the text of its first method.
        lpips: LPIPS network that measures paths; None: paths are shown without numbers.
        emoji: folder of examples to translate; without it, the examples are drawn heads.
    """
    options = dict(title="gen", analytics_enabled=False, delete_cache=(600, KEPT_S))
    more = {
        translate.__name__: dict(lpips=lpips, examples=translate.examples(emoji, Path(FOLDER))),
        edit.__name__: dict(lpips=lpips),
    }
    with Page(**options) as page:
        titles = ", ".join(tab.title for tab in TABS).capitalize()
        gr.Markdown(f"# gen\n{titles}. All of it runs on this machine.")
        gr.HTML('<p role="status"></p>', elem_id="working")  # for screen readers, see page.js
        for module, title, roles in TABS:
            shown = [methods[r] if row.checkpoint else methods.get(r) for r, row in roles.items()]
            words = about[next(iter(roles))]
            with gr.Tab(title):
                import_module(module).tab(page, *shown, words, **more.get(module, {}))
    return page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)


def serve(page: gr.Blocks, port: int | None, share: bool, auth: str) -> list[str]:
    """Serves the page on 127.0.0.1; returns its address and, with `share`, the public address.

    Args:
        port: port number; None: the first free one from 7860 on.
        share: also serve through a tunnel of Gradio's, to anyone who knows the link and the
            password.
        auth: login as USER:PASSWORD, or empty.

    Raises:
        ValueError: share without auth, or a port that is taken.
    """
    user, _, password = auth.partition(":")
    if (share or auth) and not (user and password):
        got = "not both" if auth else "none"
        raise ValueError(f"auth: expected USER:PASSWORD{' with --share' * share}, got {got}")
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))  # the other cores serve
    hosts = ["127.0.0.1", "localhost", *["*.gradio.live"] * share]  # no other name may lead here
    doors = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(RequestLimits)]
    options = dict(
        server_name="127.0.0.1", server_port=port, share=share, app_kwargs={"middleware": doors},
        auth=(user, password) if auth else None, max_file_size=MAX_BYTES,
        state_session_capacity=SESSIONS, enable_monitoring=False, run_history=False,
        mcp_server=False, ssr_mode=False, pwa=False, show_error=True, footer_links=[],
        theme=PLAIN, css=source("page.css"), head=source("page.js"), quiet=True,
        prevent_thread_lock=True,
    )  # fmt: skip
    tempfile.tempdir = FOLDER
    try:
        page.launch(**options)
    except (OSError, OverflowError):
        where = "7860 .. 7959" if port is None else port
        raise ValueError(f"port: expected a free one, got {where}; give another --port") from None
    return [page.local_url, page.share_url] if share else [page.local_url]
