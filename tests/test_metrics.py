"""The smoothness metric, translation scores, and the protocol that walks a data set."""

import hashlib
import itertools
import json
import runpy
import sys
from collections import Counter

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

import gen
import gen.data
from gen import evaluation, gallery
from gen.evaluation import draw_styles, evaluate, plan
from gen.metrics.smoothness import (
    InterpolationSmoothness,
    path_distances,
    resize_frames,
    smoothness,
)
from gen.metrics.translation import TranslationScores, bootstrap, l1, translation_scores
from gen.networks import perceptual
from gen.networks.perceptual import LPIPS
from gen.published import race

STEPS = torch.tensor([[0.05, 0.02, 0.04, 0.01, 0.03, 0.02, 0.05, 0.03, 0.01]], dtype=torch.float64)
SIZE = 32


@pytest.fixture(scope="module")
def net():
    if not perceptual.cache_path("alex").is_file():
        pytest.skip("no LPIPS alex in the cache: run `python -m gen.networks.perceptual`")
    return LPIPS("alex")


def noise(*shape, seed=0, size=SIZE):
    """Smooth random images (*shape, 3, size, size) in [-1, 1]."""
    g = torch.Generator().manual_seed(seed)
    low = torch.randn((int(np.prod(shape)), 3, 6, 6), generator=g)
    images = F.interpolate(low, (size, size), mode="bilinear")
    return images.tanh().reshape(*shape, 3, size, size)


def frames(n=2, t=5, size=SIZE):
    """n sequences (n, t, 3, size, size) that move evenly from one image to another."""
    a, b = noise(n, 1, size=size), noise(n, 1, seed=1, size=size)
    w = torch.linspace(0, 1, t)[None, :, None, None, None]
    return (1 - w) * a + w * b


# ---- smoothness -----------------------------------------------------------------------------


def value(steps, direct, key):
    return smoothness(steps, torch.tensor([direct], dtype=torch.float64))[key].item()


def test_published_check_values():
    """What the released code computes for these distances."""
    assert value(STEPS, 0.2, "ps") == pytest.approx(0.7426983829766496, abs=1e-12)
    assert value(STEPS, 0.2, "eq") == pytest.approx(1 - 0.28204151907562175, abs=1e-12)
    assert value(STEPS, 0.2, "eff") == pytest.approx(0.76920, abs=5e-6)
    assert value(STEPS / 2, 0.2, "ps") == pytest.approx(0.8358341268017204, abs=1e-7)
    assert value(STEPS / 2, 0.2, "eff") == 1
    even = torch.full((1, 19), 0.1 / 19, dtype=torch.float64)
    assert value(even, 0.1, "ps") == pytest.approx(0.9999050090241426, abs=1e-12)
    assert value(STEPS, 0.2, "pir") == pytest.approx(0.19999900000499996, abs=1e-12)
    assert value(STEPS, 0.2, "ppl") == pytest.approx(0.26 / 9)
    assert value(STEPS, 0.2, "pplsq") == pytest.approx(100 * 0.26 / 9)
    assert value(STEPS, 0.2, "peak") == pytest.approx(0.05 / (0.26 / 9), abs=1e-3)


def test_order_of_the_steps_does_not_matter_but_a_jump_does():
    shuffled = STEPS[:, torch.randperm(9, generator=torch.Generator().manual_seed(0))]
    assert value(shuffled, 0.2, "ps") == pytest.approx(value(STEPS, 0.2, "ps"), abs=1e-12)
    jump = torch.zeros(1, 9).double()
    jump[0, 4] = 0.2
    assert value(jump, 0.2, "ps") < 0.3
    assert value(jump, 0.2, "peak") == pytest.approx(9, abs=1e-3)
    assert value(jump, 0.2, "pir") == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("n", [1, 19])
def test_a_constant_sequence_scores_zero(n):
    values = smoothness(torch.zeros(2, n), torch.zeros(2))
    assert values["ps"].tolist() == [0, 0]
    assert all(torch.isfinite(v).all() for v in values.values())


@pytest.mark.parametrize(
    "steps, direct",
    [
        (torch.rand(2, 0), torch.rand(2)),
        (torch.rand(0, 3), torch.rand(0)),
        (torch.rand(3), torch.rand(3)),
        (torch.rand(2, 3), torch.rand(3)),
        (torch.tensor([[0.1, torch.nan]]), torch.rand(1)),
        (torch.tensor([[0.1, -0.1]]), torch.rand(1)),
        (torch.rand(1, 3), torch.tensor([torch.inf])),
    ],
)
def test_smoothness_refuses_bad_distances(steps, direct):
    with pytest.raises(ValueError, match="expected"):
        smoothness(steps, direct)


def test_distances_are_lpips_of_neighbours_one_pass_a_frame(net, monkeypatch):
    x = frames(3, 4, size=40)
    seen = []
    features = net.features
    monkeypatch.setattr(net, "features", lambda v: seen.append(len(v)) or features(v))
    steps, direct = path_distances(net, x, resize=None, batch=2)
    assert sum(seen) == 3 * 4
    for t in range(3):
        torch.testing.assert_close(steps[:, t], net(x[:, t], x[:, t + 1]), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(direct, net(x[:, 0], x[:, -1]), rtol=1e-4, atol=1e-6)


def test_smoothness_does_not_depend_on_the_batch(net):
    x = frames(3, 4)
    whole = smoothness(*path_distances(net, x, 64, batch=8))
    single = smoothness(*path_distances(net, x, 64, batch=1))
    for key in whole:
        torch.testing.assert_close(whole[key], single[key], atol=1e-5, rtol=1e-5)


def test_metric_names_say_the_protocol(net):
    def names(**options):
        metric = InterpolationSmoothness(net, frames=3, **options)
        metric.update(frames(1, 3))
        return list(metric.compute())

    keys = ["ps", "eq", "eff", "pir", "peak", "ppl", "pplsq"]
    assert names() == [f"{key}_t3_alex" for key in keys]
    assert names(resize=None)[0] == "ps_t3_alex_native"
    assert names(resize=64, quantize=True)[0] == "ps_t3_alex_64px_8bit"


def test_metric_accumulates(net):
    x = frames(4, 3)
    whole = InterpolationSmoothness(net, 3, resize=64)
    parts = InterpolationSmoothness(net, 3, resize=64)
    whole.update(x)
    for part in x.split([1, 3]):
        parts.update(part)
    per_sequence = parts.sequences()
    for name, mean in whole.compute().items():
        assert per_sequence[name].shape == (4,)
        assert mean.item() == pytest.approx(parts.compute()[name].item(), abs=1e-5)
        assert parts.compute()[name] == per_sequence[name].mean()
    assert whole.compute() == whole.compute()
    whole.reset()
    with pytest.raises(ValueError, match="count > 0"):
        whole.compute()


def bad_frames():
    good = frames(2, 3)
    nan = good.clone()
    nan[1, 2, 0, 5, 5] = torch.nan
    return {
        "range": good * 1.5,
        "bytes": ((good + 1) * 127.5).to(torch.uint8),
        "0..255": (good + 1) * 127.5,
        "T": good[:, :2],
        "count": good[:0],
        "NaN": nan,
        "inf": nan.nan_to_num(torch.inf),
        "channels": good[:, :, :1],
        "no time": good[0],
        "numpy": good.numpy(),
    }


@pytest.mark.parametrize("name", bad_frames())
def test_doors_of_the_metrics(net, name):
    bad = bad_frames()[name]
    metric = InterpolationSmoothness(net, 3)
    with pytest.raises(ValueError, match="expected"):
        metric.update(bad)
    assert len(metric.steps) == 0
    scores = TranslationScores(net, 3)
    with pytest.raises(ValueError, match="expected"):
        scores.update(noise(2), bad)
    assert len(scores.content_l1) == 0


def test_inputs_are_not_modified(net):
    x, source = frames(2, 3), noise(2)
    kept, kept_source = x.clone(), source.clone()
    InterpolationSmoothness(net, 3, quantize=True).update(x)
    TranslationScores(net, 3).update(source, x, source)
    assert torch.equal(x, kept) and torch.equal(source, kept_source)


def test_quantize_rounds_to_8_bits_and_native_size_is_untouched():
    x = noise(2)
    assert torch.equal(resize_frames(x, SIZE, False), resize_frames(x, None, False))
    torch.testing.assert_close(resize_frames(x, None, False), x, atol=1e-6, rtol=0)
    levels = (resize_frames(x, 64, True) + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert (resize_frames(x, None, True) - x).abs().max() <= 0.5 / 127.5 + 1e-6


def test_equals_the_published_png_way_and_is_faster(net):
    result = race(frames(1, 20, size=64), repeats=1)
    assert result["largest_ps_difference"] < 1e-4
    assert result["ratio"] > 1.2  # above 3 on a machine that does nothing else


# ---- translation ----------------------------------------------------------------------------


def test_diversity_is_the_mean_over_all_pairs(net):
    outputs, x, twin = noise(2, 4), noise(2, seed=1), noise(2, seed=2)
    scores = translation_scores(net, x, outputs, twin)
    for n in range(2):
        pairs = [net(a[None], b[None]) for a, b in itertools.combinations(outputs[n], 2)]
        expected = {
            "diversity": torch.cat(pairs).mean(),
            "content_lpips": net(outputs[n], x[n].expand(4, -1, -1, -1)).mean(),
            "content_l1": (outputs[n] - x[n]).abs().mean() / 2,
            "paired_lpips": net(outputs[n], twin[n].expand(4, -1, -1, -1)).mean(),
            "paired_l1": (outputs[n] - twin[n]).abs().mean() / 2,
            "unchanged_lpips": net(x[n][None], twin[n][None])[0],
            "unchanged_l1": (x[n] - twin[n]).abs().mean() / 2,
        }
        assert set(scores) == set(expected)
        for key, reference in expected.items():
            torch.testing.assert_close(scores[key][n], reference, rtol=1e-4, atol=1e-6)


def test_no_diversity_and_no_error_score_zero(net):
    x = noise(2)
    same = x[:, None].expand(-1, 3, -1, -1, -1)
    assert all(v.abs().max() < 1e-10 for v in translation_scores(net, x, same, x).values())
    assert "diversity" not in translation_scores(net, x, same[:, :1])


def test_l1_spans_zero_to_one():
    white = torch.ones(1, 3, 4, 4)
    assert l1(white, -white).item() == 1


def test_translation_metric_names_and_means(net):
    metric = TranslationScores(net, outputs=2)
    with pytest.warns(UserWarning, match="before"), pytest.raises(ValueError, match="count > 0"):
        metric.compute()
    x, outputs = noise(3), noise(3, 2, seed=1)
    metric.update(x[:1], outputs[:1])
    metric.update(x[1:], outputs[1:])
    values = metric.compute()
    assert list(values) == ["diversity_k2_alex", "content_lpips_alex", "content_l1"]
    expected = translation_scores(net, x, outputs)["diversity"].mean()
    assert values["diversity_k2_alex"].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("what", ["outputs", "twin"])
def test_translation_refuses_shapes_that_do_not_fit(net, what):
    outputs, twin = (noise(2, 3), noise(3)) if what == "twin" else (noise(3, 3), None)
    with pytest.raises(ValueError, match="expected .* as the sources"):
        translation_scores(net, noise(2), outputs, twin)


def test_bootstrap_interval():
    values = np.random.default_rng(0).standard_normal(400)
    mean, low, high = bootstrap(values, seed=1)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert (mean, low, high) == bootstrap(values, seed=1) != bootstrap(values, seed=2)
    assert bootstrap([0.5], seed=0) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("values", [[], [0.1, np.nan], [[0.1]]])
def test_bootstrap_refuses(values):
    with pytest.raises(ValueError, match="expected"):
        bootstrap(values, seed=0)


# ---- evaluation -----------------------------------------------------------------------------


class Images:
    """`count` contents in three tints; `paired` says whether twins are known."""

    domains, img_size = ["blue", "green", "red"], SIZE

    def __init__(self, count=5, paired=True):
        self.labels = torch.arange(3).repeat_interleave(count)
        self.count, self.paired = count, paired

    def __getitem__(self, index):
        y, key = divmod(index, self.count)
        return {"x": tint(noise(seed=key), torch.tensor([y]))[0], "y": y, "index": index}

    def twin(self, index, domain):
        return domain * self.count + index % self.count if self.paired else None


def tint(x, y):
    """Images and domains -> the same content in the domain's tint."""
    tints = torch.eye(3)[:, :, None, None]
    return 0.5 * x + 0.5 * tints[y]


class Translator(nn.Module):
    """Takes the tint off, puts the style's on: perfect where `spread` is 0."""

    domains, img_size, latent_dim = Images.domains, SIZE, 4

    def __init__(self, spread=0.0, sharpness=0.0):
        super().__init__()
        self.spread, self.sharpness = spread, sharpness
        self.anchor = nn.Parameter(torch.zeros(()))
        self.encoded = 0

    def encode(self, x):
        self.encoded += len(x)
        tint = x.mean((2, 3), keepdim=True).argmax(1, keepdim=True)
        return 2 * x - F.one_hot(tint[:, 0, 0, 0], 3)[:, :, None, None]

    def decode(self, content, s):
        if self.sharpness:
            s = torch.sigmoid(self.sharpness * (s - 0.5))
        return 0.5 * content + 0.5 * s[:, :, None, None]

    def map_style(self, z, y):
        return torch.eye(3)[y] + self.spread * z[:, :3]

    def encode_style(self, x, y):
        return torch.eye(3)[y] + self.spread * x.mean((2, 3))


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
        for key in ("ps", "eq", "eff", "pir", "peak", "ppl")
    ]
    kept = [
        f"{guide}/{key}"
        for guide in ("latent", "reference")
        for key in ("content_lpips_alex", "content_l1", "paired_lpips_alex", "paired_l1")
    ]
    varied = ["latent/diversity_k10_alex", "reference/diversity_k4_alex"]
    trivial = ["source/paired_lpips_alex", "source/paired_l1"]
    assert sorted(table(rows)) == sorted(smooth + kept + varied + trivial)
    assert len(rows) == len(table(rows))
    for row in json.loads(json.dumps(rows)):
        assert list(row) == [
            *("metric", "value", "ci95", "protocol", "count", "seed", "checkpoint_sha256"),
            *("versions", "seconds"),
        ]
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
    batch = gallery.batch
    monkeypatch.setattr(gallery, "batch", lambda m, i, n: seen.append(list(n)) or batch(m, i, n))
    sources = plan(images, 0, 6)
    draw_styles(Translator(), images, sources, 0, "reference", 4)
    wanted = [(s.start,) + (s.end,) + (s.target,) * 4 for s in sources]
    for source, domains, refs in zip(sources, wanted, zip(*seen, strict=True), strict=True):
        assert [int(images.labels[r]) for r in refs] == list(domains)
        assert source.index not in refs
        assert all(r != images.twin(source.index, d) for r, d in zip(refs, domains, strict=True))
        assert len(set(refs[2:])) == 4


@pytest.mark.parametrize("guide", ["latent", "reference"])
def test_styles_depend_on_the_source_alone(guide):
    images, sources = Images(), plan(Images(), 0, 4)
    whole = draw_styles(Translator(1.0), images, sources, 0, guide, 4)
    single = draw_styles(Translator(1.0), images, sources[2:3], 0, guide, 2)
    for a, b in zip(whole, single, strict=True):
        torch.testing.assert_close(a[2:3, :2] if a.ndim == 3 else a[2:3], b)
    other = draw_styles(Translator(1.0), images, sources, 1, guide, 4)
    assert not torch.equal(whole.outputs, other.outputs)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"metrics": ["fid"]}, "metrics"),
        ({"metrics": "intra"}, "metrics"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_sources": 0}, "max_sources"),
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
        ("labels", torch.tensor([0, 0, 0, 1, 1, 1, 2, 2]), "3 validation images"),
    ],
)
def test_evaluate_refuses_images_that_do_not_fit(name, value_, message):
    images = Images()
    setattr(images, name, value_)
    with pytest.raises(ValueError, match=message):
        evaluate(Translator(), images)


@pytest.mark.parametrize("group", evaluation.GROUPS)
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


def test_the_script_prints_and_writes_json_lines(net, tmp_path, monkeypatch, capsys):
    checkpoint, out = tmp_path / "c.safetensors", tmp_path / "new" / "rows.jsonl"
    checkpoint.write_bytes(b"weights")
    monkeypatch.setattr(gen, "load", lambda path, device: Translator())
    monkeypatch.setattr(gen.data, "Domains", lambda **_: type("Data", (), {"val": Images()}))
    line = f"evaluate --checkpoint {checkpoint} --data x --metrics translation --max-sources 2"
    monkeypatch.setattr(sys, "argv", [*line.split(), "--out", str(out)])
    runpy.run_path("scripts/evaluate.py", run_name="__main__")
    written = [json.loads(line) for line in out.read_text().splitlines()]
    printed = capsys.readouterr().out
    assert [json.loads(line) for line in printed.splitlines() if line[:1] == "{"] == written
    assert len(written) == 12 and written[0]["seed"] == 777
    assert written[0]["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert "latent/paired_l1 " in printed.split("95 % interval")[1]
