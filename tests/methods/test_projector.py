"""The projector: it finds codes that are there, and what it fits beside them."""

import pytest
import torch

from gen.methods.projector import autocorrelation, project
from gen.networks.stylegan2 import Generator

OPTIONS = dict(features=lambda x: [x], bar=False)


@pytest.fixture(scope="module")
def generator():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Generator(16, 8, 0, 8, 2, 128, 16)
    for size in net.synthesis.sizes:  # images within [-1, 1]
        getattr(net.synthesis, f"b{size}").torgb.weight.data.mul_(0.1)
    return net.requires_grad_(False)


def images(generator, seed=3):
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed))
    return generator(z)


@pytest.mark.parametrize("space", ["W", "W+"])
def test_it_finds_the_code_of_an_image_that_was_generated(generator, space):
    x = images(generator)
    start = project(generator, x, steps=1, space=space, lr=1e-9, **OPTIONS)
    found = project(generator, x, steps=150, space=space, **OPTIONS)
    assert (found.distance < 0.02 * start.distance).all()
    assert found.ws.shape == (2, generator.mapping.rows, 8)
    torch.testing.assert_close(generator.synthesis(found.ws), x, atol=0.2, rtol=0)
    rows_agree = bool((found.ws == found.ws[:, :1]).all())
    assert rows_agree == (space == "W")


def test_it_is_a_function_of_its_seed_and_leaves_the_generator(generator):
    x, before = images(generator), {k: v.clone() for k, v in generator.state_dict().items()}
    a, b, c = (project(generator, x, steps=3, seed=s, **OPTIONS).ws for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    assert all(p.grad is None for p in generator.parameters())


def test_noise_is_fitted_only_on_request_and_stays_noise(generator):
    x = images(generator)
    stored = generator.synthesis.noise_maps(2, "const")
    plain = project(generator, x, steps=2, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(plain.noise, stored, strict=True))
    fitted = project(generator, x, steps=5, fit_noise=True, **OPTIONS)
    for n in fitted.noise:
        assert n.shape[:2] == (2, 1) and not n.requires_grad
        torch.testing.assert_close(n.mean((1, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(n.square().mean((1, 2, 3)), torch.ones(2), atol=1e-4, rtol=0)
    x_fit = generator.synthesis(fitted.ws, fitted.noise)
    expected = (x_fit - x).square().flatten(1).sum(1)
    torch.testing.assert_close(fitted.distance, expected, rtol=1e-4, atol=1e-5)


def test_autocorrelation_tells_noise_from_a_picture():
    noise = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    slope = torch.linspace(-1.7, 1.7, 32).expand(1, 1, 32, 32)
    assert autocorrelation(slope) > 20 * autocorrelation(noise)


def test_an_image_is_found_as_if_alone(generator):
    x = images(generator)
    for options in (OPTIONS, OPTIONS | dict(fit_noise=True)):
        both, alone = (project(generator, one, steps=20, **options) for one in (x, x[1:]))
        torch.testing.assert_close(both.ws[1:], alone.ws, atol=1e-3, rtol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_there_are_no_gradients(generator, mode):
    expected = project(generator, images(generator), steps=3, **OPTIONS).ws
    with mode():
        x = images(generator)
        assert torch.equal(project(generator, x, steps=3, **OPTIONS).ws, expected)
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize(
    "x, message",
    [
        (torch.full((1, 3, 16, 16), 255.0), r"expected values in \[-1, 1\]"),
        (torch.full((1, 3, 16, 16), torch.nan), "expected finite values"),
        (
            torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
            "expected a float tensor .* got torch.uint8",
        ),
    ],
)
def test_values_that_are_no_image_are_refused(generator, x, message):
    with pytest.raises(ValueError, match=f"^x: {message}"):
        project(generator, x, steps=1, **OPTIONS)


@pytest.mark.parametrize("shape, steps", [((1, 3, 8, 8), 5), ((3, 16, 16), 5), ((1, 3, 16, 16), 0)])
def test_doors(generator, shape, steps):
    with pytest.raises(ValueError, match=r"expected images \(N, 3, 16, 16\) and steps >= 1, got"):
        project(generator, torch.zeros(shape), steps=steps, **OPTIONS)


def test_it_refines_a_code_without_unlearning_it(generator):
    x = images(generator)
    good = project(generator, x, steps=60, **OPTIONS)
    more = project(generator, x, steps=20, start=good.ws, **OPTIONS)
    anew = project(generator, x, steps=20, **OPTIONS)
    assert (more.distance < good.distance).all() and (more.distance < anew.distance).all()
    still = project(generator, x, steps=1, lr=1e-9, start=good.ws, **OPTIONS)
    torch.testing.assert_close(still.ws, good.ws)  # neither noise nor the mean code
    rows, width = good.ws.shape[1:]
    wanted = rf"start: expected codes \(2, {rows}, {width}\) in W\+, got"
    for odd in (good.ws[:1], good.ws[:, :1], good.ws[:, :, :1], good.ws[:, 0], good.ws[..., None]):
        with pytest.raises(ValueError, match=wanted):
            project(generator, x, steps=1, start=odd, **OPTIONS)
    for odd in (good.ws.round().long(), good.ws * torch.nan):
        with pytest.raises(ValueError, match="start: expected finite floats, got torch"):
            project(generator, x, steps=1, start=odd, **OPTIONS)
