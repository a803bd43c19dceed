"""Evaluation of an editor, on stand-ins of which every value is known."""

import json
import math
import re
import runpy
import sys

import numpy as np
import pytest
import torch
from torch import nn

from conftest import ROOT
from cut import check_goes_on
from gen.evaluation import edit_curves, editors
from gen.evaluation.edit_curves import FARTHEST, Curves, success_area
from gen.evaluation.editors import FIRST_OTHER, evaluate_editor
from gen.files import sha256
from gen.methods.attribute_classifier import AttributeClassifier
from gen.methods.style_function import StyleFunction
from gen.metrics.identity import identity_similarity
from gen.networks.arcface import IRSE50
from runs import CLASSIFIER, TINY, ship

NAMES = ["bear", "cat", "dog", "spots"]  # one of the first three holds
K, SIDE, PATCH = 4, 32, 8


class Plain(nn.Module):
    """Mean squared difference in place of LPIPS."""

    def __init__(self, net="alex"):
        super().__init__()
        self.net = net

    def features(self, x):
        return [x / math.prod(x.shape[1:]) ** 0.5]

    @staticmethod
    def distance(fa, fb):
        return sum((a - b).square().sum((1, 2, 3)) for a, b in zip(fa, fb, strict=True))


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setattr(editors, "LPIPS", Plain)


class Editor(nn.Module):
    """A code is what patches of the image show: the labels at -1/2 or 1/2, content, noise."""

    task = "editor"
    attribute_names, latent_dim, img_size = NAMES, 6, SIDE

    def __init__(self, noise_dim=1, hard=False):
        super().__init__()
        self.noise_dim, self.hard, self.calls = noise_dim, hard, []
        self.weight = nn.Parameter(torch.zeros(1))

    def map_latents(self, z, psi=None):
        labels = torch.cat([nn.functional.one_hot(z[:, :3].argmax(1), 3), z[:, 3:4] > 0], 1)
        rest = (1 if psi is None else psi) * z[:, 4:5].tanh() / 2
        return torch.cat([labels - 0.5, rest, torch.zeros(len(z), 1)], 1)[:, None]  # (N, 1, 6)

    def synthesize(self, ws):
        levels = ws.sign() / 2 if self.hard else ws
        levels = nn.functional.pad(levels[:, 0], (0, 16 - levels.shape[2])).view(-1, 1, 4, 4)
        return levels.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3).expand(-1, 3, -1, -1)

    def edit(self, ws, d, z):
        self.calls.append((ws[:, 0], d, z))
        ways = 0.1 * z if self.noise_dim else torch.zeros(len(ws), 1)
        return torch.cat([self.labels(ws[:, 0], d) - 0.5, ws[:, 0, 4:5], ways], 1)[:, None]

    def labels(self, code, d):
        return d


class Identity(Editor):
    def edit(self, ws, d, z):
        return ws


class Careless(Editor):
    """Has other spots wherever it changes the animal."""

    def labels(self, code, d):
        changes = (d[:, :3] != (code[:, :3] > 0)).any(1, keepdim=True)
        return torch.cat([d[:, :3], torch.where(changes, (code[:, 3:4] < 0).float(), d[:, 3:])], 1)


class Judge(nn.Module):
    attribute_names, img_size, factor_std = NAMES, SIDE, torch.full((5,), 0.5)

    def classify(self, x):
        return self.regress(x)[:, :K]

    def regress(self, x):
        return x[:, 0, ::PATCH, ::PATCH].flatten(1)[:, :5]


def values(rows):
    return {row["metric"]: row["value"] for row in rows}


def evaluate(editor=None, judge=None, metrics=editors.GROUPS, count=6, outputs=3, **options):
    return evaluate_editor(editor or Editor(), judge or Judge(), metrics, count, outputs, **options)


def test_a_perfect_editor(plain):
    editor = Editor()
    found = values(evaluate(editor, count=20))
    for name in ["", "_joint", *(f"_{n}" for n in NAMES)]:
        assert found[f"edits/accuracy{name}"] == 1
    assert {found[f"single/{what}_{n}"] for what in ("accuracy", "kept") for n in NAMES} == {1}
    assert found["single/accuracy"] == found["single/kept"] == 1
    moved = [found[f"single/factors_{n}"] for n in NAMES]  # by 1 of std 1/2, of 5 factors
    assert moved == pytest.approx([2 * 2 / 5] * 3 + [2 / 5])
    assert found["single/factors"] == pytest.approx((3 * 0.8 + 0.4) / 4)
    paths = [found[f"paths/{name}_t20_alex"] for name in ("ps", "eq", "eff", "pir")]
    assert paths == pytest.approx([1, 1, 1, 0], abs=1e-4)


def test_distances_by_hand(plain):
    """A patch is 1/16 of the image."""
    editor = Editor()
    found = values(evaluate(editor, metrics=["edits"], count=4, outputs=3))
    (code, *_), noise = editor.calls[0], torch.cat([z for *_, z in editor.calls], 1)  # (N, J)
    assert len(editor.calls) == 3 and code.shape == (4, 6) and noise.shape == (4, 3)
    ways = 0.1 * noise
    pairs = [(ways[:, a] - ways[:, b]).square() / 16 for a, b in ((0, 1), (0, 2), (1, 2))]
    diversity = torch.stack(pairs).mean().item()
    assert found["edits/diversity_lpips_alex"] == pytest.approx(diversity, rel=1e-4)
    labels = (editor.calls[0][1] - 0.5 - code[:, :K]).square().sum(1)
    to_source = (labels[:, None] + ways.square()).mean().item() / 16
    assert found["edits/lpips_alex"] == pytest.approx(to_source, rel=1e-4)
    editor.calls.clear()
    found = values(evaluate(editor, metrics=["single"], count=4))
    noise = torch.stack([z for *_, z in editor.calls])  # (K, N, 1)
    expected = (torch.tensor([2.0, 2, 2, 1])[:, None] + (0.1 * noise[..., 0]).square()) / 16
    got = [found[f"single/lpips_alex_{n}"] for n in NAMES]
    assert got == pytest.approx(expected.mean(1).tolist(), rel=1e-4)
    assert found["single/lpips_alex"] == pytest.approx(expected.mean().item(), rel=1e-4)


def test_an_editor_that_does_nothing_scores_the_floor(plain):
    found = values(evaluate(Identity(), metrics=["edits"], count=200, outputs=2))
    floors = {k: v for k, v in found.items() if k.startswith("unchanged/")}
    assert len(floors) == K + 2
    for name, value in floors.items():
        assert found[name.replace("unchanged", "edits")] == value
    assert floors["unchanged/accuracy_joint"] == pytest.approx(1 / 6, abs=0.1)
    assert floors["unchanged/accuracy_cat"] == pytest.approx(5 / 9, abs=0.1)
    assert floors["unchanged/accuracy_spots"] == pytest.approx(1 / 2, abs=0.1)
    assert found["edits/lpips_alex"] == 0
    assert found["edits/diversity_lpips_alex"] == pytest.approx(0, abs=1e-9)
    found = values(evaluate(Identity(), metrics=["single", "paths"]))
    assert found["single/kept"] == 1
    still = ("single/accuracy", "single/lpips_alex", "single/factors")
    assert [found[name] for name in still] == [0, 0, 0]
    still = [found["paths/ps_t20_alex"], found["paths/pir_t20_alex"]]
    assert still == pytest.approx([0, 0], abs=1e-6)


def test_floors_by_hand(plain):
    editor = Editor()
    rows = {row["metric"]: row for row in evaluate(editor, metrics=["edits"], count=8)}
    code, d, _ = editor.calls[0]
    equal = ((code[:, :K] > 0) == d).double()
    assert rows["unchanged/accuracy"]["values"] == dict(enumerate(equal.mean(1).tolist()))
    assert rows["unchanged/accuracy_joint"]["values"] == dict(enumerate(equal.amin(1).tolist()))
    assert list(rows["unchanged/accuracy_dog"]["values"].values()) == equal[:, 2].tolist()


def test_what_was_to_stay_and_did_not(plain):
    found = values(evaluate(Careless(), metrics=["single", "edits"], count=20))
    assert [found[f"single/accuracy_{n}"] for n in NAMES] == [1] * 4
    assert [found[f"single/kept_{n}"] for n in NAMES] == [0.5] * 3 + [1]
    assert found["single/kept"] == pytest.approx((3 * 0.5 + 1) / 4)
    assert found["edits/accuracy_cat"] == 1 > found["edits/accuracy_spots"]
    assert found["edits/accuracy_joint"] <= found["edits/accuracy_spots"]


def test_wanted_labels(plain):
    editor = Editor()
    evaluate(editor, metrics=["single"], count=30, batch_size=30)
    wanted = torch.stack([d for _, d, _ in editor.calls], 1)  # (N, K, K)
    code = torch.stack([code for code, *_ in editor.calls], 1)
    differ = wanted != (code[..., :K] > 0)
    assert differ.diagonal(dim1=1, dim2=2).all()
    assert (differ.sum(2) == torch.tensor([2, 2, 2, 1])).all()
    assert (wanted[..., :3].sum(2) == 1).all()
    cats = wanted[code[:, 0, 1] > 0][:, 1]  # no longer cats: bears and dogs
    assert cats[:, 0].any() and cats[:, 2].any()
    editor.calls.clear()
    evaluate(editor, metrics=["paths"], count=30, batch_size=30)
    (_, a, z), (_, b, z2) = editor.calls
    assert (a != b).any(1).all() and torch.equal(z, z2) and z.unique().numel() == 30


class Hybrids(Editor):
    """A head in fifty is two animals, or three."""

    def map_latents(self, z, psi=None):
        ws = super().map_latents(z, psi)
        ws[z[:, 5] > 2.05, 0, :2] = 0.5
        return ws


def test_nobody_wants_two_animals_in_one(plain):
    editor = Hybrids()
    evaluate(editor, metrics=["edits", "single", "paths"], count=200, outputs=2, batch_size=200)
    assert all((d[:, :3].sum(1) == 1).all() for _, d, _ in editor.calls)


def test_a_path_that_jumps(plain):
    """Half-way it takes two steps of half the change, a quarter of the distance each."""
    found = values(evaluate(Editor(noise_dim=0, hard=True), metrics=["paths"]))
    assert found["paths/pir_t20_alex"] == pytest.approx(1 / 4, abs=1e-4)
    assert found["paths/eq_t20_alex"] == pytest.approx(2 / 19, rel=0.01)
    assert found["paths/eff_t20_alex"] == 1


def test_an_editor_without_noise(plain):
    editor = Editor(noise_dim=0)
    rows = evaluate(editor, metrics=["edits"])
    assert len(editor.calls) == 1 and editor.calls[0][2].shape == (6, 0)
    found = values(rows)
    assert found["edits/diversity_lpips_alex"] == 0 and found["edits/accuracy"] == 1
    assert rows[0]["protocol"].startswith("1 edits a source")


def test_editors_are_compared_source_by_source(plain):
    """Whatever the width of their noise, sources and wanted labels are the same."""
    wanted = []
    for noise_dim in (0, 1):
        editor = Editor(noise_dim)
        evaluate(editor)
        seen = [editor.calls[0], *editor.calls[3 if noise_dim else 1 :]]  # `edits` makes 3, or 1
        told = [torch.cat([code[:, :5], d], 1) for code, d, _ in seen]  # column 5: earlier noise
        wanted.append(torch.cat(told))
    assert torch.equal(*wanted)


def test_rows(plain, tmp_path):
    for name in ("editor", "judge"):
        (tmp_path / name).write_text(name)
    files = dict(checkpoint=tmp_path / "editor", judge_checkpoint=tmp_path / "judge")
    rows = evaluate(Careless(), psi=0.5, **files)
    curves = 3 * len(edit_curves.STRENGTHS) + 4
    assert len(values(rows)) == len(rows) == 2 * (K + 2) + 2 + 4 * (K + 1) + 6 + curves
    for row in rows:
        low, high = row["ci95"]
        assert low <= row["value"] <= high and row["count"] == 6 == len(row["values"])
        assert row["value"] == pytest.approx(sum(row["values"].values()) / 6)
        assert row["protocol"].endswith("psi 0.5, 32 px") and row["seconds"] >= 0
        assert row["checkpoint_sha256"] == sha256(tmp_path / "editor")
        assert row["judge_sha256"] == sha256(tmp_path / "judge") and row["seed"] == 777
    single = [row["protocol"] for row in rows if row["metric"].startswith("single/factors")]
    assert all("mean |change| of 5 factors in standard deviations" in text for text in single)
    rows = evaluate(metrics=["edits"])
    assert {row["checkpoint_sha256"] for row in rows} == {row["judge_sha256"] for row in rows}
    assert rows[0]["judge_sha256"] is None and "own psi" in rows[0]["protocol"]


def test_values_do_not_depend_on_the_batch_and_grow_with_the_count(plain):
    rows = evaluate(Careless(), count=5, batch_size=5)
    assert values(evaluate(Careless(), count=5, batch_size=5)) == values(rows)
    again = evaluate(Careless(), count=5, batch_size=3)
    assert values(again) == pytest.approx(values(rows), abs=1e-6)
    fewer = evaluate(Careless(), count=3, batch_size=2)
    for row, short in zip(rows, fewer, strict=True):
        first = {i: row["values"][i] for i in range(3)}
        assert short["values"] == pytest.approx(first, abs=1e-6), row["metric"]
    other = values(evaluate(Careless(), metrics=["edits"], count=5, seed=1))
    assert other["edits/lpips_alex"] != pytest.approx(values(rows)["edits/lpips_alex"], abs=1e-6)


def test_groups_do_not_depend_on_each_other(plain):
    judges = dict(examiner=Other(), arcface=small_face())
    everything = values(evaluate(Careless(), **judges))
    assert "curves/identity_s2" in everything
    for group in editors.GROUPS:
        alone = values(evaluate(Careless(), metrics=[group], **judges))
        assert alone == {name: everything[name] for name in alone}, group


class Binary(Editor):
    """One attribute: its only label is to change, none is to stay."""

    attribute_names = ["cat"]

    def map_latents(self, z, psi=None):
        code = super().map_latents(z)
        return torch.cat([code[..., 1:2], code[..., 4:]], 2)

    def edit(self, ws, d, z):
        return torch.cat([d - 0.5, ws[:, 0, 1:2], 0.1 * z], 1)[:, None]


class BinaryJudge(Judge):
    attribute_names, factor_std = ["cat"], torch.ones(5)

    def classify(self, x):
        return self.regress(x)[:, :1]


def test_nothing_is_to_stay(plain):
    found = values(evaluate(Binary(), BinaryJudge()))
    assert found["single/accuracy"] == found["edits/accuracy_joint"] == 1
    assert not [name for name in found if "kept" in name]


class Broken(Editor):
    def __init__(self, what):
        super().__init__()
        self.what = what

    def edit(self, ws, d, z):
        return super().edit(ws, d, z) * self.what


class NaNLogits(Judge):
    def classify(self, x):
        return super().classify(x) * torch.nan


class NaNFactors(Judge):
    def classify(self, x):
        return super().regress(x)[:, :K]

    def regress(self, x):
        return super().regress(x) * torch.nan


class Bears(Editor):
    def map_latents(self, z, psi=None):
        return super().map_latents(torch.cat([z[:, :1] + 1e3, z[:, 1:]], 1))


class One(Bears):
    def map_latents(self, z, psi=None):
        return super().map_latents(torch.cat([z[:, :3], z[:, 3:4] + 1e3, z[:, 4:]], 1))


class OtherNames(Judge):
    attribute_names = NAMES[::-1]


class OtherSize(Judge):
    img_size = 64


class Domains(nn.Module):
    img_size = SIDE


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(metrics=["ppl"]), "metrics: expected some of"),
        (dict(metrics="edits"), "metrics: expected some of"),
        (dict(metrics=[]), "metrics: expected some of"),
        (dict(count=0), "got 0, 3 and 16"),
        (dict(count=FIRST_OTHER + 1), "expected count 1 .. 100000, .*got 100001, 3 and 16"),
        (dict(outputs=1), r"outputs >= 2 \(for diversity\).*got 6, 1 and 16"),
        (dict(batch_size=0), "got 6, 3 and 0"),
        (dict(judge=OtherNames()), r"AttributeClassifier of \['bear'.*got a OtherNames of \['spo"),
        (dict(judge=OtherSize()), "and 32 px, got a OtherSize of .* and 64 px; give the one"),
        (dict(judge=Domains()), "got a Domains of None and 32 px"),
        (dict(editor=Broken(math.nan)), "images: expected finite values, got NaN or infinity; try"),
        (dict(editor=Broken(math.inf)), "images: expected finite values, got NaN or infinity; try"),
        (dict(judge=NaNLogits()), "logits of the judge: expected finite values"),
        (dict(judge=NaNFactors()), "factors of the judge: expected finite values"),
        (dict(editor=Bears()), "with and without each .*got 512 that .* equal in bear, cat, dog;"),
        (dict(editor=One(), metrics=["paths"]), "equal in bear, cat, dog, spots; take a larger"),
    ],
)
def test_doors(plain, wrong, message):
    with pytest.raises(ValueError, match=message):
        evaluate(**wrong)


def test_a_constant_attribute_forbids_single_edits_alone(plain):
    found = values(evaluate(Bears(), metrics=["edits", "paths"]))
    assert found["unchanged/accuracy_cat"] == 1 and found["paths/ps_t20_alex"] > 0.99


# ---- the command --------------------------------------------------------------------------------

FILES = dict(e="editor.safetensors", j="judge.safetensors")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Untrained, but the judge says both of each attribute."""
    folder = tmp_path_factory.mktemp("editors")
    editor = StyleFunction(**TINY)
    judge = AttributeClassifier(**CLASSIFIER, attributes="a,b,c", factors="f,g")
    z = torch.randn(64, TINY["z_dim"], generator=torch.Generator().manual_seed(1))
    logits = judge.classify(editor.synthesize(editor.map_latents(z)).clamp(-1, 1))
    with torch.no_grad():
        judge.net.get_classifier().bias[:3] -= logits.median(0).values
    ship(editor, folder / FILES["e"])
    ship(judge, folder / FILES["j"])
    return folder


def command(monkeypatch, files, *options):
    script = str(ROOT / "scripts/evaluate.py")
    monkeypatch.setattr(sys, "argv", [script, "--checkpoint", str(files / FILES["e"]), *options])
    runpy.run_path(script, run_name="__main__")


def test_the_script_knows_an_editor(files, tmp_path, monkeypatch, capsys, lpips_cache):
    monkeypatch.setattr(editors, "OTHERS", 64)  # faster
    out = tmp_path / "rows.jsonl"
    judge = files / FILES["j"]
    options = ["--classifier", str(judge), "--count", "2", "--out", str(out)]
    command(monkeypatch, files, *options)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    names = [row["metric"] for row in rows]
    assert names[:2] == ["edits/accuracy", "edits/accuracy_joint"]
    assert {"unchanged/accuracy_a", "single/kept_c", "paths/pir_t20_alex"} <= set(names)
    assert {row["count"] for row in rows} == {2}
    assert {row["judge_sha256"] for row in rows} == {sha256(judge)}
    assert {row["checkpoint_sha256"] for row in rows} == {sha256(files / FILES["e"])}
    assert "single/factors_b" in capsys.readouterr().out
    command(monkeypatch, files, *options, "--max-sources", "1", "--metrics", "edits")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {row["count"] for row in rows} == {1} and "single/kept" not in str(rows)


def test_the_script_truncates_as_told(files, tmp_path, monkeypatch, lpips_cache):
    monkeypatch.setattr(editors, "OTHERS", 64)  # faster
    out = tmp_path / "rows.jsonl"
    options = ["--classifier", str(files / FILES["j"]), "--count", "1", "--metrics", "edits"]
    command(monkeypatch, files, *options, "--psi", "0.25", "--out", str(out))
    assert "psi 0.25" in json.loads(out.read_text().splitlines()[0])["protocol"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--checkpoint", "none.safetensors"], "none.safetensors"),
        (["--max-sources", "0"], "expected count 1 .. 100000, .* got 0"),
        (["--arcface", "none.pth"], "none.pth: expected IR-SE50 weights"),
        (["--metrics", "identity"], "--arcface: expected IR-SE50 weights .*, got none"),
    ],
)
def test_a_wrong_input_of_the_script_is_one_line(files, monkeypatch, options, message):
    with pytest.raises(SystemExit) as end:
        command(monkeypatch, files, "--classifier", str(files / FILES["j"]), *options)
    assert re.fullmatch(f"error: .*{message}.*", end.value.code)


def test_the_script_wants_a_judge(files, monkeypatch):
    wanted = "--classifier: expected the checkpoint of an AttributeClassifier"
    with pytest.raises(SystemExit, match=f"{wanted}.*got nothing.*gen fit --model=Attri"):
        command(monkeypatch, files)


def test_an_evaluation_that_was_cut_goes_on(plain, tmp_path, monkeypatch):
    check_goes_on(
        lambda ledger: evaluate(batch_size=2, ledger=ledger), tmp_path, monkeypatch, after=4
    )


# ---- curves over strength, and an examiner apart ------------------------------------------------


class Other(Judge):
    """An examiner that sees spots where there are none, and names its factors."""

    factor_names = [*NAMES, "content"]

    def classify(self, x):
        return self.regress(x)[:, :K] * torch.tensor([1.0, 1, 1, -1])


def small_face():
    """Stands in for a face network, without its 43 million weights."""
    return nn.Sequential(nn.AvgPool2d(14), nn.Flatten(), nn.Linear(192, 8)).eval()


STRENGTHS = (0.25, 0.75, 1.0, 1.5)  # none at which a level is 0, or beyond what an image shows


def test_curves_of_a_perfect_editor_are_those_of_a_straight_line(plain, monkeypatch):
    monkeypatch.setattr("gen.evaluation.edit_curves.STRENGTHS", STRENGTHS)
    found = values(evaluate(Editor(noise_dim=0), metrics=["curves"], count=20))
    for strength in STRENGTHS:  # a label goes from -1/2 to 1/2: it changes beyond the middle
        assert found[f"curves/success_s{strength:g}"] == (strength > 0.5)
        patches = (3 * 2 + 1) / 4  # an animal changes two patches of 16, spots one
        expected = pytest.approx(patches * strength**2 / 16, rel=1e-5)
        assert found[f"curves/lpips_alex_s{strength:g}"] == expected
        leaks = pytest.approx(patches * strength * 2 / 5, rel=1e-5)  # std 1/2, of 5 factors
        assert found[f"curves/factors_s{strength:g}"] == leaks
    least = [m * 0.75**2 / 16 for m in (2, 2, 2, 1)]
    expected = sum(1 - far / FARTHEST for far in least) / 4
    assert found["curves/area"] == pytest.approx(expected, rel=1e-5)
    assert found["curves/monotone"] == 1
    assert found["curves/undo_lpips_alex"] == pytest.approx(0, abs=1e-9)
    assert found["curves/commute_lpips_alex"] == pytest.approx(0, abs=1e-9)


def test_a_judge_without_factors_leaves_their_rows_out(plain):
    judge = Judge()
    judge.factor_std, judge.classify = torch.ones(0), Judge().classify
    judge.regress = lambda x: x.new_zeros(len(x), 0)
    names = [*values(evaluate(judge=judge, metrics=["curves"]))]
    assert "curves/success_s1" in names and "curves/factors_s1" not in names


def test_identity_over_strength_is_that_of_the_edits_by_hand(plain, monkeypatch):
    monkeypatch.setattr("gen.evaluation.edit_curves.STRENGTHS", (0.5, 2.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        face = IRSE50().requires_grad_(False).eval()
    editor = Editor(noise_dim=0)
    rows = evaluate(editor, metrics=["identity"], count=1, arcface=face)
    assert [row["metric"] for row in rows] == ["curves/identity_s0.5", "curves/identity_s2"]
    (code, *_), wanted = editor.calls[0], torch.stack([d for _, d, _ in editor.calls[:K]], 1)
    for strength, row in zip((0.5, 2.0), rows, strict=True):
        ends = [editor.edit(code[:, None], d, None) for d in wanted.unbind(1)]
        made = [editor.synthesize(code[:, None].lerp(end, strength)).clamp(-1, 1) for end in ends]
        x = editor.synthesize(code[:, None])
        expected = identity_similarity(face, x, torch.stack(made, 1))
        assert row["value"] == pytest.approx(expected.mean().item(), abs=1e-5)
    assert rows[0]["value"] > rows[1]["value"] + 0.01 and rows[0]["better"] == "higher"


def test_identity_is_left_out_of_all_without_weights_and_refused_by_name(plain, tmp_path):
    assert not any("identity" in name for name in values(evaluate()))
    with pytest.raises(ValueError, match="--arcface: expected IR-SE50 weights .*`identity`, got"):
        evaluate(metrics=["curves", "identity"])
    face, options = small_face(), dict(metrics=["identity"], count=1, ledger=tmp_path / "v.jsonl")
    still = values(evaluate(Identity(), arcface=face, **options))
    assert len(still) == 7 and [*still.values()] == pytest.approx([1] * 7, abs=1e-5)
    first = options["ledger"].read_text()
    evaluate(Identity(), arcface=face, **options)
    assert options["ledger"].read_text() == first
    face[2].bias.data += 1
    evaluate(Identity(), arcface=face, **options)  # measured again
    assert len(options["ledger"].read_text().splitlines()) == len(first.splitlines()) + 1


def test_an_editor_that_does_nothing_has_no_area_and_a_careless_one_less(plain):
    found = values(evaluate(Identity(), metrics=["curves"], count=20))
    assert found["curves/area"] == 0 and found["curves/monotone"] == 0
    assert found["curves/undo_lpips_alex"] == 0
    good, careless = (
        values(evaluate(editor, metrics=["curves"], count=20))
        for editor in (Editor(0), Careless(0))
    )
    assert careless["curves/area"] < 0.5 * good["curves/area"]
    assert careless["curves/commute_lpips_alex"] > 0.01


def test_two_changes_that_go_together_are_found_if_there_are_any():
    y, run = np.array([0, 0, 0, 1], bool), Curves()
    run.others = np.array([[1, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]], bool)
    for seed in range(30):
        a, b, both = run.pair(np.random.default_rng(seed), y) ^ y
        assert a.any() and b.any() and not (a & b).any() and ((a | b) == both).all()
        assert sorted(both) == [0, 1, 1, 1]
    run.others = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]], bool)  # never both
    assert (run.pair(np.random.default_rng(0), y) == y).all()


def test_an_editor_may_have_a_path_of_its_own(plain):
    class Stepwise(Editor):
        def edit_at(self, ws, d, z, strength):
            return self.edit(ws, d, z) if strength >= 0.25 else ws

    found = values(evaluate(Stepwise(0), metrics=["curves"]))
    assert found["curves/success_s0.25"] == 1


def test_the_area_is_of_the_nearest_success():
    right = torch.tensor([[[False]], [[True]], [[True]]])
    far = torch.tensor([[[0.1]], [[0.2]], [[0.15]]])
    assert success_area(right, far).item() == pytest.approx(1 - 0.15 / FARTHEST)
    assert success_area(~right | right, 2 * FARTHEST + far).item() == 0
    assert success_area(right & False, far).item() == 0


def test_an_examiner_judges_apart_and_names_what_changed(plain):
    examiner = Other()
    found = values(evaluate(metrics=["edits", "examined"], count=20, examiner=examiner))
    assert found["edits/accuracy_spots"] == 1 and found["examined/accuracy_spots"] == 0
    assert found["examined/accuracy_cat"] == 1 and found["examined/accuracy_joint"] == 0
    assert found["examined/accuracy"] == found["examined/single"] == 0.75
    assert found["examined/agreement"] == 0.75 and found["examined/kept"] == 1
    assert found["examined/factor_spots"] == pytest.approx(1 / 0.5 / 4)
    assert found["examined/factor_content"] == 0
    moved = sum(found[f"examined/factor_{name}"] for name in NAMES[:3])
    assert moved == pytest.approx(3 * 2 / 0.5 / 4)


def test_all_leaves_the_examiner_out_if_there_is_none(plain):
    assert not any(name.startswith("examined") for name in values(evaluate()))
    with pytest.raises(ValueError, match="--examiner: expected a classifier for `examined`"):
        evaluate(metrics=["examined"])
    other = Judge()
    other.attribute_names = NAMES[:3]
    with pytest.raises(ValueError, match="examiner: expected an AttributeClassifier of"):
        evaluate(metrics=["examined"], examiner=other)
