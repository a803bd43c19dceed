"""The demo in a real browser, with a mouse and keys: tabs of images, and what all tabs share."""

import re

import numpy as np
import torch
from PIL import Image

from demo_browser import KEPT, PHONE, TABS, Visit, frames_of, head

MOST_S = 20  # till its first content: under 5 when the machine has nothing else to do
CUT_OFF = """[...document.querySelectorAll(".row, .form, .block, label")]
    .filter((x) => x.clientWidth && x.scrollWidth > x.clientWidth + 1).map((x) => x.innerText)"""
OPACITY = """(x) => { let seen = 1;
    for (; x; x = x.parentElement) seen *= getComputedStyle(x).opacity; return seen }"""


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
