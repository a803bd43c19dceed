"""Weights of a StyleGAN2 taken over into one of another size, with other classes or colours."""

import pytest
import torch

from gen.methods.stylegan2 import StyleGAN2
from gen.networks.transfer import transfer
from gen.ops.fir import upsample2d
from runs import GENERATOR

Z = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def started(old, classes=(), old_classes=(), **options):
    """A method that starts from another, with other options and other first weights."""
    made = StyleGAN2(**GENERATOR | dict(seed=5) | options)
    state, new = transfer(made.state_dict(), old.state_dict(), classes, old_classes)
    made.load_state_dict(made.state_dict() | state)
    return made, new


def both(method, z=Z, c=None):
    """Images of the trained and of the averaged generator."""
    generators = method.generator, method.ema.module["generator"]
    with torch.no_grad():
        return [generator(z, c) for generator in generators]


@pytest.fixture
def old():
    return StyleGAN2(**GENERATOR)


def test_the_same_options_keep_all(old):
    made, new = started(old)
    assert new == []
    for a, b in zip(both(made), both(old), strict=True):
        assert torch.equal(a, b)


def test_twice_the_size_first_enlarges_the_image_and_learns_from_there(old):
    made, new = started(old, img_size=64)
    assert new == ["discriminator.b64", "generator.synthesis.b64"]
    taps = old.generator.synthesis.b8.resample_filter
    for a, b in zip(both(made), both(old), strict=True):
        torch.testing.assert_close(a, upsample2d(b, taps))
    made.generator(Z).square().sum().backward()
    assert made.generator.synthesis.b64.torgb.weight.grad.any()


def test_half_the_size_keeps_the_coarse_image(old):
    made, new = started(old, img_size=16)
    assert not [name for name in new if name.startswith("generator")]
    images = []
    for method in (made, old):
        synthesis = method.generator.synthesis
        rgb = []
        synthesis.b16.torgb.register_forward_hook(lambda *args, rgb=rgb: rgb.append(args[2]))
        both(method)
        images.append(rgb[0])
    torch.testing.assert_close(*images)


def test_new_classes_first_have_no_effect_and_known_ones_are_kept(old):
    made, new = started(old, ["cat", "dog"], [], conditional=True, num_domains=2)
    assert "generator.mapping.embed" in new
    for a, b in zip(both(made, c=torch.eye(2).repeat(2, 1)), both(old), strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        made.generator.mapping.fc0.weight.normal_()
    more, new = started(
        made, ["bear", "dog", "cat"], ["cat", "dog"], conditional=True, num_domains=3
    )
    assert new == []
    cat, third = torch.eye(2)[[0] * 4], torch.eye(3)[[2] * 4]
    torch.testing.assert_close(both(more, c=third)[0], both(made, c=cat)[0])
    assert not torch.allclose(both(more, c=torch.eye(3)[[0] * 4])[0], both(made, c=cat)[0])
    other, new = started(more, ["x", "y", "z"], ["bear", "dog", "cat"], conditional=True)
    assert "generator.mapping.embed.weight" in new  # of equal shape, but of other classes


def test_grey_is_the_mean_of_colours_and_back(old):
    made, new = started(old, grey=True)
    assert new == []
    grey = both(made)[0]
    assert torch.equal(grey[:, 0], grey[:, 2])
    torch.testing.assert_close(grey, both(old)[0].mean(1, keepdim=True).expand_as(grey))
    back, _ = started(made)
    torch.testing.assert_close(both(back)[0], grey)


def test_opacity_is_new_and_full_at_first_and_left_out_again(old):
    made, new = started(old, alpha=True)
    assert new == []
    for a, b in zip(both(made), both(old), strict=True):
        torch.testing.assert_close(a[:, :3], b)  # four channels may round as three do not
        assert torch.equal(a[:, 3], torch.ones(4, 32, 32))
    image = both(old)[0]
    for opacity in (-1, 1):  # which D does not see at first
        seen = torch.cat([image, torch.full((4, 1, 32, 32), float(opacity))], 1)
        torch.testing.assert_close(made.discriminator(seen), old.discriminator(image))
    image = made.generator(Z)
    (image[:, 3].square().sum() + made.discriminator(image).sum()).backward()
    for name in ("b4", "b32"):
        assert getattr(made.generator.synthesis, name).torgb.weight.grad[3].any()
    assert made.discriminator.b32.fromrgb.weight.grad[:, 3].any()
    back, new = started(made)
    assert new == [] and torch.equal(both(back)[0], both(old)[0])
    x = both(old)[0]
    torch.testing.assert_close(back.discriminator(x), old.discriminator(x))


def test_opacity_and_grey_and_a_larger_size(old):
    clear, _ = started(old, alpha=True)
    grey, _ = started(clear, grey=True)
    torch.testing.assert_close(both(grey)[0][:, :1], both(old)[0].mean(1, keepdim=True))
    back, _ = started(grey, alpha=True)
    assert torch.equal(both(back)[0][:, 3], torch.ones(4, 32, 32))
    torch.testing.assert_close(both(back)[0][:, :3], both(grey)[0])
    large, _ = started(old, alpha=True, img_size=64)
    torch.testing.assert_close(both(large)[0][:, 3], torch.ones(4, 64, 64))


def test_another_width_of_codes_is_told_as_all_new(old):
    made = StyleGAN2(**GENERATOR | dict(w_dim=12))
    assert transfer(made.state_dict(), old.state_dict()) == ({}, ["all"])
