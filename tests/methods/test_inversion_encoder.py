"""The encoder into W+: its terms, its promises in a run, its evaluation, and edits of photos."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import gen
from gen.checkpoint import export
from gen.cli import main
from gen.evaluation import encoders
from gen.inference import editing
from gen.methods.inversion_encoder import InversionEncoder
from gen.methods.style_function import StyleFunction
from gen.methods.stylegan2 import StyleGAN2
from gen.verbs import edit as edit_verb
from gen.weights import load_safetensors
from harness import bare
from runs import ENCODER, GENERATOR, STYLE_FUNCTION, cut_run, differences, fit, losses, read, ship

NAME, FIRST, MORE, L, D = "InversionEncoder", 3, 4, 8, 8


class Apart(torch.nn.Module):
    """In place of LPIPS, from 32 px on."""

    net = "apart"

    def __init__(self, *_):
        super().__init__()

    def forward(self, x, y):
        return (x - y).square().mean((1, 2, 3))


@pytest.fixture(scope="module")
def generator(edited):
    return {"generator": edited["generator"]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, generator):
    """One run of FIRST + MORE iterations, and the checkpoint that it wrote in between."""
    return cut_run(NAME, tmp_path_factory.mktemp(NAME), f"--save_every={FIRST}", **generator)


@pytest.fixture
def method(generator):
    made = bare(InversionEncoder)(**ENCODER)
    made.load_generator(generator["generator"])
    made._lpips = (Apart(),)
    return made


def batch(n=4):
    rng = torch.Generator().manual_seed(0)
    return {"x": torch.rand(n, 3, 32, 32, generator=rng) * 2 - 1}


def test_the_first_code_of_any_image_is_the_mean_code(method):
    ws = method.encode(batch()["x"])
    torch.testing.assert_close(ws, method.code_mean.expand(4, L, D))
    z = torch.randn(4000, 8, generator=torch.Generator().manual_seed(1))
    w = method.map_latents(z, method.hparams.psi)[:, 0]
    torch.testing.assert_close(method.code_mean, w.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(
        method.code_std, (w - w.mean(0)).square().mean().sqrt(), rtol=0.1, atol=0
    )


def test_terms_are_of_the_code_the_pixels_and_the_rows(method):
    x = batch()["x"]
    known = method.known_codes(4, x)
    made = method.generator.synthesis(known).clamp(-1, 1)
    flat = method.generator.synthesis(method.code_mean.expand(8, L, D))
    method.training_step({"x": x})  # the encoder says the mean code
    terms = {k.removeprefix("train/"): v for k, v in method.terms.items()}
    scaled = (known - method.code_mean) / method.code_std
    torch.testing.assert_close(terms["latent"], scaled.square().mean())
    pixel = (torch.cat([x, made]) - flat).square().mean()
    torch.testing.assert_close(terms["pixel"], pixel)
    torch.testing.assert_close(terms["lpips"], pixel)
    assert terms["rows"] == 0
    with torch.no_grad():
        method.encoder.rows[0].bias += 1.0
    method.training_step({"x": x})
    share = (1 - 1 / L) ** 2 / L + (L - 1) / L * (1 / L) ** 2
    torch.testing.assert_close(method.terms["train/rows"], torch.tensor(share))


def test_weight_zero_is_not_computed(generator):
    off = dict(lambda_pixel=0.0, lambda_lpips=0.0, lambda_rows=0.0)
    method = bare(InversionEncoder)(**ENCODER | off)
    method.load_generator(generator["generator"])
    method.training_step(batch())
    assert set(method.terms) == {"train/latent"}


def test_generated_codes_are_mixed_as_often_as_asked(method):
    shares = {}
    for mixing in (0.0, 0.5, 1.0):
        method.hparams.mixing, mixed = mixing, 0
        for method.global_step in range(50):
            ws = method.known_codes(4, torch.zeros(1))
            mixed += (ws != ws[:, :1]).any(2).any(1).sum().item()
        shares[mixing] = mixed / 200
    assert shares[0.0] == 0 and 0.35 < shares[0.5] < 0.65 and shares[1.0] == 1


def test_it_learns_the_codes_of_generated_images(method):
    method.hparams.update(lambda_rows=0.0, lambda_pixel=0.0, lambda_lpips=0.0, lr=3e-3)
    (optimizer,), seen = method.configure_optimizers(), []
    for method.global_step in range(60):
        loss = method.training_step(batch(16))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(method.terms["train/latent"].item())
    assert sum(seen[-10:]) < 0.8 * sum(seen[:10])


# ---- runs ---------------------------------------------------------------------------------------


def test_resumed_run_equals_the_uncut_run_bit_for_bit(whole, generator, tmp_path):
    more = (f"--ckpt_path={whole / 'cut.ckpt'}",)
    last = fit(NAME, tmp_path, *more, steps=FIRST + MORE, **generator)
    a, b = read(whole / "last.ckpt"), read(last)
    for part in ("state_dict", "optimizer_states", "hyper_parameters"):
        assert not differences(a[part], b[part], part)
    assert losses(tmp_path) == losses(whole)[FIRST:]


def test_it_trains_the_encoder_alone(whole, edited):
    a, b = (read(whole / f"{which}.ckpt")["state_dict"] for which in ("cut", "last"))
    assert {k.split(".")[0] for k in a if not torch.equal(a[k], b[k])} == {"encoder", "ema"}
    source = gen.load(edited["generator"]).ema.module["generator"].state_dict()
    assert not differences(source, {k: b[f"generator.{k}"] for k in source})


def test_a_file_encodes_as_the_run_did(whole, tmp_path):
    export(whole / "last.ckpt", tmp_path / "x.safetensors")
    a, b = gen.load(whole / "last.ckpt"), gen.load(tmp_path / "x.safetensors")
    x = batch()["x"]
    assert torch.equal(a.encode(x), b.encode(x)) and a.encode(x).is_inference()
    alone = torch.cat([a.encode(one) for one in x.split(1)])
    torch.testing.assert_close(alone, a.encode(x), atol=1e-5, rtol=0)


def test_refinement_starts_from_the_code(whole, monkeypatch):
    method, given = gen.load(whole / "last.ckpt"), {}

    def project(generator, x, steps, space, **options):
        given.update(options, steps=steps)
        return SimpleNamespace(ws=options["start"] + 1)

    monkeypatch.setattr("gen.methods.inversion_encoder.project", project)
    x = batch()["x"]
    torch.testing.assert_close(method.encode(x, 7), method.encode(x) + 1)
    assert given["steps"] == 7


# ---- its evaluation -----------------------------------------------------------------------------


def test_rows_compare_it_with_a_projection(whole, monkeypatch, caplog):
    monkeypatch.setattr(encoders, "LPIPS", Apart)
    method = gen.load(whole / "last.ckpt")
    val = gen.data.Heads(img_size=32, val_images=4).val
    exact, steps = {}, []

    def project(x, count):
        steps.append(count)
        return method.map_latents(torch.zeros(len(x), 8))

    method.project = lambda x, steps, start: start
    with caplog.at_level("INFO"):
        rows = encoders.evaluate_encoder(method, val, project, count=3, batch_size=2)
    assert [caplog.text.count(f"{group}: ") for group in encoders.GROUPS] == [1] * 4
    again = encoders.evaluate_encoder(method, val, project, count=3, batch_size=2)
    assert [row | {"seconds": 0} for row in again] == [row | {"seconds": 0} for row in rows]
    values = {row["metric"]: row for row in rows}
    assert set(steps) == {200} and values["projected/lpips_apart"]["better"] == "lower"
    x = torch.stack([val[i]["x"] for i in (0, 5, 11)])
    exact["encoded"] = method.encode(x)
    exact["projected"] = method.map_latents(torch.zeros(3, 8))
    for name, ws in exact.items():
        expected = Apart()(method.synthesize(ws).clamp(-1, 1), x).mean().item()
        assert values[f"{name}/lpips_apart"]["value"] == pytest.approx(expected, rel=1e-5)
        assert values[f"{name}/pixel"]["value"] == pytest.approx(expected, rel=1e-5)
    assert values["projected/rows"]["value"] == pytest.approx(0, abs=1e-6)
    assert values["refined/pixel"]["value"] == values["encoded/pixel"]["value"]
    assert values["generated/code"]["value"] > 0 and values["encoded/pixel"]["count"] == 3
    with pytest.raises(ValueError, match="metrics: expected some of"):
        encoders.evaluate_encoder(method, val, project, metrics=["encode"])


# ---- gen edit --encoder -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(edited, whole, tmp_path_factory):
    """An editor and an encoder of one generator, the judge, and a folder of two photos."""
    folder = tmp_path_factory.mktemp("files")
    editor = StyleFunction(**STYLE_FUNCTION)
    editor.load_generator(edited["generator"])
    (folder / "photos" / "more").mkdir(parents=True)
    Image.new("RGB", (40, 50), "orange").save(folder / "photos" / "a.png")
    Image.new("RGB", (40, 50), "teal").save(folder / "photos" / "more" / "b.jpg")
    export(whole / "last.ckpt", folder / "encoder.safetensors", half=True)
    return dict(
        editor=str(ship(editor, folder / "editor.safetensors")),
        encoder=str(folder / "encoder.safetensors"),
        judge=edited["judge"],
        photos=str(folder / "photos"),
    )


def edit(files, out, *more):
    seen = editing.known(*map(gen.load, (files["editor"], files["judge"])))
    request = ("" if seen[0, 0] else "no-") + "bear"
    words = ["--checkpoint", files["editor"], "--classifier", files["judge"], "--set", request]
    main(["edit", *words, "--noises", "1", "--frames", "0", "--out", str(out), *more])
    return sorted(path.name for path in out.iterdir()), request


def test_a_folder_of_photos_is_edited_by_the_encoder_and_its_codes_again(files, tmp_path, capsys):
    wrote, request = edit(files, tmp_path / "a", files["photos"], "--encoder", files["encoder"])
    singles = [f"00-a_0-{request}_0.png", f"01-b_0-{request}_0.png"]
    assert wrote == [*singles, "codes.safetensors", "edits.png"]
    assert Image.open(tmp_path / "a" / singles[0]).size == (32, 32)
    codes = str(tmp_path / "a" / "codes.safetensors")
    again, _ = edit(files, tmp_path / "b", "--codes", codes)
    for one, other in zip(singles, again[:2], strict=True):
        pictures = [Image.open(tmp_path / place) for place in (f"a/{one}", f"b/{other}")]
        assert pictures[0].tobytes() == pictures[1].tobytes()


def test_many_photos_go_through_in_blocks(files, tmp_path, monkeypatch, capsys):
    folder, seen = tmp_path / "photos", {}
    folder.mkdir()
    for k in range(60):
        Image.new("RGB", (40, 40), (4 * k, 90, 90)).save(folder / f"{k:02}.png")
    for cls, name in ((InversionEncoder, "encode"), (StyleFunction, "edit")):
        watch(monkeypatch, cls, name, seen)
    watch(monkeypatch, StyleFunction, "synthesize", seen)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9 * 3 * 32**2)
    more = [str(folder), "--encoder", files["encoder"], "--cell-px", "32"]
    wrote, request = edit(files, tmp_path / "a", *more)
    assert max(seen["encode"]) == max(seen["edit"]) == 8 and max(seen["synthesize"]) == 50
    assert sum(seen["encode"]) == 60 and len(wrote) == 62
    assert "edits.png, the first 9 of 60" in capsys.readouterr().out
    monkeypatch.setattr(edit_verb, "AT_ONCE", 60)
    again, _ = edit(files, tmp_path / "b", *more)
    assert again == wrote
    both = [load_safetensors(tmp_path / k / "codes.safetensors")[0]["ws"] for k in "ab"]
    torch.testing.assert_close(*both)
    for name in ("edits.png", f"59-59_0-{request}_0.png"):
        one, other = (np.asarray(Image.open(tmp_path / k / name)).astype(int) for k in "ab")
        assert abs(one - other).max() <= 1


def watch(monkeypatch, cls, name: str, seen: dict[str, list[int]]) -> None:
    """Notes how many rows each call of a method gets."""
    own = getattr(cls, name)

    def watched(self, x, *more):
        seen.setdefault(name, []).append(len(x))
        return own(self, x, *more)

    monkeypatch.setattr(cls, name, watched)


def test_codes_are_kept_whatever_comes_later(files, tmp_path, monkeypatch):
    monkeypatch.setattr(edit_verb, "AT_ONCE", 1)
    codes, encode = tmp_path / "a" / "codes.safetensors", InversionEncoder.encode

    def once(self, x, *more):
        if codes.exists():
            raise OSError(28, "No space left on device", "x")
        return encode(self, x, *more)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="space on the disk"):
        patch.setattr(InversionEncoder, "encode", once)
        edit(files, codes.parent, files["photos"], "--encoder", files["encoder"])
    assert len(load_safetensors(codes)[0]["ws"]) == 1  # of the first photo
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="space on the disk"):
        patch.setattr(StyleFunction, "edit", lambda *_: once(None, None))
        edit(files, codes.parent, files["photos"], "--encoder", files["encoder"])
    assert len(load_safetensors(codes)[0]["ws"]) == 2


def test_a_picture_that_no_cell_fits_into_is_refused_before_the_work(files, tmp_path):
    for px, told in (("0", "expected at least 1 px, got 0"), ("9000", "expected less for 2 col")):
        with pytest.raises(SystemExit, match=f"--cell-px: {told}"):
            edit(files, tmp_path / "out", "--seeds", "1", "--cell-px", px)
    assert not (tmp_path / "out").exists()


def test_the_codes_of_a_folder_are_edited_again_into_it(files, tmp_path):
    """As the help shows it: codes are read from where they would be written."""
    wrote, _ = edit(files, tmp_path / "edits", "--seeds", "0-1")
    codes = tmp_path / "edits/codes.safetensors"
    before = codes.read_bytes()
    again, request = edit(files, tmp_path / "edits", "--codes", str(codes))
    assert codes.read_bytes() == before and {*wrote} < {*again}
    one, other = (tmp_path / f"edits/01-{name}_0-{request}_0.png" for name in ("1", "code1"))
    assert one.read_bytes() == other.read_bytes()
    other = tmp_path / "other.safetensors"
    codes.rename(other)
    edit(files, tmp_path / "edits", "--codes", str(other))
    assert codes.read_bytes() == before


def test_an_encoder_of_another_generator_is_refused(files, tmp_path):
    other = StyleGAN2(**GENERATOR | dict(seed=1))
    path = ship(other, tmp_path / "other.safetensors")
    encoder = InversionEncoder(**ENCODER)
    encoder.load_generator(str(path))
    encoder = str(ship(encoder, tmp_path / "encoder.safetensors"))
    with pytest.raises(SystemExit, match="expected an encoder of the editor's generator"):
        edit(files, tmp_path / "out", files["photos"], "--encoder", encoder)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "more, told",
    [
        (["--refine", "3"], "--refine: expected 0 or more steps after --encoder, got 3 without"),
        (["--encoder", "judge"], "expected an encoder of photos into codes, got Attribute"),
        (["--encoder", "encoder", "--seeds", "1"], "--encoder: expected photos, got none"),
        (["photos", "--codes", "judge"], "--codes: expected it without photos, got both"),
        (["--codes", "judge"], "expected a .npy or .safetensors file of one array"),
    ],
)
def test_what_does_not_go_together_is_told(files, tmp_path, more, told):
    words = [files.get(word, word) for word in more]
    if told.startswith("expected an encoder"):
        words.append(files["photos"])
    with pytest.raises(SystemExit, match=told):
        edit(files, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()
