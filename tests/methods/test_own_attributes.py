"""Attributes of one's own, end to end on tiny drawn images: generator, classifier, editor, edit."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import gen
from gen.cli import main
from gen.inference import editing
from gen.methods.attribute_classifier import AttributeClassifier
from harness import bare
from runs import CLASSIFIER, GENERATOR, NO_LPIPS, QUIET, TRAINER, flags, losses

NAMES = "red,blue,big"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """96 discs, red or blue or grey, small or big; half of the sizes are not labelled."""
    root, rng, lines = tmp_path_factory.mktemp("discs"), np.random.default_rng(0), []
    for i in range(96):
        colour, big = i % 3, int(rng.integers(2))
        image = Image.new("RGB", (32, 32), "white")
        r = 13 if big else 5
        fill = ("red", "blue", "grey")[colour]
        ImageDraw.Draw(image).ellipse((16 - r, 16 - r, 16 + r, 16 + r), fill)
        image.save(root / f"{i:02}.png")
        lines.append(
            f"{i:02}.png,{int(colour == 0)},{int(colour == 1)},{'' if i % 4 in (0, 3) else big}"
        )
    (root / "labels.csv").write_text("\n".join(["file,hue:red,hue:blue,big", *lines]))
    return root


def fit(name, out, data, steps, **model):
    options = TRAINER | QUIET | dict(max_steps=steps)
    main(["fit", f"--model={name}", *flags("model", model), *flags("trainer", options), *data,
          f"--out={out}"])  # fmt: skip
    return str(out / "last.ckpt")


@pytest.fixture(scope="module")
def files(drawn, tmp_path_factory):
    """A generator, a judge and an editor, all of the drawn images."""
    out = tmp_path_factory.mktemp("own")
    data = dict(root=drawn, img_size=32, batch_size=8, num_workers=0)
    own = ["--data=Attributes", *flags("data", data)]
    named = dict(attributes=NAMES, exclusive="red+blue", factors="")
    judge = CLASSIFIER | named | dict(lr=5e-3, disturb=0.0, lr_warmup_iters=0)
    found = {
        "generator": fit("StyleGAN2", out / "g", [*own, "--data.references=false"], 2, **GENERATOR),
        "judge": fit("AttributeClassifier", out / "j", own, 60, **judge),
    }
    function = dict(attributes=NAMES, noise_dim=4, d_channels=4, d_max_channels=8) | NO_LPIPS
    codes = ["--data=Codes", "--data.batch_size=4"]
    return found | {"editor": fit("StyleFunction", out / "e", codes, 2, **function, **found)}


def test_the_judge_learns_them_where_they_are_known(files, drawn):
    judge = gen.load(files["judge"])
    assert judge.attribute_names == NAMES.split(",") and judge.exclusive == [["red", "blue"]]
    train = gen.data.Attributes(str(drawn), img_size=32).train
    x = torch.stack([train[i]["x"] for i in range(len(train))])
    known = ~train.values.isnan()
    right = (judge.classify(x) > 0) == (train.values > 0)
    assert known.sum() < known.numel() and right[known].float().mean() > 0.9
    assert judge.regress(x).shape == (len(train), 0)


def test_unknown_labels_count_nowhere():
    method = bare(AttributeClassifier)(**CLASSIFIER, attributes="a,b", factors="", disturb=0.0)
    rng = torch.Generator().manual_seed(0)
    batch = {}
    for of in ("", "_ref", "_ref2"):
        batch[f"x{of}"] = torch.rand(2, 3, 32, 32, generator=rng) * 2 - 1
        batch[f"attributes{of}"] = torch.tensor([[1.0, float("nan")], [0.0, float("nan")]])
        batch[f"factors{of}"] = torch.zeros(2, 0)
    method.eval()
    loss = method.training_step(batch)
    x = torch.cat([batch[f"x{of}"] for of in ("", "_ref", "_ref2")])
    labels = torch.tensor([1.0, 0.0] * 3)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(method.net(x)[:, 0], labels)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert not method.net.get_classifier().weight.grad[1].any()
    assert set(method.terms) == {"train/bce", "train/accuracy"}
    values = [batch["attributes"][0], batch["attributes"][1]]
    with pytest.raises(ValueError, match="training images that differ in every .* share b"):
        method.measure([dict(attributes=v, factors=torch.zeros(0)) for v in values])


def test_names_and_groups_must_be_those_of_the_data(drawn, tmp_path):
    own = ["--data=Attributes", *flags("data", dict(root=drawn, img_size=32, num_workers=0))]
    with pytest.raises(ValueError, match="with the exclusive , got Attributes with red.blue"):
        fit("AttributeClassifier", tmp_path, own, 1, **CLASSIFIER, attributes=NAMES, factors="")


def test_the_editor_trains_on_them_and_its_edits_are_measured(files, tmp_path):
    out = tmp_path / "rows.jsonl"
    words = ["--checkpoint", files["editor"], "--classifier", files["judge"], "--count", "4"]
    main(["evaluate", *words, "--metrics", "edits", "--out", str(out)])
    assert "edits/accuracy_joint" in out.read_text()


def test_declared_groups_decide_what_is_asked_for(files):
    judge = gen.load(files["judge"])
    assert editing.declared(judge) == [[0, 1]]
    y = torch.tensor([[1.0, 1, 0], [1, 0, 1], [0, 0, 0]])
    assert editing.possible(y, editing.declared(judge)).tolist() == [False, True, True]


def test_validation_without_a_known_label_is_told(drawn, tmp_path):
    (root := tmp_path / "data").mkdir()
    lines = (drawn / "labels.csv").read_text().splitlines()
    for image in drawn.glob("*.png"):
        (root / image.name).write_bytes(image.read_bytes())
    blank = [line.rpartition(",")[0] + "," if int(line[:2]) % 2 else line for line in lines[1:]]
    (root / "labels.csv").write_text("\n".join([lines[0], *blank]))  # its split is all odd
    own = ["--data=Attributes", *flags("data", dict(root=root, img_size=32, num_workers=0))]
    named = dict(attributes=NAMES, exclusive="red+blue", factors="")
    with pytest.raises(ValueError, match="known labels of every attribute, got none of big"):
        fit("AttributeClassifier", tmp_path / "run", [*own, "--trainer.limit_val_batches=1.0"], 1,
            **CLASSIFIER | named)  # fmt: skip


def test_validation_leaves_unknown_labels_out(files, drawn, tmp_path):
    data = dict(root=drawn, img_size=32, batch_size=8, num_workers=0)
    named = dict(attributes=NAMES, exclusive="red+blue", factors="", init_from=files["judge"])
    options = TRAINER | QUIET | dict(limit_val_batches=1.0)
    main(["validate", "--model=AttributeClassifier", *flags("model", CLASSIFIER | named),
          "--data=Attributes", *flags("data", data), *flags("trainer", options),
          f"--out={tmp_path}"])  # fmt: skip
    val, judge = gen.data.Attributes(str(drawn), img_size=32).val, gen.load(files["judge"])
    x = torch.stack([val[i]["x"] for i in range(len(val))])
    known = ~val.values.isnan()
    right = ((judge.classify(x) > 0) == (val.values > 0)) & known
    row = next(row for row in losses(tmp_path) if row["val/accuracy_big"])
    expected = (right.sum(0) / known.sum(0)).tolist()
    got = [float(row[f"val/accuracy_{name}"]) for name in NAMES.split(",")]
    assert got == pytest.approx(expected) and not any("r2" in key for key in row)
