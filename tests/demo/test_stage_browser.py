"""The tab of Click to Move in a real browser, with a mouse and keys."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageColor, ImageSequence

from demo_browser import KEPT, PHONE, Visit, frames_of
from demo_server import ROOT
from gen import viz
from gen.inference import scenes, tracks
from gen.verbs.move import main
from gen.viz.motion import COLOURS

REACTS, PINNED = ImageColor.getrgb(COLOURS["reacts"]), ImageColor.getrgb(COLOURS["pinned"])
YOU, REMOVED = ImageColor.getrgb(COLOURS["you"]), ImageColor.getrgb(COLOURS["removed"])
CAMERA = 51, 51, 51


class Moving(Visit):
    """Of the tab in which objects are moved; it knows where on the screen they are."""

    view, stage = "#moved .view", "#stage .scene"

    def __init__(self, browser, address: str, size=None) -> None:
        super().__init__(browser, address, "Click to move", size)
        self.scene(scenes.drawn(0, (64, 128), 6))

    def scene(self, still: scenes.Still) -> None:
        self.still, self.instance = still, still.instance.numpy()
        self.ids = [id_ for id_, *_ in scenes.objects(still)]
        self.page.locator(self.stage).evaluate("x => x.scrollIntoView({block: 'center'})")
        self.box = self.page.locator(self.stage).bounding_box()

    def on(self, k: int | None) -> tuple[float, float]:
        """The middle of object k on the screen, or a place on the ground."""
        if k is None:
            return self.box["x"] + self.box["width"] / 2, self.box["y"] + self.box["height"] * 0.97
        y, x = (self.instance == self.ids[k]).nonzero()
        at = np.argmin((x - x.mean()) ** 2 + (y - y.mean()) ** 2)
        width, height = self.box["width"] / 128, self.box["height"] / 64
        return self.box["x"] + (x[at] + 0.5) * width, self.box["y"] + (y[at] + 0.5) * height

    def drag(self, k: int | None, *way: float, film: bool = False) -> None:
        """Drags by (dx, dy), then by the next (dx, dy) of `way`."""
        x, y = self.on(k)
        self.move(x, y)
        self.page.mouse.down()
        for dx, dy in zip(way[::2], way[1::2], strict=True):
            for share in (0.25, 0.5, 0.75, 1):
                self.move(x + dx * share, y + dy * share)
                self.shot(film)
            x, y = x + dx, y + dy
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


def test_a_path_drawn_by_hand_and_a_removed_object(browser, address):
    visit = Moving(browser, address)
    page, remove = visit.page, visit.button("Remove")
    assert remove.is_disabled()
    px = 128 / visit.box["width"]
    visit.drag(0, 40, 0, 0, 16)  # right, then down
    visit.shows(YOU)
    page.keyboard.press("ArrowRight")  # moves its end
    page.mouse.click(*visit.on(1))
    page.get_by_text("click where it goes, or pin or remove it").wait_for()
    remove.click()
    visit.shows(REMOVED)
    assert remove.get_attribute("aria-pressed") == "true"
    page.get_by_text(f"{visit.ids[1]} is removed: R takes it back").wait_for()
    visit.make()
    request = visit.request()
    ((first, corner, end),) = (drag["path"] for drag in request["drags"])
    assert first == [0, 0] and np.allclose(corner, [40 * px, 0], atol=0.11)
    assert np.allclose(end, [40 * px + 1, 16 * px], atol=0.11)
    assert request["remove"] == [visit.ids[1]] and request["pins"] == []
    remove.click()
    visit.shows(REMOVED, False)
    visit.close("path_and_removed")


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
        visit.page.locator(field).get_by_text("⇣").wait_for()  # the server has it
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


def test_a_second_point_of_an_object_turns_it_and_lets_it_grow(browser, address, tmp_path):
    """By mouse, then by keys; gen move makes the same video of the request."""
    visit = Moving(browser, address)
    page, px = visit.page, 128 / visit.box["width"]
    k = int(np.argmax([(visit.instance == id_).sum() for id_ in visit.ids]))
    y, x = (visit.instance == visit.ids[k]).nonzero()
    middle = (x.min() + x.max() + 1) / 2, (y.min() + y.max() + 1) / 2
    start, further = (middle[0] - 4, middle[1]), (middle[0] + 4, middle[1])  # px of the scene

    def on(place: tuple) -> tuple[float, float]:
        return visit.box["x"] + place[0] / px, visit.box["y"] + place[1] / px

    def pull(a: tuple, b: tuple) -> None:
        visit.move(*on(a))
        page.mouse.down()
        visit.move(*on(b))
        page.mouse.up()

    pull(start, (start[0] + 4, start[1]))
    visit.shows(YOU)
    page.get_by_text("drag another point of it, or press < > to turn it").wait_for()
    pull(further, (start[0] + 4, start[1] + 9))  # a quarter turn of an arm of 8, which grows to 9
    visit.make()
    request = visit.request()
    assert request["drags"] == []
    (track,) = request["tracks"]
    assert track["id"] == visit.ids[k] and len(track["points"]) == 2
    fit = tracks.similarities(np.array(track["points"]), 5)[:, :, :2]
    turns = np.arctan2(fit[:, 1, 0], fit[:, 0, 0])
    assert np.allclose(turns, np.pi / 2 * np.arange(1, 6) / 5, atol=0.06)
    assert np.linalg.norm(fit[-1, :, 0]) == pytest.approx(9 / 8, abs=0.05)
    video = frames_of_gif(visit.download("clip.gif")).astype(int)
    (tmp_path / "request.json").write_text(json.dumps(request))
    out = tmp_path / "again"
    main(["--scene", "0", "--request", str(tmp_path / "request.json"), "--out", str(out)])
    same = frames_of_gif(out / "video.gif")[1:]  # after its arrows; it has another palette
    assert same.shape == video.shape
    most = np.abs(video[len(video) // 2] - video[0]).mean()
    assert np.abs(same - video).mean((1, 2, 3)).max() < most / 5
    page.screenshot(path=KEPT / "turned.png", full_page=True)
    for key in (">", ">", "+", "ArrowRight"):
        page.locator(visit.stage).press(key)
    page.locator("#moved .player.stale").wait_for()
    visit.make()
    (again,) = visit.request()["tracks"]
    before, after = (tracks.similarities(np.array(t["points"]), 1)[0] for t in (track, again))
    by = np.linalg.inv(before[:, :2]) @ after[:, :2]
    assert np.arctan2(by[1, 0], by[0, 0]) == pytest.approx(np.pi / 9, abs=0.02)
    assert np.linalg.norm(by[:, 0]) == pytest.approx(1.1, abs=0.02)
    moved = np.array(again["points"])[0, -1] - np.array(track["points"])[0, -1]
    assert np.allclose(moved, [1, 0], atol=0.02)
    visit.button("Undo").click()
    visit.button("Clear").click()
    visit.shows(YOU, False)
    visit.close("turned_end")


def frames_of_gif(path) -> np.ndarray:
    """Frames (T, H, W, 3) of a GIF."""
    gif = Image.open(path)
    return np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)])


def test_objects_are_cut_out_of_a_photo_without_masks(browser, address, tmp_path):
    visit, still = Moving(browser, address), scenes.drawn(2, (64, 128), 6)
    page, photo = visit.page, Image.fromarray(viz.to_uint8(still.frame)).resize((512, 256))
    photo.save(tmp_path / "own.png")
    page.get_by_text("or your image and its masks").click()
    visit.upload("#own-image", tmp_path / "own.png")
    canvas = page.locator("#cut .photo")
    canvas.wait_for()
    visit.until(lambda: visit.array("#cut .photo")[..., 3].any(), "the photo")
    box = canvas.bounding_box()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    sizes = {id_: int((still.given == id_).sum()) for id_, *_ in scenes.objects(still)}
    first, second = sorted(sizes, key=sizes.get)[:-3:-1]

    def on(u: float, v: float) -> tuple[float, float]:
        return box["x"] + u * box["width"] / 128, box["y"] + v * box["height"] / 64

    def around(id_: int) -> tuple[int, int, int, int]:
        y, x = (still.given.numpy() == id_).nonzero()
        return x.min() - 0.5, y.min() - 0.5, x.max() + 1.5, y.max() + 1.5

    left, top, right, bottom = around(first)
    before = visit.pixels("#cut .photo")
    visit.move(*on(left, top))
    page.mouse.down()
    visit.move(*on(right, bottom))
    page.mouse.up()
    page.locator("#own-masks").get_by_text("cut_masks").wait_for(timeout=60_000)
    before = visit.changed("#cut .photo", before)
    page.locator("#cut .kind").select_option("person")  # the class of the last object
    y, x = (still.given.numpy() == second).nonzero()
    page.locator("#cut .next").click()
    page.locator("#cut .kind").select_option("bus")
    page.mouse.click(*on(x.mean() + 0.5, y.mean() + 0.5))
    visit.changed("#cut .photo", before)
    page.locator("#cutting[aria-busy=false]").wait_for(timeout=60_000)
    page.screenshot(path=KEPT / "cut.png", full_page=True)
    shown = visit.pixels(visit.stage)
    page.get_by_role("button", name="take them").click()
    visit.changed(visit.stage, shown)
    visit.box = page.locator(visit.stage).bounding_box()
    page.locator(visit.stage).focus()
    page.keyboard.press("n")
    page.get_by_text("person 11001").wait_for()
    page.keyboard.press("n")
    page.get_by_text("bus 15001").wait_for()
    for _ in range(3):  # a shorter arrow is all tip
        page.keyboard.press("ArrowRight")
    visit.shows(YOU)
    visit.make()
    (drag,) = visit.request()["drags"]
    assert drag["id"] == 15001 and drag["path"][1] == [12.0, 0.0]  # px of the photo
    visit.close("cut_taken")


def test_keys_move_the_cross_of_a_small_photo_finely(browser, address, tmp_path):
    visit = Moving(browser, address)
    page = visit.page
    Image.fromarray(viz.to_uint8(visit.still.frame)).save(tmp_path / "own.png")  # 128 x 64 px
    page.get_by_text("or your image and its masks").click()
    visit.upload("#own-image", tmp_path / "own.png")
    canvas = page.locator("#cut .photo")
    canvas.wait_for()
    visit.until(lambda: visit.array("#cut .photo")[..., 3].any(), "the photo")
    asked = []
    for keys in (("Right", "Down"), ("Left", "Up")):
        with visit.waiting() as held:
            for key in keys:
                for _ in range(10 if key in ("Right", "Down") else 9):
                    canvas.press(f"Shift+Arrow{key}")  # by .64 px
            canvas.press("Enter")
            visit.until(lambda: held, "its request")
            asked += [held[0].request.post_data_json["data"][1]]
    assert asked == [["car:70,38"], ["car:70,38+64,32"]]
    visit.close("cut_keys")


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
    page.keyboard.press("n")
    page.keyboard.press("R")
    visit.shows(REMOVED)
    page.keyboard.press("Control+z")
    visit.shows(REMOVED, False)
    page.keyboard.press("r")
    page.keyboard.press("R")  # takes it back
    visit.shows(REMOVED, False)
    page.keyboard.press("r")
    visit.shows(REMOVED)
    visit.make()
    request = visit.request()
    assert request["remove"] == [visit.ids[2]]
    assert request["drags"][0]["path"][1] == [3.0, 0.0] and request["pins"] == [visit.ids[1]]
    visit.close("keyboard")


def test_keys_drag_and_turn_an_object_where_it_is(browser, address):
    visit = Moving(browser, address)
    page = visit.page
    y, x = ((visit.instance == visit.ids[0]).nonzero()[axis].mean() + 0.5 for axis in (0, 1))
    page.locator(visit.stage).focus()
    page.keyboard.press("n")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    visit.shows(YOU)
    shown = visit.array(visit.stage)[..., :3]
    orange = (shown == YOU).all(2).nonzero()[1] * 128 / shown.shape[1]
    assert x - 1 < orange.min() and orange.max() < x + 9  # the arrow
    for _ in range(9):
        page.keyboard.press(">")
    visit.make()
    (track,) = visit.request()["tracks"]
    first, further = np.array(track["points"]) + 0.5  # px from the edge
    wanted = [x, y], [x + 8, y], [x + 8, y + 10]  # and a quarter turn of its arm
    assert np.allclose([first[0], first[-1], further[-1]], wanted, atol=0.02)
    visit.close("keys_turn")
