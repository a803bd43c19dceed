"""A real browser that visits the demo, from opening a tab to a downloaded result.

Pictures of every step are kept in runs/demo, and a GIF of each tab.
"""

import base64
import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw

from demo_server import ROOT
from gen import viz
from gen.data import Heads
from runs import rows

KEPT = ROOT / "runs" / "demo"
PHONE = 390, 844
TABS = {  # what each shows first, and the height of its film
    "Translate": ("#translated .view", 1000),
    "Edit": ("#edited .view", 860),
} | rows("TABS")
NUMBER = re.compile(r"perceptual smoothness (0\.\d+)")


class Visit:
    """A page in a browser, and the film of what is done there."""

    def __init__(self, browser, address: str, tab: str, size=None):
        first, height = TABS[tab]
        width, height = size or (1180, height)
        context = browser.new_context(viewport={"width": width, "height": height})
        self.page, self.film, self.mouse = context.new_page(), [], None
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.outside(request.url, address))
        self.page.on("response", lambda answer: self.refused(answer.status, answer.url))
        start = time.monotonic()
        self.page.goto(address)
        if tab != "Translate":
            self.page.get_by_role("tab", name=tab).click()
        self.page.locator(first).wait_for(timeout=30_000)
        self.until(lambda: self.array(first)[..., 3].any(), "its first picture")
        self.seconds = time.monotonic() - start

    def outside(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.problems.append(f"asked {url}")

    def refused(self, status: int, url: str) -> None:
        if status >= 400:
            self.problems.append(f"{status} of {url}")

    def until(self, true, what: str, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"{what} did not come"
            self.page.wait_for_timeout(50)

    def shot(self, times: int = 1) -> None:
        """The window for the film, with the mouse drawn into it."""
        picture = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        if self.mouse:
            shape = (0, 0), (0, 20), (5, 16), (9, 24), (12, 23), (8, 15), (14, 14)
            outline = [(self.mouse[0] + x, self.mouse[1] + y) for x, y in shape]
            ImageDraw.Draw(picture).polygon(outline, "black", "white", 2)
        self.film += [picture.resize((picture.width // 2, picture.height // 2))] * times

    def move(self, x: float, y: float) -> None:
        self.page.mouse.move(x, y, steps=3)
        self.mouse = x, y

    def pixels(self, selector: str) -> str:
        return self.page.locator(selector).evaluate("canvas => canvas.toDataURL()")

    def array(self, selector: str) -> np.ndarray:
        """(H, W, RGBA) of a canvas."""
        png = base64.b64decode(self.pixels(selector).split(",")[1])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(int)

    def changed(self, selector: str, before: str, seconds: float = 60) -> str:
        """The pixels of a canvas when they are others."""
        self.until(lambda: self.pixels(selector) != before, f"a change of {selector}", seconds)
        return self.pixels(selector)

    def count(self, selector: str, colour: tuple[int, int, int]) -> int:
        """Pixels of a canvas that have exactly this colour."""
        return int((self.array(selector)[..., :3] == colour).all(2).sum())

    def slide(self, player: str, *shares: float) -> list[str]:
        """Drags the slider of a player; what it shows at each place, before the mouse is let go."""
        box, seen = self.page.locator(f"{player} .at").bounding_box(), []
        for share in shares:
            x = box["x"] + box["width"] * (0.01 + 0.98 * share)
            self.move(x, box["y"] + box["height"] / 2)
            if not seen:
                self.page.mouse.down()
            seen.append(self.pixels(f"{player} .view"))
            self.shot()
        self.page.mouse.up()
        return seen

    @contextmanager
    def waiting(self) -> Iterator[list]:
        """Requests wait for the end of the block, then they are made; the list of those."""
        held, pattern = [], "**/queue/join*"
        self.page.route(pattern, lambda route: held.append(route))
        yield held
        for route in held:
            route.continue_()
        self.page.unroute(pattern)

    def ends(self, player: str) -> tuple[np.ndarray, np.ndarray]:
        """The first and the last frame of a player."""
        frames, at = [], self.page.locator(f"{player} .at")
        for key in ("Home", "End"):
            at.press(key)
            frames.append(self.array(f"{player} .view")[..., :3])
        return frames[0], frames[1]

    def smoothness(self) -> float:
        """The number below the strip, when it is there."""
        self.page.get_by_text(NUMBER).wait_for(timeout=60_000)
        return float(NUMBER.search(self.page.locator("#translated figcaption").inner_text())[1])

    def enter(self, name: str, value: float) -> None:
        """Types a number into the last field of this name."""
        field = self.page.get_by_role("spinbutton", name=name).last
        field.fill(str(value))
        field.press("Tab")

    def upload(self, field: str, file: Path) -> None:
        self.page.locator(f"{field} input[type=file]").set_input_files(file)

    def download(self, name: str) -> Path:
        with self.page.expect_download(timeout=60_000) as got:
            self.page.get_by_role("button", name=name, exact=True).click()
        assert got.value.suggested_filename == name
        return Path(got.value.path())

    def close(self, name: str) -> None:
        self.page.screenshot(path=KEPT / f"{name}.png", full_page=True)
        if self.film:
            viz.save_gif(self.film, KEPT / f"{name}.gif", fps=4)
        self.page.context.close()
        assert not self.problems


def frames_of(path: Path) -> int:
    """How many can be read of an MP4."""
    video, count = cv2.VideoCapture(str(path)), 0
    while video.read()[0]:
        count += 1
    return count


def head(path: Path, index: int = 3) -> torch.Tensor:
    """(3, 64, 64); writes a drawn head, too."""
    x = Heads(img_size=64).val[index]["x"]
    Image.fromarray(viz.to_uint8(x)).save(path)
    return x
