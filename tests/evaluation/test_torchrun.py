"""`torchrun -m gen evaluate`: two processes give the values of one, for several kinds."""

import json
import os
import subprocess
import sys

import pytest

from conftest import ROOT
from gen.cli import main
from gen.methods import DomainClassifier, SpatialEntropy, StarGAN, StyleGAN2
from runs import CLASSIFIER, GENERATOR, VIT, WIDTHS, ship

HEADS = ("bear", "cat", "dog")
KINDS = {  # method, its options, options of the evaluation, of several blocks each
    "translator": (
        StarGAN, WIDTHS | dict(num_domains=3),
        "--metrics accuracy --max-sources 4 --batch-size 1 --classifier judge",
    ),
    "classifier": (
        SpatialEntropy, VIT | dict(num_classes=3),
        "--metrics accuracy entropy --max-sources 20 --batch-size 6",
    ),
    "generator": (
        StyleGAN2, GENERATOR, "--metrics paths --max-sources 3 --batch-size 20",
    ),
}  # fmt: skip


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def units(path):
    """{(group, guide, value): its units} in the file of single values; none is there twice."""
    found = {}
    for line in rows(path)[1:]:
        for name, values in line["values"].items():
            seen = found.setdefault((line["group"], line["guide"], name), set())
            assert not seen & values.keys()
            seen |= values.keys()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_values_of_one(kind, tmp_path, monkeypatch, lpips_cache):
    cls, options, words = KINDS[kind]
    names = HEADS if kind != "generator" else ()
    checkpoint = ship(cls(**options), tmp_path / "x.safetensors", names)
    if "judge" in words:
        judge = DomainClassifier(**CLASSIFIER | dict(num_domains=3))
        words = words.replace("judge", str(ship(judge, tmp_path / "judge.safetensors", HEADS)))
    words = [f"--checkpoint={checkpoint}", "--data=heads", "--device=cpu", *words.split()]
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    monkeypatch.chdir(ROOT)
    main(["evaluate", *words, f"--out={one}"])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node=2", "-m", "gen", "evaluate", *words, f"--out={two}"],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('{"metric"') == len(rows(two)) == len(rows(one)) > 1  # said once
    for a, b in zip(rows(one), rows(two), strict=True):
        numbers = [a.pop("value"), *(a.pop("ci95") or ())], [b.pop("value"), *(b.pop("ci95") or ())]
        assert numbers[1] == pytest.approx(numbers[0], abs=1e-5)
        a.pop("seconds"), b.pop("seconds")
        assert a == b
    both = [units(next(tmp_path.glob(f"{name}.values*.jsonl"))) for name in ("one", "two")]
    assert both[0] == both[1] and both[0]  # the first process has written all


def test_one_gpu_for_all_processes_is_refused(monkeypatch):
    from gen.commands import join_processes

    assert join_processes("cuda:1") == "cuda:1"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match="expected cuda or cpu for several processes, got cuda:1"):
        join_processes("cuda:1")
