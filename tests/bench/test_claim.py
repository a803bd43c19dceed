"""Files of claims: those of the repository are whole; mistakes are named."""

import pytest
import yaml

from conftest import ROOT
from gen.bench import claim as claims
from gen.bench import jobs
from gen.cli import main
from gen.files import WeightsError
from gen.verbs.bench import make_parser
from gen.verbs.evaluate import make_parser as evaluate_parser

FILES = sorted((ROOT / "configs/claims").glob("*.yaml"))
GOOD = dict(
    question="Does it help?", config="c.yaml", cost=0.5, seeds=[1, 2, 3],
    arms={"without": None, "with": {"options": {"model.x": 1}, "against": "without"}},
    evaluate={"data": "heads"}, metrics=["a"],
    goals=[dict(arm="with", metric="a", measure="share", at_most=0.8)], smoke={"options": {}},
)  # fmt: skip


def write(tmp_path, **change):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD | change))
    return path


def test_a_claim_is_what_its_file_says(tmp_path):
    claim = claims.read(write(tmp_path))
    assert claim.name == "mine" and claim.arms["without"] == claims.Arm("c.yaml")
    assert claim.arms["with"] == claims.Arm("c.yaml", {"model.x": 1}, "without")
    assert str(claim.goals[0]) == "with: share of a at most 0.8"


@pytest.mark.parametrize(
    "change, told",
    [
        (dict(armz=1), "expected keys of .*, got armz"),
        (dict(seeds=[]), "got none of seeds"),
        (dict(seeds=["one"]), "expected a claim as"),
        (dict(arms={"a b": None}), "got a b"),
        (dict(arms={"a": {"option": {}}}), "unexpected keyword argument 'option'"),
        (dict(arms={"a": None, "b": {"against": "c"}}), "b: expected `against` an arm"),
        (dict(arms={"a": {"against": "b"}, "b": {"against": "a"}}), "compared with no other"),
        (dict(goals=[dict(arm="c", metric="a", measure="value", at_most=1)]), "goals for with"),
        (dict(goals=[dict(arm="with", metric="a", measure="mean", at_most=1)]), "value difference"),
        (dict(goals=[dict(arm="with", metric="a", measure="value")]), "at_least or at_most"),
        (dict(goals=[dict(arm="with", metric="b", measure="value", at_most=1)]), "of `metrics`"),
        (dict(arms={"a": {"options": {"model.seed": 1}}}), "expected `seeds`, got model.seed"),
        (dict(goals=[dict(arm="without", metric="a", measure="share", at_most=1)]), "`against`"),
    ],
)
def test_a_mistake_in_a_claim_is_named(tmp_path, change, told):
    with pytest.raises(ValueError, match=told):
        claims.read(write(tmp_path, **change))


def test_a_claim_is_found_by_name_and_by_path(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in ("smooth_i2i", "claims/smooth_i2i", "configs/claims/smooth_i2i.yaml"):
        assert claims.find(name).stem == "smooth_i2i"
    path = write(tmp_path)
    assert claims.find(str(path)) == path
    with pytest.raises(ValueError, match="smooth_i2i .* got smoothness"):
        claims.find("smoothness")
    monkeypatch.chdir(tmp_path)  # where there is no repository: the package brings its own
    assert claims.read(claims.find("smooth_i2i")).name == "smooth_i2i"
    monkeypatch.setattr("gen.files.PACKAGE", tmp_path)
    with pytest.raises(WeightsError, match="expected what the package brings"):
        claims.find("smooth_i2i")


def test_words_of_options():
    options = {"model.edges": False, "model.lambda_tri": 0, "max_sources": 3, "keep_void": True}
    assert claims.words(options) == [
        *("--model.edges", "false", "--model.lambda_tri", "0"),
        *("--max-sources", "3", "--keep-void"),
    ]
    assert claims.words({"keep_void": False, "trainer.max_epochs": None}) == [
        *("--trainer.max_epochs", "null")
    ]
    assert claims.words({"net": ["alex", "vgg"]}) == ["--net", "alex", "vgg"]


def test_words_of_a_command(tmp_path):
    for name in ("b.png", "a.png"):
        (tmp_path / name).touch()
    assert claims.command("gen x {out}", out="o") == ["-m", "gen", "x", "o"]
    assert claims.command("x.py '{out} 1' {0..9}.tar", out="o") == ["x.py", "o 1", "{0..9}.tar"]
    with pytest.raises(ValueError, match="expected files that fit .*none.png, got none"):
        claims.command(f"x {tmp_path}/*none.png")
    text = f"x.py {tmp_path}/*.png --out {{out}}"
    files = [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
    assert claims.command(text, out="o o") == ["x.py", *files, "--out", "o o"]
    with pytest.raises(ValueError, match="{out}, got 'x {in}'"):
        claims.command("x {in}", out="o")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_claims_of_the_repository_fit_their_commands(path, monkeypatch, capsys):
    """Options of all arms are options of `gen fit`; those of `evaluate` of `gen evaluate`."""
    monkeypatch.chdir(ROOT)
    options: dict[str, dict] = {}  # config -> options of all its arms
    for claim in (claims.read(path), claims.shorten(claims.read(path))):
        for run in jobs.plan(claim, path.parent, seeds=[1]):
            options.setdefault(run.arm.config, {}).update(run.arm.options)
            if run.evaluate is not None:
                evaluate_parser().parse_args(["--checkpoint", "c", *run.evaluate])
    for config, values in options.items():
        values = {"model.seed": 1, "data.seed": 1} | values
        with pytest.raises(SystemExit) as end:
            main(["fit", "-c", config, *claims.words(values), "--print_config"])
        printed = capsys.readouterr()
        assert end.value.code == 0, printed.err
        printed = yaml.safe_load(printed.out)
        for key, value in values.items():
            part, name = key.split(".")
            assert printed[part].get("init_args", printed[part])[name] == value, key


def test_the_list_has_every_claim(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    main(["bench", "--list"])
    lines = capsys.readouterr().out.splitlines()[1:-1]
    assert [line.split()[0] for line in lines] == [path.stem for path in FILES]
    assert all(" of " in line for line in lines)


def test_the_help_names_all_options(capsys):
    text = make_parser().format_help()
    for option in ("--list", "--publish", "--jobs", "--launcher", "--smoke", "--seeds", "--arms"):
        assert option in text
    assert "--only" not in text
