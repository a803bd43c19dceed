"""The protocol that walks a data set: who is translated to what, rows, ledger, doors."""

import hashlib
import json
import runpy
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import gen
import gen.data
from gen.data.domains import Domains
from gen.evaluation.results import Results, fingerprint, to_json
from gen.evaluation.translators import Scorers, evaluate, measure
from gen.evaluation.translators.measure import OF_OUTPUTS
from gen.evaluation.translators.plan import draw_styles, plan
from gen.inference import common
from gen.metrics.nearest import Nearest
from gen.metrics.smoothness import REPORTED, InterpolationSmoothness
from gen.networks import perceptual
from gen.networks.perceptual import LPIPS
from pictures import write
from toys import SIZE, Images, Toy, Translator, frames, tint


@pytest.fixture(scope="module")
def net(lpips_cache):
    return LPIPS("alex")


ERRORS = ("paired_lpips_alex", "paired_ssim", "paired_l1")


def table(rows):
    return {row["metric"]: row["value"] for row in rows}


@pytest.fixture(scope="module")
def rows(net):
    return evaluate(Translator(spread=0.3), Images(), max_sources=3)


def test_rows(rows):
    smooth = [
        f"{group}/{guide}/{key}_t20_alex"
        for guide in ("latent", "reference")
        for group in ("intra", "inter")
        for key in (*REPORTED, "peak", "path_length", "sum", "max", "pdv", "progress")
    ]
    smooth += [f"inter/{guide}/travel_t20_alex" for guide in ("latent", "reference")]
    smooth += [
        f"{group}/{guide}/istd_t20"
        for guide in ("latent", "reference")
        for group in ("intra", "inter")
    ]
    kept = [
        f"{guide}/{key}"
        for guide in ("latent", "reference")
        for key in ("content_lpips_alex", "content_l1", *ERRORS)
    ]
    best = [
        f"{guide}/{key.replace('paired', f'paired_best{k}')}"
        for guide, k in (("latent", 10), ("reference", 4))
        for key in ERRORS
    ]
    varied = ["latent/diversity_k10_alex", "reference/diversity_k4_alex"]
    trivial = [f"source/{key}" for key in ERRORS]
    assert sorted(table(rows)) == sorted(smooth + kept + best + varied + trivial)
    assert len(rows) == len(table(rows))
    for line, row in zip(to_json(rows).splitlines(), rows, strict=True):
        assert list(json.loads(line)) == [
            *("metric", "value", "ci95", "protocol", "count", "better", "seed"),
            *("checkpoint_sha256", "versions", "seconds"),
        ]
        assert torch.tensor(list(row["values"].values())).mean() == pytest.approx(row["value"])
        low, high = row["ci95"]
        assert low <= row["value"] <= high
        assert row["count"] == 3 and row["seconds"] > 0 and row["versions"]["torch"]


def test_evaluation_twice_and_with_another_batch_size(rows, net):
    method = Translator(spread=0.3)
    again = evaluate(method, Images(), max_sources=3, batch_size=2)
    for name, value_ in table(again).items():
        assert value_ == pytest.approx(table(rows)[name], abs=1e-5)
    assert method.encoded == 3
    groups = {"metrics": ["translation"], "max_sources": 3}
    first, second = (table(evaluate(Translator(0.3), Images(), **groups)) for _ in range(2))
    assert first == second
    assert first.items() <= table(rows).items()


def test_a_perfect_translator_beats_the_unchanged_source(net):
    values = table(evaluate(Translator(), Images(), ["translation"], max_sources=4))
    assert values["latent/paired_l1"] == pytest.approx(0, abs=1e-6)
    assert values["reference/paired_lpips_alex"] == pytest.approx(0, abs=1e-6)
    assert values["latent/diversity_k10_alex"] == pytest.approx(0, abs=1e-9)
    assert values["source/paired_l1"] == pytest.approx(1 / 6, abs=1e-5)
    assert values["source/paired_lpips_alex"] > 0.01


def test_a_sudden_change_scores_worse_than_a_gradual_one(net):
    options = {"metrics": ["inter"], "max_sources": 2, "grid": "strict"}
    gradual = table(evaluate(Translator(), Images(), **options))
    sudden = table(evaluate(Translator(sharpness=60), Images(), **options))
    ps, pir = "inter/latent/ps_t20_alex_strict", "inter/latent/pir_t20_alex_strict"
    assert gradual[ps] > sudden[ps] + 0.2
    assert gradual[pir] < sudden[pir]


class Colour(nn.Module):
    """Stands for an LPIPS network: squared distance of mean colours."""

    def __init__(self, net="vgg"):
        super().__init__()
        self.net = net

    def forward(self, x, y):
        return self.distance(self.features(x), self.features(y))

    def features(self, x):
        return [x.mean((2, 3))]

    def distance(self, a, b):
        return (a[0] - b[0]).square().sum(1)


def test_a_uniform_grid_makes_a_sudden_change_even_and_a_second_network_looks_too(net, monkeypatch):
    monkeypatch.setattr(measure, "LPIPS", lambda name: Colour() if name == "vgg" else net)
    options = dict(metrics=["inter"], max_sources=1, net=["alex", "vgg"])
    found = {
        grid: table(evaluate(Translator(sharpness=12), Images(), grid=grid, **options))
        for grid in ("strict", "uniform")
    }
    for network in ("alex", "vgg"):
        even, sudden = (
            [found[grid][f"inter/latent/{key}_t20_{network}_{grid}"] for key in ("eq", "straight")]
            for grid in ("uniform", "strict")
        )
        assert even[0] > sudden[0] + 0.3
        assert even[1] == pytest.approx(sudden[1], abs=0.1)  # the way is the same
    names = {name.split("/")[-1] for name in found["strict"]}
    assert "pplsq_t20_vgg_strict" in names and "pplsq_t20_alex_strict" not in names


def test_unpaired_data_has_no_paired_rows(net):
    values = table(evaluate(Translator(), Images(paired=False), ["translation"], max_sources=2))
    assert not [name for name in values if "paired" in name]


def test_a_missing_twin_leaves_only_the_paired_count(net, monkeypatch):
    images = Images()
    absent = plan(images, 777)[0].index
    twin = images.twin
    monkeypatch.setattr(images, "twin", lambda i, d: None if i == absent else twin(i, d))
    counts = {
        row["metric"]: row["count"]
        for row in evaluate(Translator(), images, ["translation"], max_sources=3)
    }
    assert counts["latent/paired_l1"] == counts["source/paired_l1"] == 2
    assert counts["latent/content_l1"] == 3


def test_the_plan_is_balanced_and_a_short_one_begins_a_long_one():
    images = Images(count=12)
    sources = plan(images, seed=0)
    assert sorted(s.index for s in sources) == list(range(36))
    assert sources[:7] == plan(images, 0, 7) != plan(images, 1, 7)
    assert all(images.labels[s.index] != s.target and s.start != s.end for s in sources)
    assert set(Counter((int(images.labels[s.index]), s.target) for s in sources).values()) == {6}
    assert set(Counter((s.start, s.end) for s in sources).values()) == {6}
    assert Counter(images.labels[[s.index for s in sources[:6]]].tolist()) == {0: 2, 1: 2, 2: 2}


def test_references_are_of_the_domain_and_never_the_twin(monkeypatch):
    images, seen = Images(), []
    batch = common.batch
    monkeypatch.setattr(common, "batch", lambda m, i, n: seen.append(list(n)) or batch(m, i, n))
    sources = plan(images, 0, 6)
    draw(images, sources, "reference", 4)
    for source, refs in zip(sources, zip(*seen, strict=True), strict=True):
        assert [int(images.labels[r]) for r in refs] == [source.target] * 4
        assert source.index not in refs and images.twin(source.index, source.target) not in refs
        assert len(set(refs)) == 4


def draw(images, sources, guide, count, seed=0, role="target"):
    indices, domains = [s.index for s in sources], [getattr(s, role) for s in sources]
    key = dict(seed=seed, guide=guide)
    return draw_styles(Translator(1.0), images, indices, domains, role, count, **key)


@pytest.mark.parametrize("guide", ["latent", "reference"])
def test_styles_depend_on_the_source_and_the_role_alone(guide):
    images, sources = Images(), plan(Images(), 0, 4)
    whole = draw(images, sources, guide, 4)  # (4, 4, D)
    torch.testing.assert_close(whole[2:3, :2], draw(images, sources[2:3], guide, 2))
    assert not torch.equal(whole, draw(images, sources, guide, 4, seed=1))
    ends = (draw(images, [s._replace(start=0, end=0) for s in sources], guide, 1, role=role)
            for role in ("start", "end"))  # fmt: skip
    assert not torch.equal(*ends)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"metrics": ["fid"]}, "metrics"),
        ({"metrics": "intra"}, "metrics"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_sources": 0}, "max_sources"),
        ({"metrics": ["accuracy"]}, r"accuracy \(a classifier\)"),
        ({"metrics": ["intra", "fidelity"]}, r"fidelity \(training images\)"),
    ],
)
def test_evaluate_refuses_options(change, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Translator(), Images(), **change)


@pytest.mark.parametrize(
    "name, value_, message",
    [
        ("img_size", 64, "32 px, got 64"),
        ("domains", ["a", "b", "c"], "domains"),
        ("labels", torch.tensor([0, 0, 0, 1, 1, 1]), "2 domains with validation images.*'red': 0"),
    ],
)
def test_evaluate_refuses_images_that_do_not_fit(name, value_, message):
    images = Images()
    setattr(images, name, value_)
    with pytest.raises(ValueError, match=message):
        evaluate(Translator(), images)


@pytest.mark.parametrize("group", measure.BASIC)
def test_a_method_that_gives_nan_is_refused(net, group, monkeypatch):
    method = Translator()
    monkeypatch.setattr(method, "decode", lambda content, s: content * torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        evaluate(method, Images(), [group], max_sources=1)


def two_processes(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/init", rank=rank, world_size=2)
    found = evaluate(Translator(spread=0.3), Images(), ["translation"], max_sources=3)
    metric = InterpolationSmoothness(frames=3, resize=64)
    metric.update(frames(4, 3)[rank::2])
    smooth = {name: v.item() for name, v in metric.compute().items()}
    torch.save({"rows": table(found), "smooth": smooth}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_values_of_one(net, rows, tmp_path):
    mp.spawn(two_processes, (str(tmp_path),), nprocs=2)
    metric = InterpolationSmoothness(net, frames=3, resize=64)
    metric.update(frames(4, 3))
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, value_ in got["rows"].items():
            assert value_ == pytest.approx(table(rows)[name], abs=1e-5)
        for name, value_ in metric.compute().items():
            assert got["smooth"][name] == pytest.approx(value_.item(), abs=1e-5)


class Data:
    train = val = Images()


def test_the_script_prints_and_writes_json_lines(net, tmp_path, monkeypatch, capsys):
    checkpoint, out = tmp_path / "c.safetensors", tmp_path / "new" / "rows.jsonl"
    checkpoint.write_bytes(b"weights")
    monkeypatch.setattr(gen, "load", lambda path, device, *_: Translator())
    monkeypatch.setattr(gen.data, "Domains", lambda *_, **__: Data)
    line = f"evaluate --checkpoint {checkpoint} --data x --metrics translation --max-sources 2"
    monkeypatch.setattr(sys, "argv", [*line.split(), "--out", str(out)])
    runpy.run_path("scripts/evaluate.py", run_name="__main__")
    written = [json.loads(line) for line in out.read_text().splitlines()]
    printed = capsys.readouterr().out
    assert [json.loads(line) for line in printed.splitlines() if line[:1] == "{"] == written
    assert len(written) == 24 and (written[0]["seed"], written[0]["data"]) == (777, "x")
    assert written[0]["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert "latent/paired_l1 " in printed.split("95 % interval")[1]


# ---- judges -----------------------------------------------------------------------------------


class Tints(nn.Module):
    """Knows a domain by its tint."""

    domains, hparams = Images.domains, SimpleNamespace(model_name="tints")

    def classify(self, x):
        return x.mean((2, 3))


def test_accuracy_stands_beside_that_on_held_out_images(net):
    judges = Scorers(classifier=Tints())
    found = evaluate(Translator(), Images(), ["accuracy"], judges, max_sources=4)
    right = dict.fromkeys(("latent", "reference", "real", "twin"), 1.0) | {"source": 0.0}
    assert table(found) == {f"{of}/accuracy_tints": share for of, share in right.items()}

    class Stubborn(Translator):  # leaves the source as it is
        def decode(self, content, s):
            return (content + 1) / 2 - 0.5

    wrong = table(evaluate(Stubborn(), Images(), ["accuracy"], judges, max_sources=4))
    assert wrong["latent/accuracy_tints"] < 0.6 and wrong["real/accuracy_tints"] == 1


def test_the_nearest_training_image_is_found_and_scored_against_the_twin(net, monkeypatch):
    images = Images()
    x = torch.stack([images[i]["x"] for i in range(3)])
    shifted = (x + 0.01).clamp(-1, 1)  # near to itself, not equal
    assert torch.equal(Nearest(images)(shifted, [0, 0, 0]), x)
    other = images[7]["x"][None]  # of domain 1, among all
    assert torch.equal(Nearest(images)(other, [(0, 1, 2)]), other)
    assert not torch.equal(Nearest(images)(other, [(0, 2)]), other)
    judges, options = Scorers(images), dict(metrics=["translation"], max_sources=3)
    same = table(evaluate(Translator(), images, judges=judges, **options))
    assert [same[f"nearest/{name}"] for name in ERRORS] == pytest.approx([0, 1, 0], abs=1e-6)
    other = Images()
    monkeypatch.setattr(other, "count", 1)  # one content in all domains: no copy is near
    other.labels = torch.arange(3)
    far = table(evaluate(Translator(), images, judges=Scorers(other), **options))
    assert far["nearest/paired_l1"] > 0.02 and far["nearest/paired_ssim"] < 0.9


@pytest.fixture
def toy_backbone(tmp_path, monkeypatch):
    """Features of fidelity that need no weights: mean colours."""
    monkeypatch.setattr("gen.metrics.extractors.load_backbone", lambda *_, **__: Toy())
    monkeypatch.setenv("GEN_CACHE", str(tmp_path))


def test_fidelity_of_every_ordered_pair_and_their_mean(toy_backbone, tmp_path):
    judges, path = Scorers(Images(8), backbone="toy"), tmp_path / "values.jsonl"
    found = evaluate(Translator(), Images(), ["fidelity"], judges, ledger=path)
    rows = {row["metric"]: row for row in found}
    mean = rows["fidelity/latent/fid_toy_10x"]
    single = [row for name, row in rows.items() if name.startswith(mean["metric"] + "/")]
    for guide in ("latent", "reference"):  # of 5 sources; the second backbone sees 3 outputs
        assert f"fidelity/{guide}/kd_mobilenetv2_s8_3x" in rows
    floors = [rows[f"fidelity/{of}/kid_toy_s5"]["value"] for of in ("source", "real")]
    assert floors[0] > 50 * abs(floors[1])
    assert abs(rows["fidelity/halves/kid_toy_s4"]["value"]) < floors[0] / 10
    assert {"fidelity/source/kd_mobilenetv2_s5", "fidelity/halves/kd_mobilenetv2_s4"} < rows.keys()
    assert len(single) == mean["count"] == 6 and "fidelity/reference/fid_toy_4x" in rows
    assert mean["value"] == pytest.approx(sum(row["value"] for row in single) / 6)
    assert all(row["ci95"] is None for row in single)
    assert "fidelity/latent/fid_toy_10x/blue>green" in rows

    class Stubborn(Translator):  # leaves the source as it is: far from the other domain
        def encode(self, x):
            return 2 * x

        def decode(self, content, s):
            return content / 2

    worse = table(evaluate(Stubborn(), Images(), ["fidelity"], judges))
    assert worse[mean["metric"]] > 10 * max(mean["value"], 1)
    blind = Translator()
    blind.encode = blind.decode = None
    again = evaluate(blind, Images(), ["fidelity"], judges, ledger=path)  # all is known
    assert table(again) == table(found)


def test_floors_of_fidelity_need_enough_images(toy_backbone, caplog):
    few = evaluate(Translator(), Images(3), ["fidelity"], Scorers(Images(5), backbone="toy"))
    assert {name.split("/")[1] for name in table(few)} == {"latent", "reference"}
    assert "KD of source: expected 4 images of blue, got 3" in caplog.text
    assert "KD of halves: expected 8 images of green, got 5" in caplog.text


class Weaver(Translator):
    """Draws a lattice of period 4 on all it makes."""

    def decode(self, content, s):
        x = super().decode(content, s)
        return x * 0.9 + 0.05 * (torch.arange(x.shape[-1]) % 4 < 2)


class Discs(Images):
    """A disc on a plain ground for each content."""

    def __getitem__(self, index):
        y, key = divmod(index, self.count)
        i = torch.arange(SIZE) - SIZE / 2
        disc = ((i[:, None] - key) ** 2 + i**2 < 36).float().expand(1, 3, -1, -1)
        return {"x": tint(disc - 0.5, torch.tensor([y]))[0], "y": y, "index": index}


@pytest.mark.parametrize("paired", [True, False])
def test_texture_rows_find_a_lattice(paired):
    judges = Scorers(Discs()) if not paired else None
    found = {
        kind.__name__: table(evaluate(kind(), Discs(paired=paired), ["texture"], judges))
        for kind in (Translator, Weaver)
    }
    for guide in ("latent", "reference"):
        clean, woven = (
            [found[kind][f"{guide}/texture_{key}"] for key in ("flat", "locked", "locked_ratio")]
            for kind in ("Translator", "Weaver")
        )
        assert clean == pytest.approx([0, 0, 0], abs=0.01)
        assert woven[:2] == pytest.approx([0.025 * 127.5] * 2, rel=0.05) and woven[2] > 10
        detail = f"{guide}/texture_detail_ratio"
        assert found["Translator"][detail] == pytest.approx(1, abs=0.01)
    assert found["Weaver"]["twin/texture_flat"] == pytest.approx(0, abs=0.01)
    assert found["Weaver"]["source/texture_detail_ratio"] == pytest.approx(1, abs=0.3)
    assert not [name for name in found["Weaver"] if "unchanged" in name or "_real" in name]


class Pale(Translator):
    """All that it makes is far from white and black, so its paths are straight lines."""

    def decode(self, content, s):
        return 0.4 * super().decode(content, s)


@pytest.fixture
def colours(toy_backbone, monkeypatch):
    """Only colours count: rows of a translator whose paths are straight, and its ledger."""
    monkeypatch.setattr(measure, "LPIPS", Colour)

    def rows(method=None, path=None, **changes):
        judges = Scorers(Images(8), "toy", Tints(), second=None)
        groups = ["intra", "inter", "controls", "psi", "middle"]
        options = dict(metrics=groups, judges=judges, ledger=path, grid="strict", max_sources=6)
        found = evaluate(method or Pale(0.3), Images(4), **options | changes)
        assert len({row["metric"] for row in found}) == len(found)
        return {row["metric"]: row for row in found}

    return rows


def test_controls_stand_beside_the_paths_of_a_model(colours):
    rows = colours()
    value = {name: row["value"] for name, row in rows.items()}
    for key in ("ps", "straight", "direct", "progress", "travel"):
        name = f"{key}_t20_alex_strict"
        # this model's path is a cross-dissolve, and a control says so
        assert value[f"inter/dissolve/{name}"] == pytest.approx(value[f"inter/latent/{name}"], 1e-4)
        assert value[f"inter/source/{name}"] == 0
    assert value["inter/twins/travel_t20_alex_strict"] == pytest.approx(1, abs=1e-5)
    near = [value[f"inter/nearest/{key}_t20_alex_strict"] for key in ("progress", "straight")]
    assert near[0] < value["inter/latent/progress_t20_alex_strict"] - 0.3 and near[1] > 0.9
    assert rows["inter/nearest/ps_t20_alex_strict"]["count"] == 6
    assert "inter/reference_psi2/ps_t20_alex_strict" not in rows  # for latents alone


def test_one_source_is_enough_for_paths(colours):
    rows = colours(max_sources=1)
    for name in ("inter/latent_psi2/realism_toy", "inter/dissolve/gradual_t20_alex_strict_toy"):
        assert rows[name]["count"] == 1
    assert not [name for name in rows if name.startswith("middle/latent/kid")]  # of 3 frames


def test_psi_stretches_styles_about_the_centre_of_their_domain(colours):
    rows = colours(metrics=["intra", "inter", "psi"])

    def direct(of):
        return torch.tensor([*rows[f"{of}/direct_t20_alex_strict"]["values"].values()])

    one = direct("intra/latent")
    torch.testing.assert_close(direct("intra/latent_psi0.5"), one / 4, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(direct("intra/latent_psi2"), one * 4, rtol=1e-3, atol=1e-7)
    assert direct("inter/latent_psi0.5").std() < direct("inter/latent").std()
    for key in ("realism_toy", "membership_tints", "gradual_t20_alex_strict_toy"):
        assert f"inter/latent_psi2/{key}" in rows and f"intra/latent_psi2/{key}" not in rows
    assert "2 times as far" in rows["inter/latent_psi2/ps_t20_alex_strict"]["protocol"]


def test_mid_path_frames_are_held_against_both_domains(colours, tmp_path):
    path = tmp_path / "values.jsonl"
    rows = colours(path=path)
    value = {name: row["value"] for name, row in rows.items()}
    # halfway between two tints is no image of either, and not what a classifier is sure of
    assert value["inter/real/realism_toy"] > 0.9 > 0.5 > value["inter/latent/realism_toy"]
    assert value["middle/latent/kid_toy_s6"] > 2 * abs(value["middle/real/kid_toy_s8"])
    assert value["inter/dissolve/realism_toy"] == pytest.approx(value["inter/latent/realism_toy"])
    assert 0.5 < value["inter/latent/membership_tints"] < 1
    assert rows["middle/latent/kid_toy_s6"]["count"] == 3  # pairs of domains
    for guide in ("latent", "reference", "dissolve"):
        gradual = rows[f"inter/{guide}/gradual_t20_alex_strict_toy"]
        factors = [
            rows[f"inter/{guide}/{key}"]["values"]
            for key in ("travel_t20_alex_strict", "progress_t20_alex_strict", "realism_toy")
        ]
        assert gradual["count"] == 6
        for unit, product in gradual["values"].items():
            a, b, c = (of_unit[unit] for of_unit in factors)
            assert product == pytest.approx(a * b * c)
    blind = Pale(0.3)
    blind.encode = blind.decode = None
    again = colours(blind, path)  # all is known
    assert {n: r["value"] for n, r in again.items()} == value


def test_without_twins_travel_is_measured_against_the_nearest_training_images(colours, monkeypatch):
    monkeypatch.setattr(Images, "twin", lambda *_: None)
    rows = colours(metrics=["inter"])
    assert 0.3 < rows["inter/latent/travel_t20_alex_strict"]["value"] <= 1
    assert "inter/latent/travel_t20_alex_strict" not in colours(metrics=["inter"], judges=None)


def test_path_length_is_larger_where_latents_matter():
    if not perceptual.cache_path("vgg").exists():
        pytest.skip("no LPIPS vgg in the cache: python -m gen.networks.perceptual fetches it")
    options = dict(metrics=["ppl"], max_sources=3)
    name = "latent/ppl_eps1e-4_vgg_zend"
    still, moving = (table(evaluate(Translator(s), Images(), **options)) for s in (0.0, 0.3))
    assert still[name] == pytest.approx(0, abs=1e-3) and moving[name] > 0.01


# ---- the ledger ---------------------------------------------------------------------------------


class Cut(Exception):
    pass


def test_an_evaluation_that_was_cut_goes_on(net, tmp_path, monkeypatch):
    path = tmp_path / "new" / "values.jsonl"
    options = dict(metrics=["translation"], max_sources=6, batch_size=2)
    whole = table(evaluate(Translator(0.3), Images(), **options))
    method, calls = Translator(0.3), []
    scores = OF_OUTPUTS["translation"]

    def counted(outputs):
        calls.append(1)
        if len(calls) == 4:
            raise Cut
        return scores(outputs)

    monkeypatch.setitem(OF_OUTPUTS, "translation", counted)
    with pytest.raises(Cut):
        evaluate(method, Images(), ledger=path, **options)
    text = path.read_text()
    path.write_text(text + text.splitlines()[-1][:30])  # and the machine went down in a line
    assert table(evaluate(method, Images(), ledger=path, **options)) == whole
    assert len(calls) == 4 + 3  # of two guides of three blocks three were known
    encoded = method.encoded
    longer = evaluate(method, Images(), ledger=path, **options | dict(max_sources=8))
    assert method.encoded - encoded == 2 and longer[0]["count"] == 8


def test_a_ledger_of_another_evaluation_is_refused(tmp_path):
    path = tmp_path / "values.jsonl"
    Results(path, {"checkpoint": "a", "seed": 1}, {})
    path.write_text(path.read_text() + "a cut line of it")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="expected an evaluation with seed = 2, got 1; delete it"):
        Results(path, {"checkpoint": "a", "seed": 2}, {})
    assert path.read_bytes() == before


def test_values_of_an_older_form_are_refused(net, tmp_path):
    path = tmp_path / "values.jsonl"
    head = {"checkpoint": None, "data": fingerprint(Images()), "seed": 777}
    path.write_text(json.dumps(head) + "\n")
    with pytest.raises(ValueError, match="expected an evaluation with format = 2, got None; delet"):
        evaluate(Translator(), Images(), ["translation"], ledger=path)


@pytest.mark.parametrize(
    "line", ["{", "[1]", "3", '{"group": 1}', "[" * 9999, '{"group": [], "guide": "a", "judge": 1}']
)
@pytest.mark.parametrize("head", ['{"seed": 1}\n', ""])
def test_a_file_that_is_no_ledger_is_refused_and_left(tmp_path, head, line):
    path = tmp_path / "values.jsonl"
    path.write_text(f"{head}{line}\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"^{path}: expected (values of )?an evaluation"):
        Results(path, {"seed": 1}, {})
    assert path.read_bytes() == before


def test_a_ledger_of_data_that_was_paired_otherwise_is_refused(tmp_path):
    def mark():
        return fingerprint(Domains(str(tmp_path), img_size=32).val)

    write(tmp_path, [f"{s}/{d}/000{i}.png" for s in ("train", "val") for d in "ab" for i in (0, 1)])
    unpaired = mark()
    (tmp_path / "manifest.json").write_text('{"paired": true}')
    paired = mark()
    (tmp_path / "manifest.json").write_text('{"paired": false}')
    assert mark() == unpaired != paired


def test_values_of_other_training_images_are_left_aside(net):
    def names(train):
        options = ({"latent": 2}, "alex", "strict", 0, 2, None)
        return measure.Measurement(Translator(), Images(), measure.GROUPS, train, *options).names()

    few, more, none = (names(Scorers(train)) for train in (Images(5), Images(6), None))
    seen = {group for group in measure.GROUPS if few[group] != more[group]}
    assert seen == {*measure.GROUPS} - {"intra", "accuracy", "identity", "ppl"}
    assert few == names(Scorers(Images(5))) and none["translation"] == "alex"


def test_values_of_another_judge_are_left_aside(tmp_path):
    path, head = tmp_path / "values.jsonl", {"seed": 1}
    Results(path, head, {"inter": "alex"}).add("inter", "latent", 1.0, {"ps": {3: 0.5}})
    assert Results(path, head, {"inter": "vgg"}).done("inter", "latent") == set()
    same = Results(path, head, {"inter": "alex"})
    assert same.done("inter", "latent") == {3} and same.seconds["inter", "latent"] == 1
    assert same.values["inter", "latent", "ps"] == {3: 0.5}
