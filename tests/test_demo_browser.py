"""The demo in a real browser, from opening a tab to a downloaded result, with a mouse and keys.

Pictures of every step are kept in runs/demo, and a GIF of each tab.
"""

import base64
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from demo_server import ROOT, demo
from gen import stills, viz
from gen.motion_viz import COLOURS

KEPT = ROOT / "runs" / "demo"
REACTS, PINNED = ImageColor.getrgb(COLOURS["reacts"]), ImageColor.getrgb(COLOURS["pinned"])
WIDE, PHONE = {"width": 1180, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if (path := shutil.which("chromium")) is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    with api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory, browser):
    with demo(tmp_path_factory.mktemp("demo")) as address:
        yield address


class Visit:
    """A page in a browser, and the film of what is done there."""

    def __init__(self, browser, address: str, tab: str, size=WIDE, reveal=""):
        context = browser.new_context(viewport=size, accept_downloads=True)
        self.page, self.film = context.new_page(), []
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.outside(request.url, address))
        start = time.monotonic()
        self.page.goto(address)
        if tab != "Translate":
            self.page.get_by_role("tab", name=tab).click()
        self.page.locator(reveal).wait_for(timeout=30_000)
        self.seconds = time.monotonic() - start

    def outside(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.problems.append(f"asked {url}")

    def shot(self, times: int = 1) -> None:
        picture = Image.open(io.BytesIO(self.page.screenshot()))
        self.film += [picture.convert("RGB")] * times

    def pixels(self, selector: str) -> str:
        return self.page.locator(selector).evaluate("canvas => canvas.toDataURL()")

    def changed(self, selector: str, before: str, seconds: float = 60) -> str:
        """The pixels of a canvas when they are others."""
        end = time.monotonic() + seconds
        while (now := self.pixels(selector)) == before:
            assert time.monotonic() < end, f"{selector} did not change"
            self.page.wait_for_timeout(20)
        return now

    def count(self, selector: str, colour: tuple[int, int, int]) -> int:
        """Pixels of a canvas that have exactly this colour."""
        picture = Image.open(io.BytesIO(base64.b64decode(self.pixels(selector).split(",")[1])))
        return int((np.asarray(picture.convert("RGB")) == colour).all(2).sum())

    def painted(self, selector: str, colour: tuple[int, int, int], seconds: float = 20) -> None:
        """Waits until a canvas has this colour."""
        end = time.monotonic() + seconds
        while self.count(selector, colour) < 20:
            assert time.monotonic() < end, f"{selector} shows no {colour}"
            self.page.wait_for_timeout(50)

    def slide(self, selector: str, *shares: float) -> None:
        box = self.page.locator(selector).bounding_box()
        ways = [
            (box["x"] + box["width"] * (0.01 + 0.98 * share), box["y"] + box["height"] / 2)
            for share in shares
        ]
        self.page.mouse.move(*ways[0])
        self.page.mouse.down()
        for way in ways[1:]:
            self.page.mouse.move(*way, steps=3)
            self.shot()
        self.page.mouse.up()

    def download(self, name: str) -> Path:
        with self.page.expect_download(timeout=30_000) as got:
            self.page.get_by_role("button", name=name, exact=True).click()
        assert got.value.suggested_filename == name
        return Path(got.value.path())

    def close(self, name: str) -> None:
        KEPT.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=KEPT / f"{name}.png", full_page=True)
        if self.film:
            small = [
                x.resize((x.width // 2, x.height // 2), Image.Resampling.LANCZOS) for x in self.film
            ]
            viz.save_gif(small, KEPT / f"{name}.gif", fps=4)
        self.page.context.close()
        assert not self.problems


def frames_of(path: Path) -> int:
    return Image.open(path).n_frames


def test_translate(browser, address):
    visit = Visit(browser, address, "Translate", reveal="#translated .view")
    view, page = "#translated .view", visit.page
    assert visit.seconds < 20  # 3 s when the machine has nothing else to do
    page.get_by_text("perceptual smoothness 0.").wait_for(timeout=30_000)
    visit.shot(3)
    first = visit.pixels(view)
    visit.slide("#translated .at", 1, 0.75, 0.5, 0.25, 0)
    assert visit.pixels(view) != first
    page.locator(".gallery button, .gallery-item").nth(3).click()
    second = visit.changed(view, visit.pixels(view))
    page.get_by_role("listbox", name="To").or_(page.get_by_label("To", exact=True)).first.click()
    page.get_by_role("option").nth(1).click()
    visit.changed(view, second)
    page.get_by_text("perceptual smoothness 0.").wait_for(timeout=30_000)
    assert page.locator("#translated .steps rect").count() == 19
    visit.slide("#translated .at", 1, 0.8, 0.6, 0.4, 0.2, 0)
    at = page.locator("#translated .at")
    at.focus()
    page.keyboard.press("ArrowRight")
    assert at.input_value() == "1"
    assert frames_of(visit.download("path.gif")) >= 20
    assert visit.download("path.mp4").stat().st_size > 1000
    assert Image.open(visit.download("path.png")).width > 1000
    visit.close("translate")


def test_edit(browser, address):
    visit = Visit(browser, address, "Edit", reveal="#edited .view")
    view, page = "#edited .view", visit.page
    visit.shot(3)
    visit.slide("#edited .at", 1, 0.7, 0.4, 0.1)
    before = visit.pixels(view)
    page.get_by_label("dog", exact=True).check()
    visit.changed(view, before)
    assert not page.get_by_label("cat", exact=True).is_checked()
    assert not page.get_by_label("bear", exact=True).is_checked()
    visit.shot(3)
    visit.slide("#edited .at", 1, 0.5, 0)
    before = visit.pixels(view)
    page.get_by_role("button", name="another").click()
    visit.changed(view, before)
    visit.shot(3)
    assert frames_of(visit.download("edit.gif")) >= 16
    visit.close("edit")


def test_click_to_move(browser, address, tmp_path):
    visit = Visit(browser, address, "Click to move", reveal="#stage .scene")
    page, stage = visit.page, "#stage .scene"
    still = stills.drawn(0, (64, 128), 6)
    found = stills.objects(still)
    box = page.locator(stage).bounding_box()

    def on(k: int) -> tuple[float, float]:
        """The middle of an object on the screen."""
        y, x = (still.instance == found[k][0]).nonzero(as_tuple=True)
        middle = (x.float() - x.float().mean()).square() + (y.float() - y.float().mean()).square()
        at = int(middle.argmin())
        width, height = box["width"] / 128, box["height"] / 64
        return box["x"] + (int(x[at]) + 0.5) * width, box["y"] + (int(y[at]) + 0.5) * height

    page.mouse.move(*on(0))
    page.get_by_text(f"object {found[0][0]}").wait_for()
    visit.shot(2)
    before = visit.pixels(stage)
    page.mouse.down()
    for share in (0.25, 0.5, 0.75, 1):
        page.mouse.move(on(0)[0] + 40 * share, on(0)[1] + 8 * share)
        visit.shot()
    page.mouse.up()
    visit.changed(stage, before)
    visit.painted(stage, REACTS)  # what the others will do, without another click
    visit.shot(3)
    assert not visit.count(stage, PINNED)
    page.keyboard.down("Shift")
    page.mouse.click(*on(1))
    page.keyboard.up("Shift")
    ground = box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.97
    visit.painted(stage, PINNED)
    visit.shot(2)
    page.get_by_role("button", name="Undo").click()  # the pin
    page.get_by_role("button", name="Make the video").click()
    page.locator("#moved .view").wait_for(timeout=30_000)
    for _ in range(8):
        page.wait_for_timeout(120)
        visit.shot()
    request = json.loads(visit.download("request.json").read_text())
    (drag,) = request["drags"]
    assert drag["id"] == found[0][0] and request["pins"] == []
    wanted = np.array([40 * 128 / box["width"], 8 * 64 / box["height"]])
    assert np.allclose(drag["path"][1], wanted, atol=0.11)
    assert frames_of(visit.download("clip.gif")) >= 6
    assert visit.download("clip.mp4").stat().st_size > 1000
    page.mouse.move(*ground)
    page.mouse.down()
    page.mouse.move(ground[0] - 30, ground[1], steps=3)
    page.mouse.up()
    before = visit.pixels(stage)
    page.get_by_role("button", name="Suggest").click()
    visit.changed(stage, before)
    page.wait_for_timeout(1000)
    ways = page.locator("#ways img").get_attribute("src")
    page.get_by_role("button", name="Make the video").click()
    other = "was => document.querySelector('#ways img').src !== was"
    page.wait_for_function(other, arg=ways, timeout=30_000)
    more = json.loads(visit.download("request.json").read_text())
    assert len(more["drags"]) == 2 and more["camera"][0] < 0
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "scripts/click_to_move.py", "--scene", "0", "--suggest", "--request",
               str(tmp_path / "request.json"), "--out", str(tmp_path)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    visit.close("click_to_move")


def test_a_stage_without_a_mouse(browser, address):
    visit = Visit(browser, address, "Click to move", reveal="#stage .scene")
    page = visit.page
    page.locator("#stage .scene").focus()
    page.keyboard.press("n")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    page.keyboard.press("p")
    page.get_by_role("button", name="Make the video").click()
    page.locator("#moved .view").wait_for(timeout=30_000)
    request = json.loads(visit.download("request.json").read_text())
    assert request["drags"][0]["path"][1] == [3.0, 0.0] and len(request["pins"]) == 1
    visit.close("keyboard")


def test_errors_are_told(browser, address, tmp_path):
    visit = Visit(browser, address, "Translate", reveal="#translated .view")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot at all")
    Image.new("RGB", (2100, 30)).save(tmp_path / "wide.png")
    told = {"wide.png": "at most 2048 x 2048 px, got 2100 x 30", "broken.png": "expected PNG"}
    for name, text in told.items():
        visit.page.get_by_role("button", name="Remove Image").first.click()
        visit.page.locator("#translated .view").wait_for(state="hidden")
        visit.page.locator("input[type=file]").first.set_input_files(tmp_path / name)
        visit.page.get_by_text(text).wait_for(timeout=30_000)
        visit.page.locator(".toast-close").first.click()
    visit.close("error")


def test_on_a_phone(browser, address):
    for tab, reveal in (("Translate", "#translated .view"), ("Edit", "#edited .view"),
                        ("Click to move", "#stage .scene")):  # fmt: skip
        visit = Visit(browser, address, tab, PHONE, reveal)
        wide = visit.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE["width"], tab
        visit.page.wait_for_timeout(1000)
        visit.close(f"phone_{tab.lower().replace(' ', '_')}")
