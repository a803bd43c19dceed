"""docs/scale.md: its links and its commands; the operations that its table states."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from gen import verbs
from gen.cli import main
from paper_flops import cost

TEXT = (ROOT / "docs/scale.md").read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, re.S)).replace("\\\n", " ")
COMMANDS = [shlex.split(line) for line in BLOCKS.splitlines() if line.strip()]
FITS = [words[words.index("fit") :] for words in COMMANDS if "fit" in words]
SCRIPTS = [words for words in COMMANDS if "fit" not in words]


def test_files_that_it_names_exist():
    for path in re.findall(r"(?:scripts|configs|data_prep|tests)/[\w/.]+\.\w+", TEXT):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("words", FITS, ids=lambda words: " ".join(words[2:])[:60])
def test_commands_of_training_parse(words, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as end:
        main([*words, "--print_config"])
    assert not end.value.code
    found = yaml.safe_load(capsys.readouterr().out)
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert {"--out"} < set(given)
    for name, value in given.items():
        part, _, key = name.removeprefix("--").partition(".")
        got = found[part] if not key else found[part].get("init_args", found[part])[key]
        assert str(got) == value


@pytest.mark.parametrize("words", SCRIPTS, ids=lambda words: " ".join(words)[:60])
def test_options_of_scripts_exist(words):
    program = next(word for word in words if word in verbs.FILES or word.endswith(".py"))
    path = verbs.FILES.get(program, ROOT / program)
    given = words[words.index(program) + 1 :]
    if program == "prepare":
        path = ROOT / f"data_prep/{given[0]}.py"
    text = path.read_text()
    for option in given:
        assert not option.startswith("--") or f'"{option}"' in text


def test_every_config_of_paper_size_has_a_command():
    on = [{w for w in words if w.endswith(".yaml")} for words in FITS]
    named = {Path(name).stem for names in on for name in names}
    papers = "celeba_hq256 afhq256 paper1024 paper512 paper256 config_f1024 imagenet_deit_small"
    assert named == {*papers.split(), "cityscapes256"}


@pytest.mark.slow
def test_operations_are_those_of_real_tensors():
    config = ROOT / "configs/stargan/emoji64_cpu.yaml"
    real, fake = (cost(config, fake=fake, batch_size=1) for fake in (False, True))
    assert real["GFLOP/image"] == fake["GFLOP/image"] > 1
    assert fake["peak GB"] == pytest.approx(real["peak GB"], rel=0.2)


@pytest.mark.slow
def test_the_table_states_the_operations_of_a_config():
    name = "spatial_entropy/imagenet_deit_small"
    [row] = re.findall(rf"^\| {name} \|.*", TEXT, re.M)
    found = cost(ROOT / f"configs/{name}.yaml")
    assert f"| {found['GFLOP/image']:,.1f} | {found['peak GB']:.1f} (128) |" in row
