"""What the server refuses before it is stored: other files than images, and too much of them."""

import re
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gen.demo.inputs import MAX_BYTES

MOST_BYTES = 200 * 2**20  # of all that is kept for everybody
SUFFIXES = (b".png", b".jpg", b".jpeg", b".webp", b".bmp")


class Uploads:
    """One image an upload, of at most 10 MB; of all of them some 200 MB. No links to a state."""

    def __init__(self, app: ASGIApp, folder: str) -> None:
        self.app, self.folder = app, Path(folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").rstrip("/")
        if path.endswith("/deep_link"):
            return await PlainTextResponse("no such page", 404)(scope, receive, send)
        if not path.endswith("/upload"):
            return await self.app(scope, receive, send)
        body, more = b"", True
        while more and len(body) <= MAX_BYTES + 4096:  # names and edges of parts
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if refusal := self.refusal(body, more):
            return await PlainTextResponse(*refusal)(scope, receive, send)

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)

    def refusal(self, body: bytes, more: bool) -> tuple[str, int] | None:
        names = re.findall(rb'(?i)content-disposition:[^\r\n]*filename="([^"]*)"', body)
        if more or len(body) > MAX_BYTES + 4096:
            return f"expected at most {MAX_BYTES // 2**20} MB, got more; shrink it", 413
        if len(names) != 1 or not names[0].lower().endswith(SUFFIXES):
            return "expected one PNG, JPEG, WebP or BMP, got another file", 415
        if sum(f.stat().st_size for f in self.folder.rglob("*") if f.is_file()) > MOST_BYTES:
            return "expected room for it, got a full folder; try again in an hour", 507
        return None
