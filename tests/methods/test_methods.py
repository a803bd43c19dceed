"""Methods by themselves: the inference interface, EMA, randomness, and steps at the corners."""

import copy

import pytest
import torch

import gen.methods
from gen.methods.base import weighted_sum
from gen.methods.smooth_i2i import SmoothI2I
from gen.methods.stargan import StarGAN
from steps import SMOOTH, TINY, make, make_batch

N, S, D, L = 4, 3, 8, 4  # images, domains, widths of styles and of latents


@pytest.fixture(scope="module")
def method():
    """A method whose averages differ from its trained networks."""
    method = SmoothI2I(**TINY).eval()
    with torch.no_grad():
        for p in method.ema.module.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return method


@pytest.fixture
def x():
    return torch.rand(N, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1


@pytest.fixture
def z():
    return torch.randn(N, L, generator=torch.Generator().manual_seed(3))


Y = torch.tensor([0, 1, 2, 1])


# ---- inference ----------------------------------------------------------------------------------


def test_the_three_guides_agree(method, x, z):
    by_latent = method.translate(x, Y, z=z)
    assert by_latent.shape == (N, 3, 32, 32) and by_latent.dtype == torch.float32
    assert torch.equal(by_latent, method.translate(x, Y, style=method.map_style(z, Y)))
    by_ref = method.translate(x, Y, x_ref=x.flip(0))
    assert torch.equal(by_ref, method.translate(x, Y, style=method.encode_style(x.flip(0), Y)))
    assert torch.equal(by_latent, method.decode(method.encode(x), method.map_style(z, Y)))
    assert not torch.allclose(by_latent, by_ref)


@pytest.mark.parametrize("guides", [(), ("z", "x_ref"), ("z", "style"), ("z", "x_ref", "style")])
def test_translate_wants_exactly_one_guide(method, x, z, guides):
    given = dict(z=z, x_ref=x, style=torch.zeros(N, D))
    with pytest.raises(ValueError, match="expected exactly one of z, x_ref and style"):
        method.translate(x, Y, **{k: given[k] for k in guides})


def test_one_domain_for_all_is_an_int(method, x, z):
    two = torch.full((N,), 2)
    for f in (
        lambda y: method.map_style(z, y),
        lambda y: method.encode_style(x, y),
        lambda y: method.translate(x, y, z=z),
    ):
        torch.testing.assert_close(f(2), f(two), atol=1e-5, rtol=0)
        assert not torch.allclose(f(2), f(1), atol=1e-4)


def test_one_content_serves_many_styles(method, x, z):
    styles = method.map_style(z, Y)
    many = method.decode(method.encode(x[:1]), styles)
    each = [method.translate(x[:1], Y[:1], style=s[None]) for s in styles]
    torch.testing.assert_close(many, torch.cat(each), atol=1e-5, rtol=0)


def test_output_does_not_depend_on_the_batch(method, x, z):
    alone = [method.translate(x[i : i + 1], Y[i : i + 1], z=z[i : i + 1]) for i in range(N)]
    torch.testing.assert_close(method.translate(x, Y, z=z), torch.cat(alone), atol=1e-5, rtol=0)


def test_inference_uses_the_averages_and_no_gradients(method, x, z):
    made = method.translate(x, Y, z=z)
    assert made.is_inference() and not made.requires_grad
    trained = copy.deepcopy(method)
    for name in ("generator", "mapping_network", "style_encoder"):
        for p in getattr(trained, name).parameters():
            p.data.zero_()
    assert torch.equal(trained.translate(x, Y, z=z), made)
    assert torch.equal(trained.encode_style(x, Y), method.encode_style(x, Y))
    assert not torch.allclose(method.generator(x, method.mapping_network(z, Y)), made)


def test_inference_is_in_full_precision_under_autocast(method, x, z):
    made = method.translate(x, Y, z=z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(method.translate(x, Y, z=z), made)


def test_inference_does_not_depend_on_training_mode_and_changes_nothing(method, x, z):
    before, kept = copy.deepcopy(method.state_dict()), [t.clone() for t in (x, z, Y)]
    first = method.translate(x, Y, z=z)
    method.train()
    assert torch.equal(method.translate(x, Y, z=z), first)
    method.eval()
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip((x, z, Y), kept, strict=True))


def test_the_mean_style_is_the_centre_of_its_domain(method):
    z = torch.randn(4000, L)
    centre, styles = method.mean_style(1), method.map_style(z, 1)
    assert centre.shape == (1, D) and torch.equal(centre, method.mean_style(1))
    torch.testing.assert_close(centre[0], styles.mean(0), atol=4 * styles.std() / 63, rtol=0)


# ---- training -----------------------------------------------------------------------------------


def test_the_average_follows_the_networks_by_its_decay():
    class Alone(StarGAN):  # without a trainer
        global_step = 1
        log_dict = print

    method = Alone(**TINY, ema_decay=0.75)
    before, average = copy.deepcopy(method.ema.module), method.ema.module
    with torch.no_grad():
        for p in method.generator.parameters():
            p.add_(1.0)
    method.finish({"a": torch.tensor(1.0)}, None)
    for network, moved in (("generator", 0.25), ("mapping_network", 0.0)):
        pairs = zip(before[network].parameters(), average[network].parameters(), strict=True)
        for old, new in pairs:
            torch.testing.assert_close(new, old + moved)


def test_draws_are_a_function_of_seed_iteration_and_rank():
    class At(StarGAN):
        global_step, global_rank = 0, 0

    method, seen = At(**TINY), {}
    for seed in (0, 1, 777):
        for At.global_step in (0, 1, 2, 1000, 60_000):
            for At.global_rank in (0, 1, 7):
                value = torch.randn(2, generator=method.step_rng(seed))
                assert torch.equal(value, torch.randn(2, generator=method.step_rng(seed)))
                seen[tuple(value.tolist())] = True
    assert len(seen) == 3 * 5 * 3


def test_the_seed_decides_the_first_weights_and_nothing_else_does():
    torch.manual_seed(1)
    a = StarGAN(**TINY)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)  # building draws nothing from the global generator
    b, c = StarGAN(**TINY), StarGAN(**TINY, seed=1)
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert any(not torch.equal(v, c.state_dict()[k]) for k, v in a.state_dict().items())
    smooth = SmoothI2I(**TINY)  # a fair comparison starts from the same weights
    assert all(torch.equal(v, smooth.state_dict()[k]) for k, v in a.state_dict().items())


def test_the_baseline_is_the_smooth_method_with_all_its_weights_at_zero():
    a = make(StarGAN)
    b = make(SmoothI2I, lambda_tri=0.0, lambda_sr=0.0, lambda_cont=0.0)
    for method in (a, b):
        for seed in range(2):
            method.training_step(make_batch(seed=seed))
    assert a.terms == b.terms
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def corner(name: str) -> dict[str, torch.Tensor]:
    """Batches that divide by zero where a loss is careless."""
    batch = make_batch(4)
    images = ("x", "x_ref", "x_ref2")
    if name == "black":
        batch |= {k: torch.full_like(batch[k], -1) for k in images}
    elif name == "all alike":
        batch |= {k: batch["x"][:1].repeat(4, 1, 1, 1) for k in images}
    elif name == "one domain":
        batch |= {k: torch.ones_like(batch[k]) for k in ("y", "y_ref")}
    elif name == "reference is source":
        batch |= dict(x_ref=batch["x"], x_ref2=batch["x"], y_ref=batch["y"])
    elif name == "one image":
        batch = {k: v[:1] for k, v in batch.items()}
    return batch


@pytest.mark.parametrize(
    "name", ["black", "all alike", "one domain", "reference is source", "one image"]
)
@pytest.mark.parametrize("shrink", ["origin", "centroid", "pairwise"])
def test_terms_and_gradients_are_finite_at_the_corners(name, shrink):
    options = dict(lambda_shr=1.0, shrink=shrink, lambda_mix=1.0, lambda_mix_image=1.0)
    method = make(SmoothI2I, **SMOOTH, **options, lambda_mix_d=1.0, paper_intent=True)
    method._lpips = ()
    method.training_step(corner(name))
    assert all(term.isfinite() for term in method.terms.values()), method.terms
    for gradients in method.recorded:
        assert all(g.isfinite().all() for g in gradients.values() if g is not None)
    assert all(p.isfinite().all() for p in method.parameters())


def test_a_step_modifies_no_batch():
    method, batch = make(SmoothI2I, **SMOOTH, lambda_mix=1.0, lambda_mix_image=1.0), make_batch()
    method._lpips, kept = (), {k: v.clone() for k, v in batch.items()}
    method.training_step(batch)
    assert all(torch.equal(v, kept[k]) for k, v in batch.items())


def test_weigh_is_the_weighted_sum():
    terms = dict(a=torch.tensor(2.0), b=torch.tensor(3.0))
    assert weighted_sum(terms, dict(a=1.0, b=-2.0, c=9.0)) == -4.0


def test_frozen_networks_pass_gradients_and_take_none():
    method = StarGAN(**TINY)
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    with method.frozen(method.discriminator):
        method.discriminator(x, torch.zeros(2, dtype=torch.int64)).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in method.discriminator.parameters())
    with pytest.raises(RuntimeError, match="inside"), method.frozen(method.generator):
        raise RuntimeError("inside")
    assert all(p.requires_grad for p in method.generator.parameters())


def test_measuring_networks_are_not_part_of_a_method():
    """LPIPS would add 10 MB to each checkpoint, and could be trained by mistake."""
    method = SmoothI2I(**TINY)
    method._lpips = (torch.nn.Linear(2, 2),)
    assert not [k for k in method.state_dict() if "lpips" in k]
    trained = {id(p) for o in method.configure_optimizers() for p in o.param_groups[0]["params"]}
    assert not trained & {id(p) for p in method._lpips[0].parameters()}
    assert not trained & {id(p) for p in method.ema.parameters()}
    assert not any(p.requires_grad for p in method.ema.parameters())


# ---- finding them -------------------------------------------------------------------------------


def test_methods_are_found_by_name_without_registration():
    assert gen.methods.StarGAN is StarGAN and gen.methods.SmoothI2I is SmoothI2I
    for name in ("Tensor", "Generator", "LPIPS", "NoSuch", "stargan_v3", "os"):
        with pytest.raises(AttributeError, match=name):
            getattr(gen.methods, name)
