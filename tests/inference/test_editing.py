"""What is asked of editors of codes, on stand-ins whose images show their codes."""

import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import gen
from gen.inference import editing
from gen.methods.style_function import StyleFunction
from gen.networks import perceptual

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
NAMES = ["bear", "cat", "dog", "spots"]


class Editor(torch.nn.Module):
    """Its code is its attributes, its image shows them; an edit also adds its noise."""

    task = "editor"
    attribute_names, noise_dim, latent_dim, img_size = NAMES, 4, 4, 4

    def __init__(self):
        super().__init__()
        self.seen = torch.nn.Parameter(torch.zeros(1))  # says on which device

    def map_latents(self, z, psi=None):
        species = torch.nn.functional.one_hot(z[:, :3].argmax(1), 3).float()
        return torch.cat([species, (z[:, 3:] > 0).float()], 1)[:, None]  # (N, 1, 4)

    def synthesize(self, ws):
        return ws[:, :, None, :].expand(-1, 3, 4, -1)  # (N, 3, 4, 4)

    def edit(self, ws, d, z):
        return d[:, None] + 1e-3 * z[:, None]


class Judge:
    attribute_names, img_size = NAMES, 4

    def classify(self, x):
        return x[:, 0, 0] - 0.5


def test_labels_are_what_the_judge_sees_and_known_are_all_that_occur():
    method = Editor()
    ws = torch.tensor([[[0.0, 1, 0, 1]], [[1.0, 0, 0, 0]]])
    assert torch.equal(editing.labels(method, Judge(), ws), ws[:, 0])
    seen = editing.known(method, Judge())
    assert len(seen) == 6  # three species, with and without spots
    assert (seen[:, :3].sum(1) == 1).all()


def test_what_is_two_things_at_once_is_not_asked_for():
    alone = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 1], [0, 1, 0]]).repeat(24, 1)
    both = torch.tensor([[1, 1, 0], [1, 1, 1]]).repeat(2, 1)
    kept = editing.possible(torch.cat([alone, both]))
    assert kept[:96].all() and not kept[96:].any()
    assert editing.possible(alone[:, 1:]).all()  # by chance as often together
    assert editing.possible(torch.ones(5, 3)).all() and editing.possible(torch.zeros(5, 3)).all()


def test_another_judge_is_refused():
    judge = Judge()
    judge.attribute_names = NAMES[:3]
    with pytest.raises(ValueError, match="classifier: expected the attributes .* got"):
        editing.labels(Editor(), judge, torch.zeros(1, 1, 4))
    judge = SimpleNamespace(img_size=4, classify=judge.classify)  # as of one that tells domains
    with pytest.raises(ValueError, match="classifier: expected the attributes .* got None at 4 px"):
        editing.labels(Editor(), judge, torch.zeros(1, 1, 4))


def test_a_request_changes_as_little_else_as_occurs():
    seen = editing.known(Editor(), Judge())
    y = torch.tensor([0.0, 0, 1, 1])  # a dog with spots
    assert editing.parse("cat", NAMES) == {1: True}
    assert editing.wanted(y, editing.parse("cat", NAMES), seen).tolist() == [0, 1, 0, 1]
    assert editing.wanted(y, editing.parse("cat,no-spots", NAMES), seen).tolist() == [0, 1, 0, 0]
    assert editing.wanted(y, {}, seen).tolist() == y.tolist()
    assert editing.wanted(y, editing.parse("no-dog", NAMES), seen)[3] == 1


def test_requests_that_cannot_be_met_are_refused():
    seen = editing.known(Editor(), Judge())
    with pytest.raises(ValueError, match="combinations of attributes.*ask for less"):
        editing.wanted(seen[0], editing.parse("cat,dog", NAMES), seen)
    with pytest.raises(ValueError, match="of bear, cat, dog, spots, as NAME or no-NAME, got 'cow'"):
        editing.parse("cow", NAMES)
    with pytest.raises(ValueError, match="expected cat or no-cat, got both in 'cat,dog,no-cat'"):
        editing.parse("cat,dog,no-cat", NAMES)
    for nothing in ("", ","):
        with pytest.raises(ValueError, match=f"as NAME or no-NAME, got '{nothing}'"):
            editing.parse(nothing, NAMES)
    assert editing.parse("cat,cat,", NAMES) == {1: True}


def test_edits_have_a_row_for_each_request_and_seed():
    method = Editor()
    ws = method.map_latents(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)))
    d = torch.stack([ws[:, 0], 1 - ws[:, 0]])  # (2, 5, 4)
    codes = editing.edits(method, ws, d, range(3))
    assert codes.shape == (2, 3, 5, 1, 4)
    assert torch.equal(codes[:, :1], editing.edits(method, ws, d, range(1)))
    assert (codes[0] - codes[1]).sub(d[0, :, None] - d[1, :, None]).abs().max() < 1e-5
    assert len(codes[0, :, 0, 0].unique(dim=0)) == 3  # other noise, another code


def test_a_strength_is_a_share_of_the_edit_or_of_the_editors_own_path():
    method, strengths = Editor(), (0, 0.5, 1, 2)
    ws, z = torch.tensor([[[0.0, 1, 0, 1]], [[1.0, 0, 0, 0]]]), torch.zeros(2, 4)
    d = torch.tensor([[1.0, 0, 0, 1], [1.0, 0, 0, 0]])
    codes = editing.at_strengths(method, ws, d, z, strengths)
    assert codes.shape == (4, 2, 1, 4)
    assert torch.equal(codes[:, 1], ws[1:].expand(4, -1, -1))  # nothing is to change
    assert codes[:, 0, 0].tolist() == [[k, 1 - k, 0, 1] for k in strengths]
    method.edit_at = lambda ws, d, z, strength: ws + strength
    assert torch.equal(editing.at_strengths(method, ws, d, z, (0.5,))[0], ws + 0.5)


def test_success_is_the_probability_of_what_changes_alone():
    y, d = torch.tensor([1.0, 0, 0, 1]), torch.tensor([0.0, 1, 0, 1])
    images = Editor().synthesize(torch.tensor([[[1.0, 0, 1, 0]], [[0.0, 1, 1, 0]]]))
    low, high = torch.sigmoid(torch.tensor([-0.5, 0.5])).tolist()
    assert editing.success(Judge(), images, y, d).tolist() == pytest.approx([low, high])
    half = editing.success(Judge(), images, y, torch.tensor([0.0, 0, 1, 1]))
    assert half.tolist() == pytest.approx([(low + high) / 2, high])


def test_a_walk_passes_through_its_keys():
    method = Editor()
    keys = [torch.zeros(2, 1, 4), torch.ones(2, 1, 4), torch.full((2, 1, 4), 0.5)]
    first, second = editing.walk(method, keys, 5)
    assert first.shape == (2, 5, 3, 4, 4)
    assert torch.equal(first[:, -1], second[:, 0])
    assert torch.equal(first[0, :, 0, 0, 0], torch.linspace(0, 1, 5))


@pytest.fixture(scope="module")
def checkpoint(edited, tmp_path_factory):
    from runs import STYLE_FUNCTION, ship

    method = StyleFunction(**STYLE_FUNCTION)
    method.load_generator(edited["generator"])
    return ship(method, tmp_path_factory.mktemp("editor") / "editor.safetensors")


def run(checkpoint, judge, out, *more: str) -> list[str]:
    """What `scripts/edit.py` wrote."""
    command = [sys.executable, str(SCRIPTS / "edit.py"), "--checkpoint", str(checkpoint)]
    command += ["--classifier", judge, "--out", str(out), *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return sorted(path.name for path in out.iterdir())


def test_the_script_draws_seeds(checkpoint, edited, tmp_path):
    seen = editing.known(*map(gen.load, (checkpoint, edited["judge"])))  # an untrained judge's
    request = ("" if seen[0, 0] else "no-") + "bear"
    options = ["--seeds", "3-4", "--set", request, "--noises", "3", "--frames", "4"]
    wrote = run(checkpoint, edited["judge"], tmp_path, *options)
    singles = [f"0{k}-{3 + k}_0-{request}_{j}.png" for k in (0, 1) for j in range(3)]
    clips = ["00-3.gif", "00-3.mp4", "01-4.gif", "01-4.mp4"]
    assert wrote == sorted([*clips, *singles, "codes.safetensors", "edits.png"])
    assert Image.open(tmp_path / "00-3.gif").n_frames == 6  # 4 and back
    width, height = Image.open(tmp_path / "edits.png").size
    assert 1.7 < width / height < 2.2  # 4 columns, 2 rows, a header


def test_the_script_takes_photos(checkpoint, edited, tmp_path):
    if not perceptual.cache_path("vgg").exists():
        pytest.skip("LPIPS weights are not cached: python -m gen.networks.perceptual")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 50), "orange").save(photo)
    seen = editing.known(*map(gen.load, (checkpoint, edited["judge"])))
    request = ("" if seen[0, 0] else "no-") + "bear"
    options = [str(photo), "--set", request, "--steps", "2", "--frames", "0"]
    wrote = run(checkpoint, edited["judge"], tmp_path / "out", *options)
    singles = [f"00-photo_0-{request}_{j}.png" for j in range(2)]
    assert wrote == [*singles, "codes.safetensors", "edits.png"]


def test_an_editor_translates_images(checkpoint):
    method = gen.load(checkpoint)
    x = torch.zeros(2, 3, 32, 32)
    method.encode = lambda x, steps: method.map_latents(torch.ones(len(x), 8))
    d, z = torch.ones(2, 6), torch.ones(2, 4)
    made = method.translate(x, d, z)
    ws = method.map_latents(torch.ones(2, 8))
    assert torch.equal(made, method.synthesize(method.edit(ws, d, z)))


def test_the_script_says_what_it_needs(checkpoint, edited, tmp_path):
    with pytest.raises(RuntimeError, match="expected an editor of codes, got AttributeClassifier"):
        run(edited["judge"], edited["judge"], tmp_path, "--set", "cat")


@pytest.mark.parametrize(
    "options, message",
    [
        (["--noises", "0"], "expected --noises in 1 .. 100 and --frames 0 or >= 2, got 0 and 12"),
        (["--frames", "1"], "expected --noises in 1 .. 100 and --frames 0 or >= 2, got 2 and 1"),
        (["--seeds", "1", "5-2"], "seeds: expected a number or a range .* got 5-2"),
        (["--classifier", "domains"], "classifier: expected the attributes .* got None at 32 px"),
    ],
)
def test_the_script_refuses_before_it_projects(
    checkpoint, edited, tmp_path, monkeypatch, options, message
):
    if "domains" in options:
        from gen.methods.domain_classifier import DomainClassifier
        from runs import CLASSIFIER, ship

        options = [
            "--classifier",
            str(ship(DomainClassifier(**CLASSIFIER), tmp_path / "d.safetensors")),
        ]
    photo = tmp_path / "photo.png"
    Image.new("RGB", (40, 50), "orange").save(photo)
    monkeypatch.setattr(StyleFunction, "encode", None)
    script = str(SCRIPTS / "edit.py")
    judge = ["--classifier", edited["judge"], "--out", str(tmp_path / "out")]
    command = [
        script,
        str(photo),
        "--checkpoint",
        str(checkpoint),
        *judge,
        "--set",
        "cat",
        *options,
    ]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match=message):
        runpy.run_path(script, run_name="__main__")
    assert not (tmp_path / "out").exists()


def test_a_photo_that_is_none_is_told_before_the_work(checkpoint, edited, tmp_path, monkeypatch):
    (tmp_path / "photo.png").write_text("no image")
    monkeypatch.setattr(editing, "known", pytest.fail)
    words = ["--checkpoint", checkpoint, "--classifier", edited["judge"], "--set", "cat"]
    words = [SCRIPTS / "edit.py", *words, "--out", tmp_path / "out", tmp_path / "photo.png"]
    monkeypatch.setattr(sys, "argv", [*map(str, words)])
    with pytest.raises(SystemExit, match="photo.png: expected PNG, JPEG, WebP or BMP"):
        runpy.run_path(str(words[0]), run_name="__main__")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "script, options",
    [
        ("interpolate", ["x.png", "--domains", "cat", "dog"]),
        ("translate", ["--input", "x.png", "--out", "out", "--domain", "cat"]),
    ],
)
def test_scripts_of_translators_name_the_one_of_editors(checkpoint, monkeypatch, script, options):
    script = str(SCRIPTS / f"{script}.py")
    monkeypatch.setattr(sys, "argv", [script, "--checkpoint", str(checkpoint), *options])
    with pytest.raises(SystemExit, match="got StyleFunction, an editor of codes; gen edit"):
        runpy.run_path(script, run_name="__main__")
