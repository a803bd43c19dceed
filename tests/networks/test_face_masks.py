"""Face masks against golden numbers, and at the corners."""

import json

import pytest
import torch
import torch.nn.functional as F

from gen.files import WeightsError
from gen.networks.face_masks import FAN, ConvBlock, CoordConv, Hourglass, face_masks


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


# ---- the network that draws the maps ------------------------------------------------------------


@pytest.fixture(scope="module")
def fan():
    """A network with loaded weights whose maps of a chin and a nose are large, and of no more."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = FAN()
    state = net.state_dict() | {"l0.weight": 20 * net.l0.weight, "l0.bias": torch.full((99,), -1e4)}
    state["l0.bias"][[16, 54]] = 0
    net.load_state_dict(state)
    return net


def test_fan_has_the_published_keys_shapes_and_dtypes(specs):
    text = (specs / "starganv2_state_dict.txt").read_text().split("## fan")[1]
    published = [line.split("\t") for line in text.splitlines()[1:] if line]
    with torch.device("meta"):
        state = FAN().state_dict()
    ours = [[k, str(list(v.shape)), str(v.dtype).removeprefix("torch.")] for k, v in state.items()]
    assert ours == published and len(ours) == 336


def test_fan_has_the_published_size():
    with torch.device("meta"):
        net = FAN()
    assert sum(p.numel() for p in net.parameters()) == 6_333_603
    assert sum(v.numel() for v in net.state_dict().values()) == 6_348_634


def test_coordinates_are_row_column_and_radius():
    conv = CoordConv(1, 3, 1)
    with torch.no_grad():
        conv.conv.weight.copy_(torch.eye(4)[1:].view(3, 4, 1, 1))
        conv.conv.bias.zero_()
        row, column, radius = conv(torch.full((2, 1, 3, 5), 9.0))[1]
    assert row[:, 2].tolist() == [-1, 0, 1] and column[1].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert torch.equal(row, row[:, :1].expand(3, 5)) and torch.equal(
        column, column[:1].expand(3, 5)
    )
    assert radius[0, 0] == radius[2, 4] == 1 and radius[1, 2] == 0
    assert radius[1, 4].item() == pytest.approx(0.5**0.5)


def test_a_block_stands_its_three_convolutions_side_by_side():
    block, x = ConvBlock(4, 8).eval(), torch.randn(1, 4, 6, 6)
    with torch.no_grad():
        unit = 1 / (1 + 1e-5) ** 0.5  # a fresh normalisation divides by this
        a = F.conv2d(F.relu(x * unit), block.conv1.weight, padding=1)
        b = F.conv2d(F.relu(a * unit), block.conv2.weight, padding=1)
        c = F.conv2d(F.relu(b * unit), block.conv3.weight, padding=1)
        skip = F.conv2d(F.relu(x * unit), block.downsample[2].weight)
        torch.testing.assert_close(block(x), torch.cat([a, b, c], 1) + skip)
    assert [v.shape[1] for v in (a, b, c)] == [4, 2, 2]
    same = ConvBlock(8, 8).eval()
    with torch.no_grad():
        for conv in (same.conv1, same.conv2, same.conv3):
            conv.weight.zero_()
        assert torch.equal(same(block(x)), block(x))


def test_the_hourglass_adds_every_scale():
    """With blocks that change nothing it sums the averages over 1, 2, 4, 8 and 16 pixels."""
    net, x = Hourglass(4).eval(), torch.randn(1, 4, 32, 32)
    with torch.no_grad():
        for key, p in net.named_parameters():
            if "conv" in key:
                p.zero_()
        net["coordconv"].conv.weight[:, :4, 0, 0] = torch.eye(4)
        want = sum(F.interpolate(F.avg_pool2d(x, k), size=(32, 32)) for k in (1, 2, 4, 8, 16))
        torch.testing.assert_close(net(x), want)
        net["b2_plus_1"].conv1.weight.fill_(0.1)  # it works at the coarsest scale alone
        change = (net(x) - want).view(1, 4, 2, 16, 2, 16)
    assert change.abs().max() > 1e-3
    assert (change.amax((3, 5)) - change.amin((3, 5))).max() < 1e-5


def test_masks_of_faces_of_any_size(fan):
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    masks = fan.masks(x)
    for mask in masks:
        assert mask.shape == (2, 1, 256, 256) and 0 <= mask.min() and mask.max() <= 1
        assert 0 < mask.mean() < 1 and not mask.requires_grad
        assert not torch.equal(mask[0], mask[1])
    assert (masks[0] - masks[1]).mean() > 0  # the chin is of the first alone
    for mask, alone in zip(masks, fan.masks(x[1:]), strict=True):  # whatever is in the batch
        torch.testing.assert_close(mask[1:], alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_masks_of_blank_images_are_finite(fan, value):
    for mask in fan.masks(torch.full((1, 3, 32, 32), value)):
        assert mask.isfinite().all() and 0 <= mask.min() and mask.max() <= 1


def test_masks_are_those_of_98_enlarged_maps(fan, monkeypatch):
    maps, seen = F.avg_pool2d(landmark_maps(), 4), []

    def forward(self, x):
        seen.append(x)
        return torch.cat([maps, torch.ones(1, 1, 64, 64)], 1)  # the last one is of outlines

    monkeypatch.setattr(FAN, "forward", forward)
    x = torch.linspace(-1, 1, 3 * 128 * 128).view(1, 3, 128, 128)
    got = fan.masks(x)
    (small,) = seen
    assert small.shape == (1, 3, 256, 256) and small.min() == 0 and small.max() == 1
    enlarged = F.interpolate(maps, size=(256, 256), mode="bilinear", align_corners=True)
    for mask, want in zip(got, face_masks(enlarged), strict=True):
        assert torch.equal(mask, want) and want.max() == 1


def test_fan_is_frozen_and_stays_in_evaluation_mode(fan):
    assert not any(m.training for m in fan.train().modules())
    assert not any(m.training for m in torch.nn.Sequential(fan).train()[0].modules())
    assert not any(p.requires_grad for p in fan.parameters())


def test_masks_without_weights_are_refused_and_parents_may_load_them(fan):
    fresh = FAN()
    with pytest.raises(WeightsError, match="expected the weights .* got none: .*gen import"):
        fresh.masks(torch.zeros(1, 3, 32, 32))
    torch.nn.ModuleDict({"fan": fresh}).load_state_dict(
        {f"fan.{k}": v for k, v in fan.state_dict().items()}
    )
    assert fresh.loaded and not FAN().loaded
