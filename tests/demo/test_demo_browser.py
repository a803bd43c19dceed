"""The demo in a real browser, from opening a tab to a downloaded result, with a mouse and keys.

Pictures of every step are kept in runs/demo, and a GIF of each tab.
"""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageColor, ImageDraw

from demo_server import ROOT, demo
from gen import viz
from gen.data import Heads
from gen.inference import scenes
from gen.viz.motion import COLOURS

KEPT = ROOT / "runs" / "demo"
REACTS, PINNED = ImageColor.getrgb(COLOURS["reacts"]), ImageColor.getrgb(COLOURS["pinned"])
YOU, CAMERA = ImageColor.getrgb(COLOURS["you"]), (51, 51, 51)
PHONE = 390, 844
TABS = {  # what each shows first, and the height of its film
    "Translate": ("#translated .view", 1000),
    "Edit": ("#edited .view", 620),
    "Click to move": ("#stage .scene", 900),
}
MOST_S = 20  # till its first content: under 5 when the machine has nothing else to do
CUT_OFF = """[...document.querySelectorAll(".row, .form, .block, label")]
    .filter((x) => x.clientWidth && x.scrollWidth > x.clientWidth + 1).map((x) => x.innerText)"""
OPACITY = """(x) => { let seen = 1;
    for (; x; x = x.parentElement) seen *= getComputedStyle(x).opacity; return seen }"""
NUMBER = re.compile(r"perceptual smoothness (0\.\d+)")


@pytest.fixture(scope="module")
def browser():
    KEPT.mkdir(parents=True, exist_ok=True)
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


def test_translate(browser, address):
    visit = Visit(browser, address, "Translate")
    view, page = "#translated .view", visit.page
    visit.smoothness()
    visit.shot(3)
    seen = visit.slide("#translated", 1, 0.75, 0.5, 0.25, 0)
    assert len(set(seen)) == 5  # it follows the mouse that is still down
    first = visit.pixels(view)
    page.locator(".gallery button, .gallery-item").nth(3).click()
    second = visit.changed(view, first)
    page.get_by_label("To", exact=True).first.click()
    page.get_by_role("option", name="noto").click()
    visit.changed(view, second)
    assert 0 < visit.smoothness() <= 1
    assert page.locator("#translated .steps rect").count() == 19
    visit.shot(3)
    visit.slide("#translated", 1, 0.8, 0.6, 0.4, 0.2, 0)
    at = page.locator("#translated .at")
    at.press("ArrowRight")
    assert at.input_value() == "1"
    assert Image.open(visit.download("path.gif")).n_frames >= 20
    assert frames_of(visit.download("path.mp4")) == 38  # there and back
    page.get_by_text(re.compile(r"path\.mp4: (H\.264|VP9)")).wait_for()
    assert Image.open(visit.download("path.png")).width > 1000
    visit.close("translate")


def test_translate_what_one_brings(browser, address, tmp_path):
    """An image and a reference of one's own; then a path within a domain, to another seed."""
    visit = Visit(browser, address, "Translate")
    view, page = "#translated .view", visit.page
    visit.smoothness()
    head(tmp_path / "own.png"), head(tmp_path / "reference.png", 8)
    before = visit.pixels(view)
    page.get_by_role("button", name="Remove Image").first.click()
    page.locator(view).wait_for(state="hidden")
    visit.upload("#source", tmp_path / "own.png")
    page.locator(view).wait_for()
    before = visit.changed(view, before)
    start, end = visit.ends("#translated")
    page.get_by_text("or the style of an image").last.click()
    visit.upload("#style-To", tmp_path / "reference.png")
    visit.changed(view, before)
    other_start, other_end = visit.ends("#translated")
    assert np.abs(other_start - start).mean() < 1 < 2 < np.abs(other_end - end).mean()
    visit.page.screenshot(path=KEPT / "translate_reference.png", full_page=True)
    before = visit.pixels(view)
    page.get_by_role("button", name="Remove Image").last.click()
    before = visit.changed(view, before)
    page.get_by_label("To", exact=True).first.click()
    page.get_by_role("option", name="fluent").click()
    before = visit.changed(view, before)
    assert visit.smoothness() == 0  # nothing moves
    visit.enter("seed", 1)
    page.locator("#translated .player.stale").wait_for()  # it is of the seed before, ..
    visit.changed(view, before)
    page.locator("#translated .player:not(.stale)").wait_for()  # .. and this one is not
    assert visit.smoothness() > 0.5
    assert page.locator("#translated .ends").inner_text().split() == ["fluent", "fluent"]
    assert page.locator("#translated .steps rect").count() == 19
    visit.close("translate_own")


def test_edit(browser, address):
    visit = Visit(browser, address, "Edit")
    view, page = "#edited .view", visit.page
    visit.shot(3)
    assert len(set(visit.slide("#edited", 1, 0.7, 0.4, 0.1))) == 4
    before = visit.pixels(view)
    page.get_by_label("dog", exact=True).check()
    before = visit.changed(view, before)
    assert not page.get_by_label("cat", exact=True).is_checked()
    assert not page.get_by_label("bear", exact=True).is_checked()
    visit.shot(3)
    visit.slide("#edited", 1, 0.5, 0)
    before = visit.pixels(view)
    page.get_by_role("button", name="another").click()
    before = visit.changed(view, before)
    visit.shot(3)
    wide = visit.array(view).shape[1]
    visit.enter("Variations", 6)
    before = visit.changed(view, before)
    assert visit.array(view).shape[1] > 1.9 * wide
    visit.shot(3)
    visit.enter("First noise", 40)
    visit.changed(view, before)
    assert Image.open(visit.download("edit.gif")).n_frames >= 16
    assert frames_of(visit.download("edit.mp4")) == 30
    visit.close("edit")


def test_an_old_edit_is_pale_till_the_new_one_is_there(browser, address):
    visit = Visit(browser, address, "Edit")
    view, page = "#edited .view", visit.page
    stale, fresh = (page.locator(f"#edited .player{of}") for of in (".stale", ":not(.stale)"))
    fresh.wait_for()
    before = visit.pixels(view)
    for act in (
        lambda: page.get_by_role("button", name="another").click(),
        lambda: page.get_by_label("dog", exact=True).check(),
        lambda: visit.enter("Variations", 2),
        lambda: visit.enter("First noise", 7),
    ):
        act()
        stale.wait_for(timeout=10_000)
        assert float(stale.locator(".view").evaluate(OPACITY)) < 1
        before = visit.changed(view, before)
        fresh.wait_for()
    visit.close("edit_stale")


def test_edit_a_photo(browser, address, tmp_path):
    """Its code is looked for, which takes a while, with a bar; then it is what is edited."""
    visit = Visit(browser, address, "Edit")
    view, page = "#edited .view", visit.page
    before = visit.pixels(view)
    visit.enter("Variations", 1)
    before = visit.changed(view, before)
    wanted = (head(tmp_path / "own.png") + 1) * 127.5

    def far() -> float:
        """Mean difference in grey levels of what is shown as it is, and the photo."""
        shown, _ = visit.ends("#edited")
        rim = (shown.shape[0] - 192) // 2  # of the sheet
        small = Image.fromarray(shown[rim:-rim, rim:-rim].astype(np.uint8)).resize((64, 64))
        return float((torch.from_numpy(np.array(small)).permute(2, 0, 1) - wanted).abs().mean())

    first = far()
    page.get_by_role("button", name="or a photo").click()
    visit.upload("#photo", tmp_path / "own.png")
    page.get_by_role("button", name="Remove Image").last.wait_for()
    page.get_by_role("button", name="find its code").click()
    page.get_by_text(re.compile(r"\d+/200")).first.wait_for(timeout=60_000)
    page.screenshot(path=KEPT / "edit_progress.png")
    visit.changed(view, visit.pixels(view), seconds=180)
    assert far() < first / 2
    visit.close("edit_photo")


class Moving(Visit):
    """Of the tab in which objects are moved; it knows where on the screen they are."""

    view, stage = "#moved .view", "#stage .scene"

    def __init__(self, browser, address: str, size=None) -> None:
        super().__init__(browser, address, "Click to move", size)
        self.scene(scenes.drawn(0, (64, 128), 6))

    def scene(self, still: scenes.Still) -> None:
        self.still, self.instance = still, still.instance.numpy()
        self.ids = [id_ for id_, *_ in scenes.objects(still)]
        self.box = self.page.locator(self.stage).bounding_box()

    def on(self, k: int | None) -> tuple[float, float]:
        """The middle of object k on the screen, or a place on the ground."""
        if k is None:
            return self.box["x"] + self.box["width"] / 2, self.box["y"] + self.box["height"] * 0.97
        y, x = (self.instance == self.ids[k]).nonzero()
        at = np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2)
        width, height = self.box["width"] / 128, self.box["height"] / 64
        return self.box["x"] + (x[at] + 0.5) * width, self.box["y"] + (y[at] + 0.5) * height

    def drag(self, k: int | None, dx: float, dy: float, film: bool = False) -> None:
        x, y = self.on(k)
        self.move(x, y)
        self.page.mouse.down()
        for share in (0.25, 0.5, 0.75, 1):
            self.move(x + dx * share, y + dy * share)
            self.shot(film)
        self.page.mouse.up()

    def shows(self, colour: tuple[int, int, int], much: bool = True) -> None:
        """Waits until the stage has this colour, or has it no more."""
        self.until(lambda: (self.count(self.stage, colour) >= 20) == much, f"{colour} {much}")

    def button(self, name: str):
        return self.page.locator("#stage").get_by_role("button", name=name)

    def make(self) -> str:
        """Makes the video, which starts to play, and stops it; its last frame."""
        stop = self.page.locator("#moved").get_by_role("button", name="pause")
        self.page.get_by_role("button", name="Make the video").click()
        stop.click(timeout=60_000)
        self.page.locator("#moved .at").press("End")
        return self.pixels(self.view)

    def request(self) -> dict:
        return json.loads(self.download("request.json").read_text())


def test_click_to_move(browser, address, tmp_path):
    visit = Moving(browser, address)
    page, box = visit.page, visit.box
    visit.move(*visit.on(0))
    page.get_by_text(f"person {visit.ids[0]}").wait_for()
    visit.shot(2)
    visit.drag(0, 40, 8, film=True)
    visit.shows(REACTS)  # what the others will do, without another click
    visit.shot(2)
    page.keyboard.down("Shift")
    visit.move(*visit.on(1))
    page.mouse.click(*visit.on(1))
    page.keyboard.up("Shift")
    visit.shows(PINNED)
    visit.shot(2)
    visit.make()
    page.wait_for_function("document.querySelector('#ways img')?.naturalWidth > 0")
    page.locator("#moved .at").press("Home")
    for _ in range(6):
        visit.shot()
        page.keyboard.press("ArrowRight")
    visit.shot(2)
    request = visit.request()
    (drag,) = request["drags"]
    assert drag["id"] == visit.ids[0] and request["pins"] == [visit.ids[1]]
    wanted = np.array([40 * 128 / box["width"], 8 * 64 / box["height"]])
    assert np.allclose(drag["path"][1], wanted, atol=0.11)
    assert Image.open(visit.download("clip.gif")).n_frames >= 6
    assert frames_of(visit.download("clip.mp4")) == 16  # 6, there and back, a rest at both ends
    (tmp_path / "request.json").write_text(json.dumps(request))
    command = [sys.executable, "scripts/click_to_move.py", "--scene", "0", "--suggest", "--request",
               str(tmp_path / "request.json"), "--out", str(tmp_path / "again")]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    visit.close("click_to_move")


def test_what_the_mouse_does_on_a_stage(browser, address):
    visit = Moving(browser, address)
    page, undo, pin = visit.page, visit.button("Undo"), visit.button("Pin")
    before = visit.array(visit.stage)
    visit.move(*visit.on(2))
    page.get_by_text(f"person {visit.ids[2]}: drag it").wait_for()
    lit = (np.abs(visit.array(visit.stage) - before) > 8).any(2)
    mask = Image.fromarray(visit.instance == visit.ids[2]).resize(lit.shape[::-1])
    assert (lit & np.array(mask)).sum() > 0.7 * (lit | np.array(mask)).sum()
    page.mouse.click(*visit.on(2))  # one click takes it, ..
    page.get_by_text("click where it goes").wait_for()
    x, y = visit.on(2)
    page.mouse.click(x + 30, y)  # .. another one says where it goes
    visit.shows(YOU)
    undo.click()
    visit.shows(YOU, False)
    assert undo.is_disabled() and visit.button("Clear").is_disabled()
    page.locator(visit.stage).press("Delete")
    assert undo.is_disabled()  # there was nothing to delete
    page.mouse.click(*visit.on(2))
    page.keyboard.press("n")  # no longer that one, and no longer armed
    page.mouse.click(*visit.on(2))
    page.mouse.click(x + 30, y)
    page.mouse.click(*visit.on(1))
    pin.click()
    visit.shows(PINNED)
    assert pin.get_attribute("aria-pressed") == "true"
    visit.make()
    request = visit.request()
    assert [drag["id"] for drag in request["drags"]] == [visit.ids[2]]
    wanted = [30 * 128 / visit.box["width"], 0]
    assert np.allclose(request["drags"][0]["path"][1], wanted, atol=0.11)
    assert request["pins"] == [visit.ids[1]] and request["camera"] == [0, 0, 1]
    visit.button("Clear").click()
    visit.shows(YOU, False), visit.shows(PINNED, False)
    visit.drag(None, -30, 0)
    visit.shows(CAMERA)
    before = visit.pixels(visit.stage)
    visit.button("Suggest").click()
    visit.changed(visit.stage, before)
    visit.shows(YOU)
    visit.make()
    request = visit.request()
    assert len(request["drags"]) == 1 and request["pins"] == [] and request["camera"][0] < 0
    visit.close("stage")


@pytest.mark.parametrize("size", [(1180, 900), PHONE])
def test_a_scene_stays_where_it_is_whatever_its_hint_says(browser, address, size):
    """Else a drag that begins where the mouse was hits the ground."""
    visit = Moving(browser, address, size)
    page, hint = visit.page, visit.page.locator("#stage .hint")
    names = dict(zip(visit.ids, (name for _, name, *_ in scenes.objects(visit.still)), strict=True))
    for k, id_ in enumerate(visit.ids):
        visit.move(*visit.on(k))
        page.get_by_text(f"{names[id_]} {id_}: drag it; shift-click pins it").wait_for()
        assert page.locator(visit.stage).bounding_box() == visit.box
    car = list(names.values()).index("car")
    visit.drag(car, 20, 0)
    visit.shows(YOU)
    assert hint.inner_text().startswith(f"car {visit.ids[car]}: ")
    assert page.locator(visit.stage).bounding_box() == visit.box
    for words in ("drag", "drag it anywhere " * 20):
        hint.evaluate("(hint, words) => { hint.textContent = words }", words)
        assert page.locator(visit.stage).bounding_box() == visit.box
    visit.close(f"hints_{size[0]}")


def test_what_the_fields_of_a_clip_do(browser, address):
    """Seed, speed and number of frames; and the pictures beside the video."""
    visit = Moving(browser, address)
    page = visit.page
    visit.drag(0, 40, 8)
    seen = [visit.make()]
    path = visit.request()["drags"][0]["path"]
    visit.enter("Seed", 5)
    seen.append(visit.make())
    visit.enter("Speed", 2)
    seen.append(visit.make())
    request = visit.request()
    assert request["seed"] == 5
    assert np.allclose(request["drags"][0]["path"], 2 * np.array(path))
    visit.enter("Frames", 2)
    seen.append(visit.make())
    assert len(set(seen)) == 4
    assert page.locator("#moved .at").get_attribute("max") == "2"
    assert frames_of(visit.download("clip.mp4")) == 10  # 3, there and back, with a rest
    before = visit.pixels(visit.stage)
    visit.enter("Scene", 7)
    visit.changed(visit.stage, before)
    assert visit.pixels(visit.view) == seen[-1]  # the video stays, and its files
    assert visit.request() == request
    assert page.locator("#moved .player.stale").count() == 1  # pale: it is of another scene
    for label, id_ in (("Flow to the first frame", "flow"), ("What the first frame", "hidden")):
        page.get_by_text(label).click()
        picture = page.locator(f"#{id_} img").last
        page.wait_for_function("img => img.naturalWidth > 200", arg=picture.element_handle())
        pixels = np.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("RGB"))
        assert pixels.std() > 5, label
    visit.close("flow")


def test_an_image_and_masks_of_ones_own(browser, address, tmp_path):
    visit, still = Moving(browser, address), scenes.drawn(7, (64, 128), 6)
    Image.fromarray(viz.to_uint8(still.frame)).resize((256, 128)).save(tmp_path / "own.png")
    ids = still.given.numpy().astype(np.uint16).repeat(2, 0).repeat(2, 1)
    Image.fromarray(ids).save(tmp_path / "masks.png")
    visit.make()
    visit.page.get_by_text("or your image and its masks").click()
    for field, name in (("#own-image", "own.png"), ("#own-masks", "masks.png")):
        visit.upload(field, tmp_path / name)
        visit.page.get_by_text(name).wait_for()
    before = visit.pixels(visit.stage)
    visit.page.get_by_role("button", name="take them").click()
    visit.page.get_by_text("Your image: resized from 256 x 128 to 128 x 64 px").wait_for()
    visit.changed(visit.stage, before)
    visit.page.locator("#moved .player.stale").wait_for()  # it is of the scene before
    visit.scene(still)
    visit.drag(0, 40, 0)
    visit.shows(REACTS)
    visit.make()
    (drag,) = visit.request()["drags"]  # px of the image that was given
    assert drag["id"] == visit.ids[0]
    assert np.allclose(drag["path"][1], [40 * 256 / visit.box["width"], 0], atol=0.21)
    visit.close("own_masks")


def test_a_stage_without_a_mouse(browser, address):
    visit = Moving(browser, address)
    page, undo = visit.page, visit.button("Undo")
    page.locator(visit.stage).focus()
    page.keyboard.press("N")  # as the label writes it
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    visit.shows(YOU)
    page.keyboard.press("Control+z")  # all three at once
    visit.shows(YOU, False)
    assert undo.is_disabled()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert undo.is_enabled()
    page.keyboard.press("n")
    page.keyboard.press("P")
    visit.shows(PINNED)
    visit.make()
    request = visit.request()
    assert request["drags"][0]["path"][1] == [3.0, 0.0] and request["pins"] == [visit.ids[1]]
    visit.close("keyboard")


def test_errors_are_told(browser, address, tmp_path):
    visit = Visit(browser, address, "Translate")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot at all")
    Image.new("RGB", (8500, 8000)).save(tmp_path / "huge.png")
    told = {"huge.png": "64 million px, got 8500 x 8000 px", "broken.png": "expected PNG"}
    for name, text in told.items():
        visit.page.get_by_role("button", name="Remove Image").first.click()
        visit.page.locator("#translated .view").wait_for(state="hidden")
        visit.upload("#source", tmp_path / name)
        visit.page.get_by_text(text).wait_for(timeout=30_000)
        visit.page.locator(".toast-close").first.click()
    visit.close("error")


def test_each_tab_opens_at_once_and_on_a_phone(browser, address, capsys):
    for tab in TABS:
        visit = Visit(browser, address, tab, PHONE)
        with capsys.disabled():
            print(f"{tab}: {visit.seconds:.1f} s till its first content")
        assert visit.seconds < MOST_S
        wide = visit.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= PHONE[0], tab
        assert not visit.page.evaluate(CUT_OFF), tab
        assert visit.page.get_by_text("It has seen nothing else").filter(visible=True).count() == 1
        for width in (820, 1180):
            visit.page.set_viewport_size({"width": width, "height": 900})
            assert not visit.page.evaluate(CUT_OFF), (tab, width)
        visit.page.set_viewport_size(dict(zip(("width", "height"), PHONE, strict=True)))
        visit.close(f"phone_{tab.lower().replace(' ', '_')}")
