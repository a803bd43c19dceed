"""A path is ranked as a person ranks it, where PS alone fails; progress, travel and realism."""

from dataclasses import astuple

import pytest
import torch

from conftest import ROOT
from gen.data.heads import Factors, factors, render
from gen.data.images import to_tensor
from gen.interpolation import alphas
from gen.metrics.extractors import load_backbone
from gen.metrics.fidelity import image_features
from gen.metrics.gradual import MIDDLE, Realism, gradual, progress, travel
from gen.metrics.smoothness import all_distances, path_distances, smoothness
from gen.networks.backbones import cache_path
from gen.networks.perceptual import LPIPS

T = 20


def cat(f):
    """A cat's head of these factors, (3, 64, 64)."""
    return to_tensor(render(f, "cat", 64))


def between(a, b, t):
    return Factors(*((1 - t) * x + t * y for x, y in zip(astuple(a), astuple(b), strict=True)))


def paths(a, b):
    """Kinds of path (T, 3, 64, 64) from one head to another."""
    start, end, noise = cat(a), cat(b), torch.Generator().manual_seed(0)
    t = alphas(T, "strict")
    mixed = torch.stack([torch.lerp(start, end, s) for s in t])
    return {
        "morph": torch.stack([cat(between(a, b, s)) for s in t.tolist()]),  # exact: heads, all
        "dissolve": mixed,
        "jump": torch.where((t < 0.5)[:, None, None, None], start, end),
        "noise": torch.rand(mixed.shape, generator=noise) * 2 - 1,
        "still": start.expand_as(mixed),
        "drift": start + 0.05 * (mixed - start),  # stands, but for what nobody sees
        "to and fro": mixed[[0, *(i + 3 * (-1) ** i for i in range(3, 17)), 17, 16, 18, 17, 19]],
    }


@pytest.fixture(scope="module")
def measured(lpips_cache):
    """Kind of path -> its values, between two heads."""
    if not cache_path("mobilenetv2").is_file():
        pytest.skip("no MobileNetV2 in the cache: run `python -m gen.networks.backbones`")
    net, backbone = LPIPS("alex"), load_backbone("mobilenetv2")

    real = Realism(image_features(backbone, torch.stack([cat(factors(1, i)) for i in range(100)])))
    middle = [round(alpha * (T - 1)) for alpha in MIDDLE]
    kinds = paths(factors(1, 1000), factors(1, 1001))
    frames = torch.stack(list(kinds.values()))  # (K, T, 3, 64, 64)
    steps, first, last = all_distances(net, frames, resize=128)
    values = smoothness(steps, first[:, -1])
    values["travel"] = travel(first[:, -1], first[:1, -1].expand(len(frames)))
    values["progress"] = progress(first, last)
    seen = real(image_features(backbone, frames[:, middle].flatten(0, 1)))
    values["realism"] = seen.view(len(frames), -1).mean(1).double()
    values["gradual"] = gradual(*(values[key] for key in ("travel", "progress", "realism")))
    return {
        kind: {key: value[i].item() for key, value in values.items()}
        for i, kind in enumerate(kinds)
    }


def test_paths_are_ranked_as_a_person_ranks_them(measured):
    score = {kind: values["gradual"] for kind, values in measured.items()}
    assert score["morph"] > 0.8
    assert score["morph"] - 0.1 > score["dissolve"] > 0.5
    worthless = ("jump", "noise", "still", "drift", "to and fro")
    assert all(score[kind] < score["dissolve"] / 3 for kind in worthless), score
    assert score["jump"] > score["noise"] > score["still"] == 0


def test_ps_alone_fails_where_the_new_words_do_not(measured):
    ps = {kind: values["ps"] for kind, values in measured.items()}
    assert ps["drift"] > ps["morph"]  # nothing is to be seen, and it wins
    assert ps["dissolve"] > 0.8  # ghosts count as smooth
    assert measured["drift"]["travel"] < 0.1 and measured["drift"]["direct"] < 0.01
    assert measured["dissolve"]["realism"] < measured["morph"]["realism"] - 0.15
    # straightness alone is no way out: a dissolve and a jump are straighter than a movement
    straight = {kind: values["straight"] for kind, values in measured.items()}
    assert straight["jump"] > straight["dissolve"] > straight["morph"] > 2 * straight["noise"]


def test_the_readme_gives_these_numbers(measured):
    said = " ".join((ROOT / "README.md").read_text().split())
    for kind, key, number, text in (
        ("morph", "ps", 0.95, "an exact morph has 0.95"),
        ("dissolve", "ps", 0.85, "a cross-dissolve full of ghosts 0.85"),
        ("drift", "ps", 0.99, "a drift that nobody sees 0.99"),
        ("dissolve", "straight", 0.49, "the dissolve is straighter (0.49)"),
        ("morph", "straight", 0.29, "than the morph (0.29)"),
        ("jump", "straight", 1, "a jump is straightest (1)"),
        ("morph", "gradual", 0.95, "The morph has 0.95"),
        ("dissolve", "gradual", 0.72, "the dissolve 0.72"),
        ("jump", "gradual", 0.11, "the jump 0.11"),
        ("drift", "gradual", 0.07, "the drift 0.07"),
        ("noise", "gradual", 0.06, "noise 0.06"),
    ):
        assert measured[kind][key] == pytest.approx(number, abs=0.012) and text in said, (kind, key)


def test_progress_by_hand():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)[None]
    assert progress(t, 1 - t).item() == pytest.approx(1)
    assert progress(t**2, (1 - t) ** 2).item() > 0.99  # features on a line: LPIPS is a square
    jump = (t > 0.5).double()
    assert progress(jump, 1 - jump).item() == pytest.approx(0.2)
    apart = torch.ones_like(t)
    first, last = apart.clone(), apart.clone()
    first[:, 0] = last[:, -1] = 0
    assert progress(first, last).item() == pytest.approx(0.4)
    back = t.clone()
    back[:, 5] = 0.3  # from .4 to .3 to .6
    assert progress(back, 1 - back).item() == pytest.approx(0.9)
    assert progress(torch.zeros(1, 4), torch.zeros(1, 4)).tolist() == [0]
    loop = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    assert progress(loop, loop).tolist() == [0]
    for wrong in ((t, t[:, :3]), (t, -t), (t * torch.nan, t)):
        with pytest.raises(ValueError, match="progress: expected"):
            progress(*wrong)


def test_travel_by_hand():
    direct, asked = torch.tensor([0.0, 0.04, 0.5, 0.1]), torch.tensor([0.16, 0.16, 0.16, 0.0])
    found = travel(direct, asked)
    assert found[:3].tolist() == pytest.approx([0, 0.5, 1]) and found[3].isnan()


def test_realism_by_hand():
    """Points on a line, radius 3 each: the half with the smaller radii judges."""
    real = torch.tensor([[0.0], [1], [2], [3], [100], [200], [300], [400]])
    judge = Realism(real)  # radii 3, 2, 2, 3, 98, ..
    assert sorted(judge.radius.tolist()) == [2, 2, 3, 3]
    far = torch.tensor([[3.0], [6], [9], [103]])
    assert judge(far).tolist() == pytest.approx([1, 1, 0.5, 0.03])
    with pytest.raises(ValueError, match="more than 3 real images"):
        Realism(real[:3])


def test_all_distances_are_lpips_to_both_ends(lpips_cache, monkeypatch):
    net, g = LPIPS("alex"), torch.Generator().manual_seed(0)
    x = torch.rand(3, 4, 3, 40, 40, generator=g) * 2 - 1
    seen, features = [], net.features
    monkeypatch.setattr(net, "features", lambda v: seen.append(len(v)) or features(v))
    steps, first, last = all_distances(net, x, resize=None, batch=2)
    assert sum(seen) == 3 * 4  # each frame once
    for t in range(4):
        torch.testing.assert_close(first[:, t], net(x[:, 0], x[:, t]), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(last[:, t], net(x[:, t], x[:, -1]), rtol=1e-4, atol=1e-6)
    again = path_distances(net, x, resize=None)
    torch.testing.assert_close(again, (steps, first[:, -1]), rtol=1e-4, atol=1e-6)
