"""Galleries, the report page and the scripts that show pictures, through tiny methods."""

import base64
import csv
import io
import json
import re
import runpy
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import nn

import gen
from gen.evaluation.results import from_json, to_json
from gen.files import WeightsError
from gen.inference import common, translation
from gen.metrics import smoothness
from gen.metrics.doubts import doubts
from gen.report import build, build_plain, read_config, read_curves, strength_curve
from gen.report.page import Figure, Panel, metrics_table, write_report
from runs import OPTIONS, rows, ship

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
DOMAINS = ["bear", "cat", "dog"]
SIZE = 16


class Images:
    """Five contents in three domains: a gradient whose slope is the content, a hue a domain."""

    domains, img_size = DOMAINS, SIZE
    labels = torch.arange(3).repeat_interleave(5)

    def __getitem__(self, i):
        ramp = torch.linspace(-1, 1, SIZE) * (i % 5 + 1) / 5
        x = ramp.expand(3, SIZE, SIZE).clone()
        x[i // 5] = 0.5
        return {"x": x, "y": i // 5, "index": i}

    def __len__(self):
        return 15

    def twin(self, index, domain):
        return domain * 5 + index % 5


class Tint(nn.Module):
    """Content: the image; style: a colour to mix with, of which the domain is the hue."""

    task = "translator"
    domains, img_size, latent_dim = DOMAINS, SIZE, 4

    def __init__(self, strength=0.5):
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(strength))

    def map_style(self, z, y):
        return nn.functional.one_hot(y, 3) + 0.2 * z[:, :3].tanh()

    def mean_style(self, y):
        return nn.functional.one_hot(torch.tensor([y]), 3).float()

    def encode_style(self, x, y):
        return nn.functional.one_hot(y, 3) + x.mean((2, 3))

    def encode(self, x):
        return x

    def decode(self, content, s):
        return content + self.strength.detach() * s[:, :, None, None]

    def translate(self, x, y_trg, z=None, x_ref=None, style=None):
        return self.decode(self.encode(x), style)


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A run with curves in two parts, as a resumed one has, and a config."""
    for version, steps in enumerate([range(0, 60, 10), range(40, 100, 10)]):
        folder = tmp_path / "logs" / f"version_{version}"
        folder.mkdir(parents=True)
        with (folder / "metrics.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, ["epoch", "step", "d/real", "latent/adv"])
            table.writeheader()
            for k in steps:
                table.writerow(
                    {"epoch": 0, "step": k, "d/real": version, "latent/adv": 1 / (k + 1)}
                )
    monkeypatch.setattr("gen.report.CELL_PX", 32)  # small pages are quick
    monkeypatch.setattr("gen.report.MOVING_PX", 16)
    (tmp_path / "config.yaml").write_text("model:\n  lambda_x: 0.25  # <kept>\n")
    return tmp_path


# ---- galleries -----------------------------------------------------------------------------------


def test_pick_is_balanced_and_staggered():
    sources, refs = common.pick(Images(), 2), common.pick(Images(), 2, shift=0.5)
    assert [i // 5 for i in sources] == [0, 0, 1, 1, 2, 2]
    assert len({i % 5 for i in sources}) > 2  # not the same two contents in every domain
    assert sources != refs
    assert common.pick(Images(), 99) == list(range(15))


def test_grids_hold_what_the_method_gives():
    method, images = Tint(), Images()
    x, y = common.batch(method, images, [0, 7, 14])
    assert y.tolist() == [0, 1, 2]
    rows, headers = translation.latent_grid(method, x, (0, 5))
    assert headers == [("source", 1), ("bear", 2), ("cat", 2), ("dog", 2)]
    assert torch.equal(rows[1][0], x[1])
    s = translation.style(method, 2, 5)
    assert torch.equal(rows[1][6], method.decode(x[1:2], s)[0])

    refs, y_refs = common.batch(method, images, [12, 3, 8])
    rows, headers = translation.reference_grid(method, x, refs, y_refs)
    assert headers == [("source", 1), ("bear", 1), ("cat", 1), ("dog", 1)]
    assert rows[0][0] is None and torch.equal(rows[0][3], refs[0])
    s = method.encode_style(refs[:1], y_refs[:1])
    assert torch.equal(rows[2][3], method.decode(x[1:2], s)[0])

    rows, headers = translation.paired_grid(method, images, [0, 7, 14], 0)
    assert headers == [("source", 1), ("bear", 2), ("cat", 2), ("dog", 2)]
    assert torch.equal(rows[1][6], images[12]["x"])  # content 2 as a dog
    assert torch.equal(rows[1][5], method.decode(x[1:2], translation.style(method, 2, 0))[0])


def test_psi_leads_to_the_mean_style():
    method = Tint()
    mean, s = method.mean_style(1), translation.style(method, 1, 3)
    assert torch.equal(translation.style(method, 1, 3, psi=0.0), mean)
    assert torch.allclose(translation.style(method, 1, 3, psi=0.7), mean + 0.7 * (s - mean))
    assert not torch.equal(s, translation.style(method, 1, 4))


def test_walk_goes_from_key_to_key_and_joins_them_once():
    method = Tint()
    x, _ = common.batch(method, Images(), [0, 7])
    _, keys = translation.route(method, ["cat", "bear"], [0], via="dog")
    legs = translation.walk(method, x, keys, 6)
    frames = common.join(legs)
    assert frames.shape == (2, 11, 3, SIZE, SIZE)
    for at, key in zip((0, 5, 10), keys, strict=True):
        assert torch.allclose(frames[:, at], method.decode(x, key.expand(2, -1)).clamp(-1, 1))
    assert frames.abs().max() <= 1


def test_route_names_its_stops(tmp_path):
    method = Tint()
    (tmp_path / "dog").mkdir()
    image = tmp_path / "dog" / "a.png"
    Image.new("RGB", (20, 20), "red").save(image)
    names, styles = translation.route(method, ["cat"], [3])
    assert names == ["cat", "cat"] and torch.equal(styles[1], translation.style(method, 1, 4))
    assert translation.route(method, ["cat", "bear"], [1, 2])[0] == ["cat", "bear"]
    assert translation.route(method, ["cat", "bear"], [1], str(image))[0] == ["cat", "dog", "bear"]
    assert translation.route(method, [], [image, image])[0] == ["dog", "dog"]
    names, styles = translation.route(method, ["cat", "bear"], [image])
    want = method.encode_style(common.read(method, image), torch.tensor([1]))
    assert names == ["cat", "bear"] and torch.equal(styles[0], want)


def test_route_says_what_is_wrong(tmp_path):
    method = Tint()
    image = tmp_path / "a.png"
    Image.new("RGB", (20, 20)).save(image)
    with pytest.raises(ValueError, match=r"domains \(bear, cat, dog\), got 'lion'"):
        translation.route(method, ["cat", "lion"], [0])
    with pytest.raises(ValueError, match=r"domains \(bear, cat, dog\), got 'nowhere.png'"):
        translation.route(method, ["cat", "dog"], [0], "nowhere.png")
    with pytest.raises(ValueError, match="got 3 domains and 2 seeds"):
        translation.route(method, DOMAINS, [0, 1])
    with pytest.raises(ValueError, match="got 0 domains and 1 seeds"):
        translation.route(method, [], [0])
    with pytest.raises(ValueError, match="a.png: expected a reference in a folder named after"):
        translation.route(method, [], [image, image])


# ---- the page ------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """Tags, references and text of a page; fails on a tag that does not close."""

    VOID = {"meta", "img", "br", "path", "rect", "polyline"}

    def __init__(self, page):
        super().__init__()
        self.tags, self.refs, self.open, self.text = [], [], [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "data", "poster", "action", "xlink:href"):
                self.refs.append(value)
            self.refs += re.findall(r"url\(([^)]*)\)", value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and self.open[-1] == "style":
            assert "url(" not in data and "@import" not in data


def pictures(page):
    """The inlined pictures, decoded."""
    found = []
    for ref in page.refs:
        mime, data = re.fullmatch(r"data:(image/\w+);base64,(.*)", ref).groups()
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert Image.MIME[image.format] == mime
        found.append(image)
    return found


def test_page_is_self_contained_and_escaped(tmp_path):
    gif = io.BytesIO()
    Image.new("P", (4, 4)).save(gif, "GIF")
    Image.new("RGB", (5, 7)).save(tmp_path / "a.png")
    out = write_report(
        tmp_path / "sub" / "r.html",
        title="A <b> & c",
        abstract=["x < y"],
        sections={
            "Pairs": [("one & only", tmp_path / "a.png"), ("moves", gif.getvalue())],
            "Two": [
                Figure(
                    "both",
                    [
                        Panel(Image.new("RGBA", (30, 10)), "<t>", [("a", 1), ("b & c", 2)], lead=1),
                        Panel(Image.new("RGB", (9, 9)), steps=[1, 2, 3], notes=[("PS", "<1")]),
                    ],
                    beside=True,
                )
            ],
        },
        config_text="a: <1>\nb: 2\n",
        versions={"python": "3"},
    )
    page = Parsed(out.read_text(encoding="utf-8"))
    assert [p.size for p in pictures(page)] == [(5, 7), (4, 4), (30, 10), (9, 9)]
    assert not {"script", "link", "iframe", "b>"} & set(page.tags)
    for text in ("A <b> & c", "x < y", "one & only", "<t>", "b & c", "<1", "a: <1>", "All 2 lines"):
        assert text in page.text
    assert page.tags.count("rect") == 3


def test_table_shows_value_interval_direction_and_the_other_checkpoint(tmp_path):
    rows = [
        dict(
            metric="inter/latent/ps_t20_alex",
            value=0.91234,
            ci95=[0.9, 0.925],
            count=1234,
            better="higher",
        ),
        dict(
            metric="inter/latent/pir_t20_alex",
            value=0.2,
            ci95=[0.1, 0.3],
            count=1234,
            better="lower",
        ),
        dict(metric="unheard_of", value=123456.0, protocol="p < q"),
        *(dict(metric=f"a_{of}", value=1.0, better=of) for of in ("lower", "none", "up")),
    ]
    out = write_report(
        tmp_path / "r.html", title="t", metrics=metrics_table(rows, [rows[0] | {"value": 0.5}])
    )
    page = out.read_text()
    lines = [Parsed(f"<tr{row}".split("</tr>")[0] + "</tr>").text for row in page.split("<tr")[2:]]
    assert lines[0].startswith("Inter, latent") and lines[3].endswith("p < q")
    assert lines[1] == "ps_t20_alex ↑" + "0.9123" + "0.9000 – 0.9250" + "0.5000" + "1,234"
    assert lines[2] == "pir_t20_alex ↓" + "0.2000" + "0.1000 – 0.3000" + "–" + "1,234"
    assert lines[4] == "unheard_of" + "1.235e+05" + "–" * 3
    names = [line.partition("1.0")[0] for line in lines[6:]]
    assert names == ["a_lower ↓", "a_none", "a_up"]


def test_the_report_warns_of_values_that_mean_nothing(tmp_path):
    def row(metric, value):
        return dict(metric=metric, value=value)

    fine = [
        row("intra/latent/direct_t20_alex", 0.2),
        row("intra/latent/ps_t20_alex", 0.9),
        row("inter/source/direct_t20_alex", 0.0),  # a control that is meant to stand
        row("inter/latent/gradual_t20_alex_mobilenetv2", 0.6),
        row("inter/dissolve/gradual_t20_alex_mobilenetv2", 0.4),
        row("latent/paired_lpips_alex", 0.2),
        row("source/paired_lpips_alex", 0.3),
        row("fidelity/latent/kd_effnetlite0_s90_10x", 0.02),
        row("fidelity/source/kd_effnetlite0_s90", 0.04),
        row("real/accuracy_resnet18", 0.92),
    ]
    assert doubts(fine) == []
    for metric, value, said in (
        ("intra/latent/direct_t20_alex", 0.018, "outputs hardly differ. Of paths that travel less"),
        ("inter/latent/gradual_t20_alex_mobilenetv2", 0.4, "no better than 0.400 of a cross-diss"),
        ("latent/paired_lpips_alex", 0.31, "no better than the source left unchanged, 0.3000"),
        ("fidelity/latent/kd_effnetlite0_s90_10x", 0.1, "0.1000, no better than the source left"),
        ("real/accuracy_resnet18", 0.5, "the accuracies by this classifier say little"),
    ):
        changed = [row(r["metric"], value if r["metric"] == metric else r["value"]) for r in fine]
        (told,) = doubts(changed)
        assert said in told
        out = write_report(tmp_path / "r.html", title="t", metrics=metrics_table(changed))
        assert told in Parsed(out.read_text()).text


def test_a_strip_that_hardly_moves_gives_no_ps(run_dir, monkeypatch):
    still = torch.full((1, 19), 1e-3), torch.tensor([0.019])
    monkeypatch.setattr("gen.report.path_distances", lambda *_: still)
    text = Parsed(build(Tint(), Images(), run_dir, lpips="net").read_text()).text
    assert text.count("distance 0.019") == text.count("PS and straightness mean nothing") == 6
    assert "PS 0." not in text


def test_curves_of_a_resumed_run_do_not_overlap(run_dir):
    rows = read_curves(run_dir)
    assert [int(r["step"]) for r in rows] == list(range(0, 100, 10))
    assert [r["d/real"] for r in rows] == ["0"] * 4 + ["1"] * 6
    assert read_curves(run_dir / "nothing") == []


@pytest.mark.parametrize("beside", [False, True])
def test_build_shows_everything_and_repeats_itself(run_dir, beside):
    more = dict(shipped=Tint(0.4), shipped_rows=[dict(metric="a", value=1)]) if beside else {}
    rows = [dict(metric="a", value=2.0)]
    out = build(Tint(), Images(), run_dir, metrics_rows=rows, **more)
    page, first = Parsed(out.read_text(encoding="utf-8")), out.read_bytes()
    found = pictures(page)
    moving = [p for p in found if getattr(p, "is_animated", False)]
    assert len(moving) == 1 + 6 and len(found) == 7 + 6 + (5 if beside else 3)
    times = [sum(f.copy().info["duration"] for f in ImageSequence.Iterator(g)) for g in moving]
    assert times == [83 * 33, *[83 * 38] * 6]  # 3 legs of 12, closed; 20 there and back
    for text in (
        "Tint",
        "bear, cat, dog",
        "iteration 90",
        "bear → cat",
        "lambda_x: 0.25  # <kept>",
    ):
        assert text in page.text
    assert ("shipped checkpoint" in page.text) == beside
    assert page.text.count("latent/adv") == 1 and "Against the true images" in page.text
    if not beside:
        assert build(Tint(), Images(), run_dir, metrics_rows=rows).read_bytes() == first


def test_build_measures_its_strips(run_dir, monkeypatch):
    def distances(lpips, frames):
        assert lpips == "net" and frames.shape == (1, 20, 3, SIZE, SIZE)
        return torch.full((1, 19), 0.1), torch.tensor([0.95])

    monkeypatch.setattr("gen.report.path_distances", distances)
    text = Parsed(build(Tint(), Images(), run_dir, lpips="net").read_text()).text
    straight = 0.95**0.5 / (19 * 0.1**0.5)
    assert text.count("distance 0.950") == 6 and text.count(f"straightness {straight:.3f}") == 6
    assert "PS 0.667" in text and "PIR 0.000" in text


def test_build_refuses_other_domains(run_dir):
    other = Tint()
    other.domains = ["lion", "cat", "dog"]
    with pytest.raises(ValueError, match="expected shipped with the method's domains.*lion"):
        build(Tint(), Images(), run_dir, shipped=other)
    with pytest.raises(ValueError, match="expected images with the method's domains.*bear"):
        build(other, Images(), run_dir)


# ---- scripts -------------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """Runs a script on the tiny method; returns (exit status or message, stdout, stderr)."""
    monkeypatch.setattr(gen, "load", lambda path, device="cpu", *_: Tint())
    monkeypatch.chdir(tmp_path)

    def run(name, *args):
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        code = 0
        try:
            runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def folder(tmp_path):
    """in/cat/{a.png,b.jpg} and in/dog/c.png, 40 px."""
    rng = np.random.default_rng(0)
    for name in ("cat/a.png", "cat/b.jpg", "dog/c.png"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    return tmp_path / "in"


def test_translate_a_folder(script, folder):
    code, out, _ = script("translate.py", "--checkpoint", "c", "--input", folder, "--out", "o",
                          "--domain", "dog", "--seed", 3, "--psi", 0.7)  # fmt: skip
    assert code == 0 and "3 of 3 images" in out
    assert sorted(str(p.relative_to("o")) for p in Path("o").rglob("*.*")) == [
        "cat/a.png",
        "cat/b.png",
        "dog/c.png",
    ]
    method = Tint()
    x = common.read(method, folder / "cat/a.png")
    want = method.decode(x, translation.style(method, 2, 3, 0.7)).clamp(-1, 1)
    got = torch.from_numpy(np.array(Image.open("o/cat/a.png"))).permute(2, 0, 1) / 127.5 - 1
    assert (got - want[0]).abs().max() <= 0.5 / 127.5 + 1e-6


def test_translate_one_image_by_a_reference(script, folder):
    args = ("--checkpoint", "c", "--input", folder / "cat/b.jpg", "--out", "o")
    code, _, err = script("translate.py", *args, "--domain", "dog", "--ref", folder / "dog/c.png")
    assert code == 0 and not err and Image.open("o/b.png").size == (SIZE, SIZE)


def test_translate_names_what_is_wrong(script, folder):
    args = ("--checkpoint", "c", "--input", folder, "--out", "o")
    code, _, _ = script("translate.py", *args, "--domain", "lion")
    assert "(bear, cat, dog), got 'lion'" in code
    (folder / "dog/c.png").write_bytes(b"")
    code, out, err = script("translate.py", *args, "--domain", "cat")
    assert code == 1 and "2 of 3 images" in out and "dog/c.png: the file is empty" in err
    Image.new("RGB", (9, 9)).save(folder / "cat/a.bmp")
    code, _, _ = script("translate.py", *args, "--domain", "cat")
    assert "a.bmp and a.png" in code
    code, _, _ = script("translate.py", "--checkpoint", "c", "--input", "none", "--out", "o",
                        "--domain", "cat")  # fmt: skip
    assert code == 1


def test_interpolate_writes_strip_gif_and_mp4(script, folder, monkeypatch):
    def unavailable(*_, **__):
        raise WeightsError("LPIPS alex: expected weights, got none")

    monkeypatch.setattr(smoothness, "InterpolationSmoothness", unavailable)
    code, out, err = script("interpolate.py", "--checkpoint", "c", folder / "cat/a.png",
                            "--domains", "cat", "dog", "--via", "bear", "--frames", 6,
                            "--out", "o")  # fmt: skip
    assert code == 0 and "smoothness not measured: LPIPS alex" in err
    with Image.open("o/a.gif") as gif:
        assert gif.n_frames == 2 * 11 - 2
    video = cv2.VideoCapture("o/a.mp4")
    assert sum(iter(lambda: video.read()[0], False)) == 20
    assert Image.open("o/a.png").width > 11 * 192


def test_interpolate_measures_each_leg(script, folder, monkeypatch):
    class Still(smoothness.InterpolationSmoothness):
        def __init__(self, frames):
            super().__init__(Flat(), frames)

    class Flat(nn.Module):
        net = "alex"

        def features(self, x):
            return [x.mean((2, 3), keepdim=True)]

        def distance(self, a, b):
            return (a[0] - b[0]).square().sum((1, 2, 3))

    walk, seen = translation.walk, []

    def watched(method, x, *more):
        seen.append(len(x))
        return walk(method, x, *more)

    monkeypatch.setattr(translation, "walk", watched)
    monkeypatch.setattr(smoothness, "InterpolationSmoothness", Still)
    code, out, err = script("interpolate.py", "--checkpoint", "c", folder / "cat/a.png",
                            folder / "dog/c.png", "--refs", folder / "cat/a.png",
                            folder / "dog/c.png", "--frames", 5, "--out", "o")  # fmt: skip
    assert code == 0, err
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [(Path(r["image"]).name, r["from"], r["to"]) for r in rows] == [
        ("a.png", "cat", "dog"),
        ("c.png", "cat", "dog"),
    ]
    assert all(0 < r["ps_t5_alex_strict"] <= 1 for r in rows)
    assert seen == [1, 1]  # however many photos, their frames are not in memory together
    assert {p.name for p in Path("o").glob("*.png")} == {"00-a.png", "01-c.png"}


def test_interpolate_names_what_is_wrong(script, folder):
    code, _, _ = script("interpolate.py", "--checkpoint", "c", folder / "cat/none.png",
                        "--domains", "cat", "dog")  # fmt: skip
    assert code.startswith("error: ") and "none.png: cannot be read" in code
    code, _, _ = script("interpolate.py", "--checkpoint", "c", folder / "cat/a.png")
    assert "name another domain (there are bear, cat, dog)" in code


def test_make_report_takes_all_from_the_run(script, run_dir, folder, monkeypatch, caplog):
    def unavailable(*_):
        raise WeightsError("LPIPS alex: expected weights, got none")

    monkeypatch.setattr("gen.report.LPIPS", unavailable)
    for name in ("bear/d.png", "bear/e.png", "cat/f.png", "dog/g.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), "navy").save(folder / name)
    config = {"class_path": "gen.data.Domains", "init_args": {"root": str(folder)}}
    (run_dir / "config.yaml").write_text(json.dumps({"data": config}))
    row = {"metric": "a/ps_t20_alex", "value": 0.25, "better": "higher"}
    (run_dir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    code, out, err = script("make_report.py", run_dir)
    assert code == 0 and out.strip() == str(run_dir / "report.html"), code
    assert "not measured" in err + caplog.text
    text = Parsed((run_dir / "report.html").read_text()).text
    assert "ps_t20_alex ↑0.2500" in text and "Guided by references" in text


PAGES = rows("PAGES") | {  # what a page says
    "StyleGAN2": "Images of the seeds 0 to 31",
    "StyleFunction": "More pictures: gen edit",
    "LinearDirections": "More pictures: gen edit",
    "StepwiseEditor": "More pictures: gen edit",
    "InversionEncoder": "More pictures: gen edit --encoder",
    "SpatialEntropy": "gen attention draws maps",
    "DomainClassifier": "More pictures: gen predict",
    "AttributeClassifier": "More pictures: gen predict",
}


@pytest.mark.parametrize("name", PAGES)
def test_make_report_of_any_method(name, run_dir, edited, monkeypatch, capsys):
    options = OPTIONS[name] | (edited if getattr(gen.methods, name).task == "editor" else {})
    names = ["a", "b"][: options.get("num_domains", 1 if name == "StyleGAN2" else 2)]
    ship(getattr(gen.methods, name)(**options), run_dir / "x.safetensors", names)
    rows = run_dir / "metrics.jsonl"
    if name == "StyleGAN2":
        rows.write_text('{"metric": "fd_x", "value": 0.25}\n')
    checkpoint = str(run_dir / "x.safetensors")
    words = ["make_report.py", str(run_dir), "--checkpoint", checkpoint]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(SCRIPTS / "make_report.py"), run_name="__main__")
    assert capsys.readouterr().out.strip() == str(run_dir / "report.html")
    text = Parsed((run_dir / "report.html").read_text()).text
    for words in (name, PAGES[name], "iteration 90", "lambda_x: 0.25"):
        assert words in text
    assert ("Not measured yet" in text) != rows.exists()


@pytest.mark.parametrize(
    "line", [b"{", b"3", b"[]", b'{"metric": "x"}', b'{"metric": 1, "value": 2}', b"[" * 9999]
    + [b"\xff", b'{"metric": "x", "value": [1]}'],
)  # fmt: skip
def test_make_report_names_what_are_no_metrics(script, run_dir, line):
    ship(
        gen.methods.DomainClassifier(**OPTIONS["DomainClassifier"]),
        run_dir / "x.safetensors",
        ["a", "b"],
    )
    (run_dir / "metrics.jsonl").write_bytes(line + b"\n")
    rows = [{"metric": "x", "value": 0.5}]
    (run_dir / "good.jsonl").write_text(to_json(rows))
    assert from_json(run_dir / "good.jsonl") == rows
    code, _, _ = script("make_report.py", run_dir, "--checkpoint", run_dir / "x.safetensors")
    assert code.startswith(f"error: {run_dir / 'metrics.jsonl'}: expected JSON lines with `metric`")


def test_the_config_of_the_run_wins_over_one_below(run_dir):
    (run_dir / "wandb").mkdir()
    (run_dir / "wandb/config.yaml").write_text("later: 1")
    assert "lambda_x" in read_config(run_dir)


def test_a_config_that_is_not_utf_8_is_shown_all_the_same(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"a: 1 # caf\xe9")
    assert read_config(tmp_path) == r"a: 1 # caf\xe9"


def test_make_report_asks_for_data_that_no_config_names(script, run_dir):
    code, _, _ = script("make_report.py", run_dir)
    assert code.startswith("error: --data: expected a folder, a zip or `heads`")


def test_the_page_of_an_editor_draws_its_curve(run_dir):
    rows = [
        {"metric": f"curves/{name}_s{s:g}", "value": value, "ci95": [value - 0.1, value + 0.1]}
        for s in (0.5, 1.0)
        for name, value in (("success", s / 2), ("lpips_alex", s / 4))
    ]
    (drawn,) = strength_curve(rows)
    assert "strength 0.5" in drawn and "strength 1" in drawn and drawn.count("<circle") == 2
    assert strength_curve(rows[:1]) == []
    page = build_plain(gen.methods.LinearDirections(**OPTIONS["LinearDirections"]), run_dir, rows)
    assert "all labels right over LPIPS to the source" in page.read_text()
