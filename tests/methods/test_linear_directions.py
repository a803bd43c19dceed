"""Linear directions in codes: what is learnt, what an edit moves, and how far."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gen.methods import linear_directions as module
from gen.methods.linear_directions import LinearDirections, mixed
from harness import bare
from runs import EDITED

K, L, D = 3, 8, 8
TINY = EDITED | dict(attributes="a,b,c")


class Judge:
    """Attributes are signs of linear functions of the codes, which are shown as images."""

    def __init__(self, normals, offsets):
        self.normals, self.offsets = normals, offsets

    def logits(self, x):
        return x.flatten(1) @ self.normals.T + self.offsets


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def trained(space, judge, steps=150, **options):
    """A method whose generator shows codes as they are; trained on codes that are given."""
    made = bare(LinearDirections)(**TINY | dict(space=space, lr=0.05, lr_iters=steps) | options)
    made.generator.synthesis = torch.nn.Identity()
    made._judges = (judge,)
    made.measure(codes(1000))
    (optimizer,) = made.configure_optimizers()
    for made.global_step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * made.lr_factor(made.global_step)
        optimizer.zero_grad()
        made.training_step({"ws": codes(64, seed=made.global_step)}).backward()
        optimizer.step()
    return made


def codes(n, seed=99):
    """Equal rows, as a mapping network gives, of correlated numbers of unequal size."""
    w = noise(n, D, seed=seed) @ noise(D, D, seed=1234) * torch.linspace(0.1, 3, D) + 2
    return w[:, None].expand(-1, L, -1)


def random_method(space="W", k=K, **options):
    """Classifiers as training might leave them."""
    names = ",".join("abcdefgh"[:k])
    made = LinearDirections(**TINY | dict(space=space, attributes=names) | options)
    with torch.no_grad():
        made.classifiers.weight.copy_(2 * noise(*made.classifiers.weight.shape, seed=1))
        made.classifiers.bias.copy_(noise(k, seed=2))
        made.code_mean.copy_(noise(len(made.code_mean), seed=3))
        made.code_std.copy_(0.1 + noise(len(made.code_std), seed=4).abs())
        made.score_std.copy_(1 + torch.arange(k))
    return made


def wanted(n, k=K, seed=5):
    return torch.randint(2, (n, k), generator=torch.Generator().manual_seed(seed)).float()


# ---- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
@pytest.mark.parametrize("space", ["W", "W+"])
def test_it_finds_hyperplanes_and_edits_across_them(space, loss):
    normals = torch.zeros(K, L, D)
    for k, row in enumerate((1, 4, 4)):  # one row decides
        normals[k, row] = noise(D, seed=20 + k)
    judge = Judge(normals.flatten(1), -normals.sum((1, 2)) * 2 + 0.3)
    made, ws, d = trained(space, judge, loss=loss, strength=2.0), codes(256), wanted(256)
    assert made.terms["train/accuracy"] > 0.93
    before = ((judge.logits(ws) > 0) == (d > 0)).float().mean()
    edited = made.edit(ws, d, torch.zeros(256, 0))
    after = ((judge.logits(edited) > 0) == (d > 0)).float().mean()
    assert before < 0.6 and after > 0.95
    torch.testing.assert_close(made.score_std, made.scores(ws).std(0), rtol=0.2, atol=0)
    if space == "W+":  # mixing tells which rows matter
        energy = made.classifiers.weight.view(K, L, D).square().sum(2)  # (K, L)
        assert energy.argmax(1).tolist() == [1, 4, 4]
        assert (energy.amax(1) / energy.sum(1) > 0.5).all()


@pytest.mark.parametrize("loss", ["logistic", "hinge"])
def test_the_loss_is_that_of_k_classifiers_each_with_its_penalty(loss):
    made = bare(LinearDirections)(**TINY | dict(space="W", loss=loss, weight_decay=0.3))
    made.load_state_dict(random_method().state_dict())
    made.generator.synthesis = torch.nn.Identity()
    made._judges = (Judge(noise(K, L * D), torch.zeros(K)),)
    ws = noise(5, L, D)
    total = made.training_step({"ws": ws})
    u = (ws.mean(1) - made.code_mean) / made.code_std
    y, expected = made._judges[0].logits(ws) > 0, 0
    for k in range(K):
        a = made.classifiers.weight[k]
        s = u @ a + made.classifiers.bias[k]
        t = torch.where(y[:, k], 1.0, -1.0)
        fit = F.softplus(-t * s) if loss == "logistic" else F.relu(1 - t * s)
        expected = expected + fit.mean() + 0.3 / 2 * a.square().sum()
    torch.testing.assert_close(total, expected)
    assert set(made.terms) == {f"train/{k}" for k in (loss, "penalty", "accuracy")}
    made.hparams.weight_decay = 0.0
    made.training_step({"ws": ws})
    assert "train/penalty" not in made.terms


def test_codes_are_standardised_whatever_their_numbers():
    made = LinearDirections(**TINY | dict(space="W+"))
    ws = codes(500) * torch.linspace(1e-3, 1e3, L)[:, None]
    ws = torch.cat([ws[..., :-1], torch.full_like(ws[..., :1], 7.0)], 2)  # one never changes
    made.measure(ws)
    u = ((made.seen(ws) - made.code_mean) / made.code_std).view(500, L, D)[:, 3:]
    assert u.mean(0).abs().max() < 1e-3 and u.isfinite().all()
    torch.testing.assert_close(u[..., :-1].std(0), torch.ones(L - 3, D - 1))
    with pytest.raises(ValueError, match="expected codes that differ, got 3 equal ones"):
        made.measure(torch.ones(3, L, D))


def test_a_step_draws_from_seed_and_iteration_alone():
    values = []
    for iteration, seed in ((1, 1), (1, 2), (2, 1)):
        made = bare(LinearDirections)(**TINY)
        made.load_state_dict(random_method("W+").state_dict())
        made._judges = (Judge(noise(K, 3 * 32 * 32), torch.zeros(K)),)
        torch.manual_seed(seed)
        made.global_step = iteration
        values.append(made.training_step({"z": noise(6, 8)}).item())
    assert values[0] == values[1] != values[2]


def test_the_rate_is_a_function_of_the_iteration():
    made = LinearDirections(**TINY | dict(lr_iters=10))
    assert [made.lr_factor(i) for i in (0, 5, 10, 99)] == pytest.approx([1, 0.5, 0, 0])
    assert LinearDirections(**TINY).lr_factor(99) == 1


def test_mixed_codes_have_a_range_of_rows_of_one_other_code():
    ws, counts = torch.arange(400.0)[:, None, None].expand(-1, 10, 2), []
    new = mixed(ws, 0.75, torch.Generator().manual_seed(0))
    for i, code in enumerate(new):
        other = code[:, 0] != i
        assert torch.equal(code[:, 0], code[:, 1]) and len(code[other].unique()) <= 1
        where = other.nonzero().flatten()
        assert where.tolist() == list(
            range(*where[[0, -1]] + torch.tensor([0, 1])) if len(where) else []
        )
        counts.append(len(where))
    assert max(counts) == 7 and 0.2 < counts.count(0) / 400 < 0.3
    assert torch.equal(mixed(ws, 0.0, torch.Generator()), ws)


@pytest.mark.parametrize("name, value", [("strength", -1.0), ("mixing", 3.0), ("lr_iters", -1)])
def test_options_out_of_bounds_are_refused(name, value):
    with pytest.raises(ValueError, match=f"expected {name} in 0 .. .*, got {value}"):
        LinearDirections(**TINY | {name: value})


# ---- edits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["W", "W+"])
def test_an_edit_is_the_least_step_to_the_wanted_side(space, monkeypatch):
    monkeypatch.setattr(module, "RIDGE", 0.0)
    made, ws, d = random_method(space, strength=1.5), noise(50, L, D, seed=7), wanted(50)
    kept = ws.clone()
    edited = made.edit(ws, d, torch.zeros(50, 0))
    assert torch.equal(ws, kept)
    before, after, sign = made.scores(ws), made.scores(edited), 2 * d - 1
    margin = 1.5 * made.score_std
    far = sign * before >= margin
    assert far.any() and not far.all()
    torch.testing.assert_close(after[far], before[far], atol=1e-3, rtol=1e-3)
    short = (sign * after)[~far]
    torch.testing.assert_close(short, margin.expand(50, -1)[~far], atol=1e-3, rtol=1e-3)
    # Among all steps with these scores the least: it lies in the span of the normals.
    step = (made.seen(edited) - made.seen(ws)) / made.code_std
    A = made.classifiers.weight
    torch.testing.assert_close(
        step, (after - before) @ torch.linalg.pinv(A).T, atol=1e-3, rtol=1e-3
    )


def test_what_is_far_enough_does_not_move_and_strength_says_what_is():
    made, ws, d = random_method(strength=1.0), noise(50, L, D, seed=7), wanted(50)
    once = made.edit(ws, d, torch.zeros(50, 0))
    torch.testing.assert_close(made.edit(once, d), once, atol=0.05, rtol=0)  # RIDGE was left
    moved = []
    for made.hparams.strength in (0.0, 1.0, 2.0):
        moved.append((made.edit(ws, d) - ws).norm())
    assert moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize("space", ["W", "W+"])
def test_rows_move_alike_in_w_and_each_for_itself_in_w_plus(space):
    made, ws = random_method(space), noise(4, L, D)
    step = made.edit(ws, wanted(4)) - ws
    alike = torch.allclose(step, step[:, :1].expand_as(step), atol=1e-5)
    assert step.shape == (4, L, D) and alike == (space == "W")
    step = made.edit(ws[:1], wanted(4)[:1])
    torch.testing.assert_close(step, made.edit(ws, wanted(4))[:1])  # alone as among others


@pytest.mark.parametrize("case", ["opposite", "equal", "dependent", "unknown", "none", "huge"])
def test_attributes_that_exclude_each_other_are_solved_jointly_and_finitely(case):
    made, ws = random_method(), noise(40, L, D)
    A = made.classifiers.weight.detach()
    if case in ("opposite", "equal"):  # a contradiction for half of the wishes
        A[1] = -A[0] if case == "opposite" else A[0]
    elif case == "dependent":
        A[2] = -A[0] - A[1]
    elif case == "unknown":  # one that nothing was learnt of
        A[1] = 0
        made.classifiers.bias.detach()[1] = 9
    elif case == "none":
        made = LinearDirections(**TINY | dict(space="W"))
    else:
        A *= 1e15
        made.score_std *= 1e15
    d = wanted(40)
    edited = made.edit(ws, d, torch.zeros(40, 0))
    assert edited.isfinite().all()
    step = ((edited - ws)[:, 0] / made.code_std).norm(dim=1)
    sides = ((made.scores(edited) > 0) == (d > 0)).float().mean(0)
    if case in ("opposite", "equal"):
        possible = (d[:, 0] != d[:, 1]) if case == "opposite" else (d[:, 0] == d[:, 1])
        assert possible.any() and not possible.all() and step.max() < 20
        right = (made.scores(edited) > 0) == (d > 0)
        assert right[possible].all() and right[:, 2].all()
    elif case == "unknown":
        assert sides[0] == sides[2] == 1 and step.max() < 10
    elif case == "none":
        assert torch.equal(edited, ws)
    elif case == "huge":
        assert (sides == 1).all()


def test_requests_of_another_shape_are_refused():
    made = random_method()
    for ws, d in ((noise(2, 5, D), wanted(2)), (noise(2, L, D), wanted(2, 4))):
        with pytest.raises(ValueError, match=r"edit: expected codes \(N, 8, 8\), attributes .*3\)"):
            made.edit(ws, d)
    with pytest.raises(ValueError, match=r"d: expected attributes in {0, 1}, got \[7.0\]"):
        made.edit(noise(2, L, D), torch.full((2, 3), 7.0))


def test_more_attributes_than_numbers_of_a_code_are_solved_as_well_as_can_be():
    made = LinearDirections(**TINY | dict(space="W", attributes=",".join(map(str, range(20)))))
    torch.nn.init.normal_(made.classifiers.weight)
    made.score_std.fill_(1.0)
    assert made.edit(noise(9, L, D), wanted(9, 20)).isfinite().all()


def test_the_judge_must_be_one_of_its_attributes(edited):
    made = LinearDirections(**TINY | dict(judge=edited["judge"], init_from="x"))
    made.load_init, made._trainer = (
        lambda: None,
        SimpleNamespace(
            accumulate_grad_batches=1,
            ckpt_path="",
            world_size=1,
            precision="32-true",
            strategy=SimpleNamespace(root_device=torch.device("cpu")),
        ),  # fmt: skip
    )
    with pytest.raises(
        ValueError, match=r"judge: expected .*\['a', 'b', 'c'\] at 32 px, got \['be"
    ):
        made.on_fit_start()
