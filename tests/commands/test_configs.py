"""Every config that ships parses as it is, and runs two steps with tiny widths."""

from pathlib import Path

import pytest
import yaml

from gen.cli import main
from runs import (
    CLASSIFIER,
    DATA,
    EDITED,
    ENCODER,
    GENERATOR,
    HEADS,
    QUIET,
    SIZES,
    STYLE_FUNCTION,
    TRAINER,
    VIT,
    WIDTHS,
    flags,
    losses,
    read,
    rows,
)

ROOT = Path(__file__).resolve().parents[2]
TRANSLATOR = (WIDTHS | dict(skip_px=0), {"latent/adv", "ref/adv", "d/real", "d/fake"})
SMALL = {  # method: options that make it small, and terms that it logs
    "DomainClassifier": (CLASSIFIER, {"train/ce"}),
    "AttributeClassifier": (CLASSIFIER, {"train/bce", "train/mse"}),
    "SpatialEntropy": (VIT | dict(pretrained="false"), {"train/ce"}),
    "StyleGAN2": (GENERATOR, {"g/adv", "d/real", "d/fake"}),
    "StyleFunction": (STYLE_FUNCTION, {"m/adv", "m/cls", "m/ds", "d/real", "d/fake", "d/cls"}),
    "LinearDirections": (EDITED, {"train/logistic"}),
    "StepwiseEditor": (EDITED | dict(hidden=16), {"train/cls", "train/nb"}),
    "InversionEncoder": (ENCODER, {"train/latent", "train/pixel", "train/rows"}),
} | rows("CONFIGS")
CONFIGS = sorted({*(ROOT / "configs").glob("*/*.yaml")} - {*(ROOT / "configs/claims").iterdir()})


def test_there_are_configs():
    assert CONFIGS


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs/stylegan2").iterdir()), ids=lambda p: p.stem
)
def test_configs_of_a_generator_draw_no_references(path):
    data = yaml.safe_load(path.read_text())["data"]
    kind = data["class_path"].split(".")[-1]
    assert kind == "Classes" or data["init_args"]["references"] is False


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_config_parses_as_it_is_and_runs_two_steps(path, tmp_path, capsys, edited):
    text = path.read_text()
    assert text.startswith("# "), "expected a header: what it reproduces, cost, metrics"
    with pytest.raises(SystemExit) as end:
        main(["fit", "-c", str(path), "--print_config"])
    whole, given = yaml.safe_load(capsys.readouterr().out), yaml.safe_load(text)
    assert end.value.code == 0
    for part in ("model", "data"):  # what the file says is what the parser understood
        understood = whole[part]["init_args"]
        assert {k: understood[k] for k in given[part]["init_args"]} == given[part]["init_args"]

    kind = whole["model"]["class_path"].split(".")[-1]
    tiny, terms = SMALL.get(kind, TRANSLATOR)
    tiny = tiny | dict(init_from="")
    options, (data, of_data) = whole["model"]["init_args"], DATA.get(kind, ("Heads", HEADS))
    if not lpips_is_cached():
        perceptual = ("lambda_cont", "lambda_lpips", "lambda_lpips_cyc")
        tiny |= {name: 0.0 for name in perceptual if name in options}
    if data == "Codes":
        tiny = {k: v for k, v in tiny.items() if k not in SIZES} | edited
    if kind == "InversionEncoder":
        tiny |= {"generator": edited["generator"]}
    small = flags("model", tiny) + [f"--data={data}", *flags("data", of_data)]
    more = flags("trainer", TRAINER | QUIET | dict(max_steps=2, max_epochs=-1))
    main(["fit", "-c", str(path), *small, *more, f"--out={tmp_path}", "--monitor="])
    saved = read(tmp_path / "last.ckpt")
    learnt = saved["hyper_parameters"]
    assert saved["global_step"] == 2 and saved["method"] == kind
    assert learnt.get("num_domains", learnt.get("num_classes", 3)) == 3
    logged = losses(tmp_path)
    terms = {name for name in terms if options.get(f"lambda_{name.split('/')[1]}", 1)}
    if options.get("lambda_gan_video"):  # else it renders nothing
        terms = terms | {"g/flow", "g/rec", "d/real_video"}
    assert len(logged) == 2 and terms <= set(logged[0])


def lpips_is_cached() -> bool:
    from gen.networks.perceptual import cache_path

    return cache_path("alex").exists()
