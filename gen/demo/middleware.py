"""Limits of the server: refuses, unread, paths that the page does not need and large bodies."""

import re
import time
from collections import deque

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gen.demo.validation import MAX_BYTES

KEPT_S = 3600  # seconds that uploads are kept
MOST_BYTES = 200 * 2**20  # of all kept uploads
MOST_BODY = 2**20  # of every other request
PATHS = re.compile(
    r"/?|/(assets|static|svelte)/.*|/(config|theme\.css|favicon\.ico|manifest\.json|login|logout)/?"
    r"|/gradio_api/(queue/(join|data)|upload|upload_progress|file=/.*|heartbeat/.*|cancel|reset"
    r"|run/predict|startup-events|info|app_id|user|login_check|theme\.css)/?"
)
IMAGE = re.compile(
    rb'content-disposition: form-data; name="files"; filename="[^"\r\n]*\.(png|jpe?g|webp|bmp)"',
    re.I,
)


class RequestLimits:
    """Allows the page's paths, bodies of 1 MB, uploads of one image of 10 MB, 200 MB an hour."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.uploads: deque[tuple[float, int]] = deque()  # time, number of bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path, body, bodies = scope["path"], b"", []
        uploads = path == "/gradio_api/upload" and scope["method"] == "POST"
        if not PATHS.fullmatch(path):
            return await PlainTextResponse("no such page", 404)(scope, receive, send)
        if scope["method"] not in ("GET", "HEAD"):
            most = MAX_BYTES + 4096 if uploads else MOST_BODY  # with names and boundaries of parts
            more = True
            while more and len(body) <= most:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            if len(body) > most:
                refusal = f"expected at most {most // 2**20} MB, got more; shrink it", 413
            else:
                refusal = self.refusal(body) if uploads else None
            if refusal:
                return await PlainTextResponse(*refusal)(scope, receive, send)
            bodies.append({"type": "http.request", "body": body, "more_body": False})

        async def again() -> Message:
            return bodies.pop() if bodies else await receive()

        async def count(message: Message) -> None:
            if message.get("status") == 200 and uploads:
                self.uploads.append((time.monotonic(), len(body)))
            await send(message)

        await self.app(scope, again, count)

    def refusal(self, body: bytes) -> tuple[str, int] | None:
        """Message and status for an upload that is refused; None for other uploads."""
        parts, now = re.findall(rb"(?i)content-disposition[^\r\n]*", body), time.monotonic()
        if len(parts) != 1 or not IMAGE.fullmatch(parts[0]):
            return "expected one PNG, JPEG, WebP or BMP, got another file", 415
        while self.uploads and self.uploads[0][0] < now - KEPT_S:
            self.uploads.popleft()
        if sum(size for _, size in self.uploads) + len(body) > MOST_BYTES:
            return "expected room for it, got a full folder; try again in an hour", 507
        return None
