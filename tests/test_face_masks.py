"""Face masks against golden numbers, and at the corners."""

import json

import pytest
import torch

from gen.networks.face_masks import face_masks


def landmark_maps(size=256):
    """Spec 9: a Gaussian bump a landmark, (1, 98, size, size)."""
    c = torch.arange(98, dtype=torch.float64)[:, None, None]
    row, col = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    square = (row - (40 + 1.7 * c)) ** 2 + (col - (30 + 2 * c)) ** 2
    return (0.8 * torch.exp(-square / 72))[None].float()


def test_goldens(specs):
    goldens = json.loads((specs / "starganv2_golden.json").read_text())
    maps = landmark_maps()
    before = maps.clone()
    for k, mask in enumerate(face_masks(maps)):
        golden = goldens[f"wing preprocess mask{k}"]
        assert list(mask.shape) == golden["shape"]
        assert mask.double().sum().item() == pytest.approx(golden["sum"], rel=1e-6)
        assert mask.double().mean().item() == pytest.approx(golden["mean"], rel=1e-6)
        assert mask.double().std().item() == pytest.approx(golden["std"], rel=1e-6)
        assert mask.max().item() == pytest.approx(golden["absmax"])
        assert mask.flatten()[:4].tolist() == golden["first"]
        assert mask.flatten()[-2:].tolist() == golden["last"]
        for row, col in ((100, 100), (120, 130), (60, 80)):
            pixel = golden[f"at(0,0,{row},{col})"]
            assert mask[0, 0, row, col].item() == pytest.approx(pixel, rel=1e-5, abs=1e-7)
    assert torch.equal(maps, before)


@pytest.mark.parametrize("value", [0.0, 0.05, 0.7, 1.0])
def test_constant_maps_show_nothing(value):
    for mask in face_masks(torch.full((2, 98, 64, 64), value)):
        assert torch.equal(mask, torch.zeros(2, 1, 64, 64))


@pytest.mark.parametrize(
    "channel, seen", [(0, (True, True)), (10, (False, True)), (97, (False,) * 2)]
)
def test_nan_becomes_zero_in_both_masks_of_its_image_alone(channel, seen):
    maps = landmark_maps(64).repeat(2, 1, 1, 1)
    clean = face_masks(maps)
    maps[0, channel, 3, 5] = float("nan")
    for mask, want, whole in zip(face_masks(maps), clean, seen, strict=True):
        assert mask.isfinite().all()
        assert torch.equal(mask[1], want[1])
        assert torch.equal(mask[0], want[0] if whole else torch.zeros_like(want[0]))


def test_parts_scale_with_the_size_and_eyes_do_not():
    def rows(channel, size):
        maps = torch.zeros(1, 98, size, 16)
        maps[0, channel, 100, 8] = 1
        return face_masks(maps)[0][0, 0, :, 8].nonzero().flatten().tolist()

    assert rows(57, 256) == [92] and rows(57, 512) == [84] and rows(57, 128) == [100]
    assert rows(35, 256) == [107] and rows(53, 256) == [96] and rows(51, 256) == [100]
    assert rows(65, 256) == rows(65, 512) == [108, 124]
    assert rows(33, 256) == rows(46, 256) == rows(0, 256) == []


def test_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"expected \(N, 98, H, W\), got \(1, 99, 8, 8\)"):
        face_masks(torch.zeros(1, 99, 8, 8))
