"""The implicit style function: its step, its schedules, what it edits and what it leaves."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from gen.files import WeightsError
from gen.losses.style import neighbourhood
from gen.methods import editor
from gen.methods.style_function import StyleFunction
from gen.methods.stylegan2 import StyleGAN2
from harness import bare
from runs import GENERATOR, TINY, ship


class Judge:
    """Attributes are signs of the mean colours."""

    def logits(self, x):
        return x.mean((2, 3))


def distance(x, y):
    return (x - y).square().mean((1, 2, 3))


def method(**options):
    made = bare(StyleFunction)(**TINY | options)
    made._judges = (Judge(), distance)
    made.global_step = 1
    return made


def batch(n=4):
    return {"z": torch.randn(n, TINY["z_dim"], generator=torch.Generator().manual_seed(0))}


def codes(made, n=4):
    return made.map_latents(batch(n)["z"])


def test_a_step_moves_what_it_trains_alone():
    made = method()
    before = {k: v.clone() for k, v in made.state_dict().items()}
    made.training_step(batch())
    after = made.state_dict()
    moved = {k.split(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert moved == {"style_function", "discriminator", "ema"}
    m = ("adv", "cls", "latent_cyc", "image_cyc", "lpips_cyc", "lpips", "nb", "ds")
    d = ("real", "fake", "cls", "reg")
    assert set(made.terms) == {f"m/{k}" for k in m} | {f"d/{k}" for k in d}
    assert all(v.isfinite() for v in made.terms.values())


def test_terms_of_the_function_by_hand():
    made, rng = method(), torch.Generator().manual_seed(1)
    M, G, D = made.style_function, made.generator.synthesis, made.discriminator
    ws = codes(made).clone()
    x, y = G(ws).detach(), torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])
    d = y.flip(0)
    z = torch.randn(3, 4, 4, generator=rng)
    terms = made.function_terms(ws, x, y, d, tuple(z), made.weights())
    w1, w2 = M(ws, z[0], d), M(ws, z[2], d)
    back = M(w1, z[1], y)
    cls, src = D(G(w1))
    expected = {
        "adv": F.softplus(-src).mean(),
        "cls": F.binary_cross_entropy_with_logits(cls, d),
        "latent_cyc": (back - ws).abs().mean(),
        "image_cyc": (G(back) - x).abs().mean(),
        "lpips_cyc": distance(x, G(back)).mean(),
        "lpips": distance(x, G(w1)).mean(),
        "nb": (ws - w1).square().sum((1, 2)).sqrt().mean(),
        "ds": (G(w1).clamp(-1, 1) - G(w2).clamp(-1, 1)).abs().mean(),
    }
    assert list(terms) == list(expected)
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert made.weights()["ds"] == -2 and made.weights()["nb"] == 0.01
    image = G.forward
    G.forward = lambda w: 100 * image(w)  # what nobody sees is no diversity
    assert made.function_terms(ws, x, y, d, tuple(z), made.weights())["ds"] <= 2


def test_weight_zero_is_not_computed():
    names = ("cls", "latent_cyc", "image_cyc", "lpips_cyc", "lpips", "nb", "ds", "reg")
    made = method(**{f"lambda_{name}": 0.0 for name in names})
    made._judges = (Judge(), lambda *_: pytest.fail("computed"))
    made.training_step(batch())
    assert set(made.terms) == {"m/adv", "d/real", "d/fake"}


@pytest.mark.parametrize("target", ["cls", "src"])
def test_r1_smooths_the_logits_it_is_told_to(target):
    made = method(r1_target=target, lambda_reg=3.0, r1_every=2)
    made.training_step(batch())
    assert "d/reg" not in made.terms
    made, ws = method(r1_target=target, lambda_reg=3.0, r1_every=2), codes(method())
    made.global_step = 2
    x = made.synthesize(ws).clone().requires_grad_()
    cls, src = made.discriminator(x)
    logits = cls.sum(1) if target == "cls" else src
    (grad,) = torch.autograd.grad(logits.sum(), x)
    made.training_step(batch())
    expected = 3.0 * 2 * 0.5 * grad.square().sum((1, 2, 3)).mean()
    assert made.terms["d/reg"].item() == pytest.approx(expected.item(), rel=1e-3)


def test_rows_outside_the_range_stay():
    made, d, z = method(first_row=2, last_row=5), torch.ones(4, 3), torch.ones(4, 4)
    ws = codes(made)
    edited = made.edit(ws, d, z)
    same = (edited == ws).all(2)[0].tolist()
    assert same == [True] * 2 + [False] * 3 + [True] * (ws.shape[1] - 5)


class Sees(torch.nn.Module):
    """A discriminator that sees no attribute."""

    def forward(self, x):
        return torch.full((len(x), 3), -1.0), torch.zeros(len(x))


def test_an_edit_moves_the_rows_of_what_changes():
    made, z = method(rows="a:2-4,b:5-6,a:7-7"), torch.ones(5, 4)
    made.discriminator = Sees()
    d = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
    ws = codes(made, 5)
    moved = (made.edit(ws, d, z) != ws).any(2)  # (5, L)
    expected = [[2, 3, 4, 7], [5, 6], [2, 3, 4, 5, 6, 7], [*range(8)], []]
    assert [row.nonzero().flatten().tolist() for row in moved] == expected
    assert torch.equal(made.edit(ws, d, z)[3], method().edit(ws, d, z)[3])
    assert (made.moved(made.style_function, ws.clone(), z, d) != ws).any(2).all()  # as in training


@pytest.mark.parametrize("rows", ["a", "a:1", "x:1-2", "a:3-2", "a:0-8", "a:-1-2", "b:0-3;a:1-2"])
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(ValueError, match="rows: expected NAME:FIRST-LAST, a name of a, b, c, rows"):
        method(rows=rows)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(first_row=5, last_row=3), "expected first_row < last_row <= 8 or 0, got 5 and 3"),
        (dict(first_row=50), "expected first_row < last_row <= 8 or 0, got 50 and 0"),
        (dict(last_row=99), "expected first_row < last_row <= 8 or 0, got 0 and 99"),
        (dict(first_row=-2), "expected first_row in 0 .. inf, got -2"),
        (dict(r1_every=0), "expected r1_every in 1 .. inf, got 0"),
        (dict(ema_decay=1.5), "expected ema_decay in 0 .. 1, got 1.5"),
    ],
)
def test_options_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        method(**options)


def test_one_code_has_no_other_whose_labels_it_could_take():
    with pytest.raises(ValueError, match="batch_size: expected 2 codes.*got 1; raise --data.batch"):
        method().training_step(batch(1))


def test_photos_keep_their_rows_in_w(monkeypatch):
    made, spaces, d, z = method(space="W"), [], torch.ones(4, 3), torch.ones(4, 4)
    ws = codes(made) + torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(1))
    step = made.edit(ws, d, z) - ws
    torch.testing.assert_close(step, step[:, :1].expand_as(step), atol=1e-5, rtol=0)
    plain = ws.mean(1, keepdim=True)
    expected = made.ema.module["style_function"](plain, z, d) - plain
    torch.testing.assert_close(step[:, :1], expected, atol=1e-5, rtol=0)
    found = SimpleNamespace(ws=ws)
    monkeypatch.setattr(editor, "project", lambda *given: spaces.append(given[3:]) or found)
    for one in (made, method()):
        assert one.encode(torch.zeros(4, 3, 32, 32)) is ws
    assert spaces == [("W",), ("W+",)]


@pytest.mark.parametrize(
    "ws, d, z, message",
    [
        ((4, 5, 8), (4, 3), (4, 4), r"got \(4, 5, 8\), \(4, 3\), \(4, 4\)"),
        ((4, 8, 8), (4, 2), (4, 4), r"codes \(N, 8, 8\), attributes \(N, 3\) and noise \(N, 4\)"),
        ((4, 8, 8), (4, 3), (4, 5), "edit: expected codes"),
        ((4, 8, 8), (1, 3), (4, 4), "edit: expected codes"),
    ],
)
@pytest.mark.parametrize("space", ["W", "W+"])
def test_requests_of_another_shape_are_refused(space, ws, d, z, message):
    with pytest.raises(ValueError, match=message):
        method(space=space).edit(torch.zeros(ws), torch.ones(d), torch.zeros(z))


def test_attributes_hold_or_not():
    with pytest.raises(ValueError, match=r"d: expected attributes in {0, 1}, got \[7.0\]"):
        method().edit(torch.zeros(1, 8, 8), torch.full((1, 3), 7.0), torch.zeros(1, 4))


def test_it_interpolates_between_attributes():
    made, z = method(), torch.ones(4, 4)
    ws, (a, b) = codes(made), torch.eye(3)[:2, None].expand(-1, 4, -1)
    frames = made.interpolate(ws, a, b, z, frames=5)
    assert frames.shape == (4, 5, 3, 32, 32)
    ends = [made.edit(ws, d, z) for d in (a, b)]
    for at, code in ((0, ends[0]), (2, (ends[0] + ends[1]) / 2), (4, ends[1])):
        torch.testing.assert_close(frames[:, at], made.synthesize(code), atol=1e-4, rtol=0)


def test_in_w_all_rows_move_alike():
    made = method(space="W")
    edited = made.edit(codes(made), torch.ones(4, 3), torch.ones(4, 4))
    assert edited.shape == codes(made).shape and (edited == edited[:, :1]).all()
    plus = method()
    edited = plus.edit(codes(plus), torch.ones(4, 3), torch.ones(4, 4))
    assert not (edited == edited[:, :1]).all()


def test_gradients_are_clipped():
    free, held = method(clip=0.0, lr_warmup_iters=0), method(clip=1e-6, lr_warmup_iters=0)
    norms = []
    for made in (free, held):
        optimizer = made.optimizers()[0]
        step = optimizer.step

        def seen(*args, optimizer=optimizer, step=step):
            grads = [p.grad.norm() for g in optimizer.param_groups for p in g["params"]]
            norms.append(torch.stack(grads).norm().item())
            return step(*args)

        optimizer.step = seen
        made.training_step(batch())
    assert norms[0] > 1e-3 and norms[1] == pytest.approx(1e-6, rel=0.1)


def test_the_rate_is_a_function_of_the_iteration():
    made = StyleFunction(**TINY | dict(lr=1e-5, lr_min=5e-6, lr_warmup_iters=10, lr_iters=100))
    rates = [1e-5 * made.lr_factor(i) for i in (0, 5, 10, 50, 100, 1000)]
    half = 5e-6 + 5e-6 * 0.5 * (1 + math.cos(math.pi * 0.1))
    assert rates == pytest.approx([5e-7, 5.25e-6, half, 7.5e-6, 5e-6, 5e-6])


def test_a_step_draws_from_seed_and_iteration_alone():
    values = []
    for iteration, noise in ((1, 1), (1, 2), (2, 1)):
        made = method()
        torch.manual_seed(noise)
        made.global_step = iteration
        made.training_step(batch())
        values.append(made.terms["m/nb"].item())
    assert values[0] == values[1] != values[2]


def test_the_generator_is_taken_over_and_must_fit(tmp_path):
    source = StyleGAN2(**GENERATOR)
    path = str(ship(source, tmp_path / "g.safetensors"))
    made = StyleFunction(**TINY | dict(generator=path))
    made._trainer = SimpleNamespace(state=None)
    made.load_init()
    for key, value in source.generator.state_dict().items():
        assert torch.equal(made.generator.state_dict()[key], value)
    z = batch()["z"]
    torch.testing.assert_close(
        made.synthesize(made.map_latents(z, psi=1.0)), source.generate(z), atol=1e-5, rtol=0
    )
    other = StyleFunction(**TINY | dict(generator=path, w_dim=16))
    with pytest.raises(WeightsError, match="expected a generator with w_dim 16, .* got w_dim 8"):
        other.load_init()


def test_neighbourhood_has_a_finite_gradient_where_nothing_moves():
    w = torch.ones(2, 3, 4, requires_grad=True)
    loss = neighbourhood(w, torch.ones(2, 3, 4))
    loss.backward()
    assert loss == 0 and w.grad.abs().sum() == 0
    assert neighbourhood(torch.zeros(1, 2, 2), torch.ones(1, 2, 2)) == 2
