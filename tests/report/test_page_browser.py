"""The report of a shipped translator in a browser, on a phone and on a desk."""

import shutil

import pytest

from conftest import ROOT
from gen.verbs import report

PHONE, DESK = dict(width=390, height=844), dict(width=1200, height=844)
FIGURES = """figures => figures.map(figure => {
  const hint = getComputedStyle(figure, "::before");
  const scrolls = [...figure.querySelectorAll(".scroll")].map(box => {
    box.scrollLeft = 1e4;
    return box.scrollLeft;
  });
  return {
    hint: hint.content.includes("swipe") && hint.display === "block" && parseFloat(hint.height) > 9,
    scrolled: scrolls.some(px => px > 50),
    kind: figure.querySelector("table, .heads, .motion")?.className ?? "plain",
  };
})"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    shipped = ROOT / "checkpoints" / "smooth_i2i_heads64.safetensors"
    shutil.copy(shipped.with_suffix(".jsonl"), run / "metrics.jsonl")
    report.main([str(run), "--checkpoint", str(shipped), "--data", "heads"])
    return run / "report.html"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_fits_a_phone_and_a_desk(file, browser, scheme):
    assert 1e6 < file.stat().st_size <= 5e6
    page = browser.new_page(viewport=PHONE, color_scheme=scheme)
    page.goto(file.as_uri())
    page.wait_for_function("[...document.images].every(image => image.naturalWidth)")
    figures = page.eval_on_selector_all("figure", FIGURES)
    kinds = [figure["kind"] for figure in figures]
    assert kinds.count("heads") == 3 and kinds.count("motion") == 2 and kinds[-1] == ""
    for figure in figures:
        assert figure["hint"] == figure["scrolled"] == (figure["kind"] != "plain"), figure
    page.evaluate("scrollBy(500, 0)")
    assert page.evaluate("[scrollX, document.documentElement.scrollWidth]") == [0, PHONE["width"]]
    name = page.locator("tbody tr:not(.block) th").first.bounding_box()
    assert 0 <= name["x"] < PHONE["width"] / 2  # names stay where values are swiped away
    page.set_viewport_size(DESK)
    for figure in page.eval_on_selector_all("figure", FIGURES):
        assert not figure["hint"] and not figure["scrolled"], figure
    assert page.evaluate("document.documentElement.scrollWidth") == DESK["width"]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    page.close()
