"""Two processes on the CPU: `gen fit --trainer.devices 2`, nothing else."""

import pytest
import torch

from ddp import run
from runs import differences, fit, losses, read


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run of each method; the second is stopped by a signal to its first process."""
    out = tmp_path_factory.mktemp("ddp")
    stop = ("--trainer.callbacks.term=3", "--data.num_workers=1")
    return {
        "StarGAN": (out / "a", run("StarGAN", out / "a", steps=3)),
        "SmoothI2I": (out / "b", run("SmoothI2I", out / "b", *stop, steps=1000)),
    }


METHODS = pytest.mark.parametrize("method, code", [("StarGAN", 0), ("SmoothI2I", 143)])


@METHODS
def test_weights_and_averages_are_equal_on_both_ranks(runs, method, code):
    out, done = runs[method]
    assert done.returncode == code, done.stderr[-3000:]
    a, b = (read(out / f"rank{rank}.pt") for rank in (0, 1))
    assert a["strategy"] == "DDPStrategy"
    assert any(key.startswith("ema.") for key in a["state"])
    assert not differences(a["state"], b["state"])
    last = read(out / "last.ckpt")
    assert last["global_step"] == 3 and not differences(last["state_dict"], a["state"])


@METHODS
def test_ranks_see_different_data_and_draw_different_latents(runs, method, code):
    a, b = (read(runs[method][0] / f"rank{rank}.pt")["seen"] for rank in (0, 1))
    assert len(a) == len(b) == 3
    seen = [batch["x"] for batch in a + b]
    assert not any(torch.equal(p, q) for i, p in enumerate(seen) for q in seen[:i])
    draws = torch.cat([batch["draws"] for batch in a + b])
    assert len(draws.unique()) == 6


def test_two_processes_see_what_one_process_with_the_double_batch_sees(runs, tmp_path):
    a, b = (read(runs["StarGAN"][0] / f"rank{rank}.pt")["seen"] for rank in (0, 1))
    witness = ("--trainer.callbacks=ddp.Witness", "--data.batch_size=4")
    fit("StarGAN", tmp_path, *witness, steps=3)
    whole = read(tmp_path / "rank0.pt")
    assert whole["strategy"] == "SingleDeviceStrategy"
    for one, p, q in zip(whole["seen"], a, b, strict=True):
        for key in ("x", "x_ref", "x_ref2", "y", "y_ref"):
            assert torch.equal(one[key], torch.cat([p[key], q[key]]))


def test_a_run_of_two_processes_resumes_on_one(runs, tmp_path):
    last = runs["StarGAN"][0] / "last.ckpt"
    assert read(fit("StarGAN", tmp_path, f"--ckpt_path={last}", steps=4))["global_step"] == 4
    assert [row["step"] for row in losses(tmp_path)] == ["3"]


def test_plain_ddp_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match="expected ddp_find_unused_parameters_true .*, got ddp"):
        fit("StarGAN", tmp_path, "--trainer.strategy=ddp")
