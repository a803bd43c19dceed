"""What the runs of both classifiers are tested for."""

import pytest
import torch

from gen.methods.base import Method, NonFiniteLoss
from runs import differences, fit, losses, read

NAME, FIRST, MORE = "DomainClassifier", 3, 4


ALL = ("--trainer.limit_val_batches=1.0", f"--trainer.val_check_interval={FIRST}")


def check_resumed(name, whole, out, workers):
    """The rest of `cut_run`, resumed in `out`, equals it bit for bit."""
    more = (f"--ckpt_path={whole / 'cut.ckpt'}", f"--data.num_workers={workers}", *ALL)
    a, b = read(whole / "last.ckpt"), read(fit(name, out, *more, steps=FIRST + MORE))
    assert a["global_step"] == b["global_step"] == FIRST + MORE
    assert {"exp_avg", "exp_avg_sq"} <= set(a["optimizer_states"][0]["state"][0])
    for part in ("state_dict", "optimizer_states", "hyper_parameters"):
        assert not differences(a[part], b[part], part)
    resumed, uncut = ([r for r in losses(o) if r["train/accuracy"]] for o in (out, whole))
    assert resumed == [{k: r[k] for k in resumed[0]} for r in uncut[FIRST:]]


def check_nan(name, term, out, monkeypatch):
    """A NaN in `term` stops the run in its iteration, after a checkpoint; the batch is kept."""

    def poisoned(self, terms, batch):
        if self.global_step == 2:
            terms[term] = terms[term] * torch.nan
        watch(self, terms, batch)

    watch = Method.log_terms
    monkeypatch.setattr(Method, "log_terms", poisoned)
    with pytest.raises(NonFiniteLoss, match=rf"^iteration 3: .* in {term}. Its batch is in .*;"):
        fit(name, out, "--save_every=1", steps=1000)
    assert read(out / "last.ckpt")["global_step"] == 2
    assert {"x", "x_ref", "x_ref2", "y", "y_ref"} <= set(read(out / "nonfinite_3.pt"))


def batch(n=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand(3, n, 3, 32, 32, generator=rng) * 2 - 1
    y = torch.randint(3, (2, n), generator=rng)
    return dict(x=images[0], x_ref=images[1], x_ref2=images[2], y=y[0], y_ref=y[1])
