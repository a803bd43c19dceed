"""The page of a report: its table, and pictures that fit."""

import re

import numpy as np
from PIL import Image

from gen.report import card
from gen.report.page import Figure, Panel, metrics_table, write_report


def test_controls_stand_in_columns_beside_the_values(tmp_path):
    def row(metric, value, protocol="p"):
        return dict(metric=metric, value=value, ci95=[value - 1, value + 1], protocol=protocol)

    rows = [
        row("latent/paired_lpips_alex", 2.0),
        row("source/paired_lpips_alex", 3.0, "left < as it is"),
        row("nearest/paired_lpips_alex", 4.0, "nearest"),
        row("latent/content_l1", 5.0),
        row("latent/accuracy_x", 6.0),
        row("twin/accuracy_x", 7.0),
    ]
    table = metrics_table(rows)
    assert table.heads == [
        "value",
        "95 % interval",
        "real",
        "source unchanged",
        "nearest real",
        "n",
    ]
    assert [(name, cells) for name, _, _, cells in table.lines] == [
        ("latent/paired_lpips_alex", ["2.0000", "1.0000 – 3.0000", "", "3.0000", "4.0000", "–"]),
        ("latent/content_l1", ["5.0000", "4.0000 – 6.0000", "", "", "", "–"]),
        ("latent/accuracy_x", ["6.0000", "5.0000 – 7.0000", "7.0000", "", "", "–"]),
    ]
    page = write_report(tmp_path / "r.html", title="t", metrics=table).read_text()
    assert table.notes == [("source unchanged", "left < as it is"), ("nearest real", "nearest")]
    assert '<figure class="wide table">' in page  # a narrow one does not hold so many columns
    assert "source unchanged left < as it is" in re.sub(
        "<[^>]*>|&lt;", lambda m: "<" * (m[0] == "&lt;"), page
    )


def test_rows_of_one_protocol_stand_together(tmp_path):
    rows = [dict(metric=f"a/{n}", value=1, protocol=p) for n, p in ("xp", "yq", "zp")]
    page = write_report(tmp_path / "r.html", title="t", metrics=metrics_table(rows)).read_text()
    assert page.count('class="block"') == 2 and page.index("<th>z") < page.index("<th>y")


def test_a_page_of_many_pictures_is_small_all_the_same(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (2, 90, 90, 3), np.uint8)
    still, *more = (Image.fromarray(one) for one in noise)
    panels = [Panel(still, motion=[still, *more])]
    figures = {"x": [Figure("", panels)]}
    best = write_report(tmp_path / "a.html", title="t", sections=figures).read_text()
    limit = 3 * len(best) // 5
    monkeypatch.setattr("gen.report.page.MOST_BYTES", limit)
    small = write_report(tmp_path / "b.html", title="t", sections=figures).read_text()
    assert sum(map(len, re.findall('base64,([^"]*)', small))) < limit
    assert small.count('width="90" height="90"') == 2


def test_a_card_has_the_verdict_and_the_columns_of_a_page():
    rows = [
        dict(metric="latent/paired_l1", value=2.0, better="lower", count=3),
        dict(metric="source/paired_l1", value=3.0, better="lower", count=3),
        dict(metric="intra/latent/direct_x", value=0.01),
    ]
    told, _, heads, _, line, _ = card._table(rows).splitlines()
    assert told.startswith("- Smoothness means nothing here")
    assert heads == "| metric | value | 95 % interval | source unchanged | n | better |"
    assert line == "| `latent/paired_l1` | 2.0000 | – | 3.0000 | 3 | lower |"
