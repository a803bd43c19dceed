"""The demo in a real browser, with a mouse and keys: tabs of images, and what all tabs share."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo_browser import KEPT, PHONE, TABS, Visit, frames_of, head
from demo_client import Client
from demo_server import demo
from gen import shipped
from gen.methods.inversion_encoder import InversionEncoder
from gen.networks import perceptual
from runs import ship

MOST_S = 20  # till its first content: under 5 when the machine has nothing else to do
CUT_OFF = """[...document.querySelectorAll(".row, .form, .block, label")]
    .filter((x) => x.clientWidth && x.scrollWidth > x.clientWidth + 1).map((x) => x.innerText)"""
OPACITY = """(x) => { let seen = 1;
    for (; x; x = x.parentElement) seen *= getComputedStyle(x).opacity; return seen }"""


@pytest.fixture
def encoder(tmp_path) -> Path:
    """A tiny untrained encoder of the generator whose images the demo edits."""
    if not perceptual.cache_path("vgg").exists():
        pytest.skip("LPIPS weights are not cached: python -m gen.networks.perceptual")
    path = shipped.find_named("stylegan2_heads64")
    method = InversionEncoder(generator=str(path), channels=4, max_channels=8)
    method.load_init()
    return ship(method, tmp_path / "encoder.safetensors")


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
    tall = visit.array(view).shape[0]
    visit.enter("Variations", 6)
    before = visit.changed(view, before)
    assert visit.array(view).shape[0] > 1.6 * tall  # in two rows
    visit.shot(3)
    visit.enter("First noise", 40)
    visit.changed(view, before)
    assert Image.open(visit.download("edit.gif")).n_frames >= 16
    assert frames_of(visit.download("edit.mp4")) == 32
    visit.close("edit")


def test_the_strength_of_an_edit(browser, address):
    """By the keyboard: the original stays, the marker and the numbers follow the slider."""
    visit = Visit(browser, address, "Edit")
    page, at = visit.page, visit.page.locator("#edited .at")
    page.locator("#edited .key .line").nth(1).wait_for()
    assert at.get_attribute("aria-label") == "strength of the edit"
    first, last = (shown[77:269] for shown in visit.ends("#edited"))  # a row of images
    assert np.abs(first[:, :230] - last[:, :230]).max() < 12  # WebP
    assert np.abs(first[:, 251:443] - last[:, 251:443]).mean() > 12
    at.press("Home")
    told = re.compile(
        r"strength (\S+), probability of the change (0\.\d\d|1\.00), distance from .* "
    )
    values, marks = [], []
    for _ in range(17):
        text = at.get_attribute("aria-valuetext")
        values.append([float(value) for value in (*told.search(text).groups(), text[-4:])])
        marks.append(page.locator("#edited .curves .now").get_attribute("d"))
        shown = page.locator("#edited .key b").all_inner_texts()
        assert [text for text in shown[1:]] == [f"{value:.2f}" for value in values[-1][1:]]
        at.press("ArrowRight")
    assert [row[0] for row in values] == [k / 8 for k in range(17)]
    assert marks == [f"M{k} 0V1" for k in range(17)]
    assert values[0][1] < 0.5 < values[8][1] and values[0][2] == 0 < values[8][2]
    lines = page.locator("#edited .curves polyline")
    dashes = [line.evaluate("x => getComputedStyle(x).strokeDasharray") for line in lines.all()]
    assert dashes[0] == "none" != dashes[1]
    label = page.locator("#edited .curves").get_attribute("aria-label")
    assert f"{values[8][1]:.2f} at strength 1, {values[16][1]:.2f} at strength 2" in label
    page.get_by_role("button", name="what it has now").click()
    page.get_by_text("nothing is asked to change, so there is no curve").wait_for()
    assert not page.locator("#edited .plot").is_visible()
    assert at.get_attribute("aria-valuetext") == "strength 1"
    visit.close("edit_strength")


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
        with visit.waiting():  # so that the new one does not come too soon
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
        cell = shown[77:269, 19:211]  # below its word
        small = Image.fromarray(cell.astype(np.uint8)).resize((64, 64))
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
    assert not page.get_by_role("button", name="refine").is_visible()  # without an encoder
    visit.close("edit_photo")


def test_edit_a_photo_by_an_encoder(browser, encoder, tmp_path):
    """At once, and another after refining; wrong requests to it are refused."""
    head(tmp_path / "own.png")
    with demo(tmp_path, "--encoder", str(encoder)) as address:
        visit = Visit(browser, address, "Edit")
        view, page = "#edited .view", visit.page
        page.locator("#edited .key .line").nth(1).wait_for()
        page.get_by_role("button", name="or a photo").click()
        visit.upload("#photo", tmp_path / "own.png")
        page.get_by_role("button", name="Remove Image").last.wait_for()
        names = "find its code", "refine"
        find, refine = (page.get_by_role("button", name=name) for name in names)
        before = visit.pixels(view)
        with visit.waiting() as held:  # the one that ends last would set the code
            find.click()
            page.locator("#edits[aria-busy=true]").wait_for()
            refine.click(force=True), refine.press("Enter")
            page.wait_for_timeout(500)
            by = [route.request.post_data_json["trigger_id"] for route in held]
            where = "gradio_config.components.find((x) => x.props.value == '{}').id"
            assert [by.count(page.evaluate(where.format(name))) for name in names] == [1, 0]
        before = visit.changed(view, before, seconds=180)
        page.locator("#edits[aria-busy=false]").wait_for(timeout=60_000)
        refine.click()
        visit.changed(view, before, seconds=180)
        page.locator("#edits[aria-busy=false]").wait_for(timeout=60_000)
        visit.close("edit_encoder")
        client = Client(address)
        ((handler, _),) = client.named("refined")
        elsewhere = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
        for wrong in (None, 3, "x", [], {"path": None}, elsewhere):
            message = client.call(handler, [wrong])
            assert not message["success"] and "expected" in message["output"]["error"]


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


def test_a_request_shows_that_it_runs_and_is_made_once(browser, address):
    """With the keyboard: at once, until its end, also if the end is an error."""
    visit = Visit(browser, address, "Click to move")
    page, make = visit.page, visit.page.get_by_role("button", name="Make the video")
    result, told = page.locator("#clips"), page.locator("#working [role=status]")
    assert result.get_attribute("aria-busy") in (None, "false")
    with visit.waiting() as held:
        make.focus()
        page.keyboard.press("Enter")
        page.locator("#clips[aria-busy=true]").wait_for()
        assert make.get_attribute("aria-disabled") == "true" and told.inner_text() == "working"
        page.screenshot(path=KEPT / "busy.png", full_page=True)
        page.keyboard.press("Enter"), make.click(force=True)
        page.wait_for_timeout(500)
        by = [route.request.post_data_json["trigger_id"] for route in held]
        button = page.evaluate(
            "gradio_config.components.find((x) => x.props.value == 'Make the video').id"
        )
        assert by.count(button) == 1
    page.locator("#moved .view").wait_for(timeout=60_000)
    page.locator("#clips[aria-busy=false]").wait_for()
    assert make.get_attribute("aria-disabled") == "false" and told.inner_text() == "ready"
    with visit.waiting() as held:
        visit.enter("Seed", 2**40)
        page.locator("#scenes[aria-busy=true]").wait_for()
        visit.until(lambda: held, "its request")
    page.get_by_text("seed: expected a number in").first.wait_for()
    page.locator("#scenes[aria-busy=false]").wait_for()
    visit.close("busy_ended")


def test_downloads_are_hidden_until_there_is_a_result_and_pale_when_it_is_old(browser, address):
    names = {"Translate": "path.gif", "Edit": "edit.gif", "Click to move": "clip.gif"}
    for tab, name in names.items():
        visit = Visit(browser, address, tab)
        page = visit.page
        download = page.get_by_role("button", name=name, exact=True)
        row = page.locator(".downloads").filter(has=download)
        if tab == "Translate":
            assert download.is_visible()
            page.get_by_role("button", name="Remove Image").first.click()
            page.locator("#translated .view").wait_for(state="hidden")
            assert not download.is_visible()
            page.locator(".gallery button, .gallery-item").nth(1).click()
        if tab == "Click to move":
            assert not download.is_visible()
            page.get_by_role("button", name="Make the video").click()
        download.wait_for(timeout=60_000)
        page.locator(".result:not([aria-busy=true]) .player:not(.stale)").filter(
            visible=True
        ).wait_for()
        assert float(row.evaluate(OPACITY)) == 1
        page.route("**/queue/join*", lambda route: None)  # nothing new comes
        visit.enter({"Translate": "seed", "Edit": "First noise", "Click to move": "Seed"}[tab], 7)
        page.locator(".player.stale").filter(visible=True).wait_for()
        assert download.is_visible() and float(row.evaluate(OPACITY)) < 1
        page.context.close()


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
