"""Edits in steps: their sizes, their parts, and what they learn from."""

import pytest
import torch
from torch import nn

from gen.methods.stepwise_editor import StepwiseEditor
from harness import bare
from runs import EDITED

L, D, K = 8, 8, 6


class Judge(nn.Module):
    """Attributes are mean levels of colours, seen twice."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, K))

    def split(self, outputs):
        return outputs, None

    def logits(self, x):
        with torch.no_grad():
            return self.net(x)


@pytest.fixture
def method():
    torch.manual_seed(0)
    made = bare(StepwiseEditor)(**EDITED | dict(hidden=16, steps=3, lambda_lpips=0.0))
    made._judges = (Judge().requires_grad_(False), None)
    return made


def codes(n=4):
    return torch.randn(n, L, D, generator=torch.Generator().manual_seed(1))


def test_an_edit_is_a_walk_and_a_part_of_it_is_on_the_way(method):
    ws, d = codes(), torch.eye(K)[:4]
    step, path = method.ema.module["stepper"], [ws]
    for _ in range(4):
        path.append(path[-1] + step(path[-1], d))
    torch.testing.assert_close(method.edit(ws, d), path[3])
    assert torch.equal(method.edit_at(ws, d, None, 0.0), ws)
    torch.testing.assert_close(method.edit_at(ws, d, None, 4 / 3), path[4])
    half = path[1] + 0.5 * (path[2] - path[1])
    torch.testing.assert_close(method.edit_at(ws, d, None, 0.5), half)
    with pytest.raises(ValueError, match="edit: expected codes"):
        method.edit_at(ws[:, :3], d, None, 1.0)


def test_the_size_of_a_step_is_that_of_the_network_in_any_direction(method):
    ws, d, step = codes(), torch.eye(K)[:4], method.stepper
    with torch.no_grad():
        step.size.weight.zero_()
        step.size.bias.fill_(0.3)
        size = step(ws, d).square().mean((1, 2)).sqrt()
        step.direction.weight.mul_(100)
        torch.testing.assert_close(step(ws, d).square().mean((1, 2)).sqrt(), size)
    torch.testing.assert_close(size, torch.nn.functional.softplus(torch.tensor(0.3)).expand(4))


def test_the_judge_guides_the_steps_and_stays_as_it_is(method):
    before = [p.clone() for p in method._judges[0].parameters()]
    (optimizer,), seen = method.configure_optimizers(), []
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for method.global_step in range(40):
        loss = method.training_step({"ws": codes(16)})
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(method.terms["train/cls"].item())
    assert sum(seen[-5:]) < 0.9 * sum(seen[:5])
    after = method._judges[0].parameters()
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert set(method.terms) == {"train/cls", "train/nb", "train/accuracy"}
