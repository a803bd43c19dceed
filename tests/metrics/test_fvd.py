"""I3D and the Fréchet video distance, on a stand-in: other weights, the same layout."""

import math

import pytest
import torch
import torch.nn.functional as F

from gen import weights
from gen.files import WeightsError
from gen.metrics import fvd as metric
from gen.metrics.fvd import fvd, mirrored, video_features
from gen.networks.i3d import Unit, load, max_pool
from harness import Bomb

CONVS = {  # of the published layout, from the log of a program that lists such a file
    "Conv3d_1a_7x7": (64, 3, 7, 7, 7),
    "Conv3d_2b_1x1": (64, 64, 1, 1, 1),
    "Conv3d_2c_3x3": (192, 64, 3, 3, 3),
    "Mixed_3b.b0": (64, 192, 1, 1, 1),
    "Mixed_3b.b1a": (96, 192, 1, 1, 1),
    "Mixed_3b.b1b": (128, 96, 3, 3, 3),
    "Mixed_3b.b2a": (16, 192, 1, 1, 1),
    "Mixed_3b.b2b": (32, 16, 3, 3, 3),
    "Mixed_3b.b3b": (32, 192, 1, 1, 1),
    "Mixed_3c.b1b": (192, 128, 3, 3, 3),
    "Mixed_4b.b1b": (208, 96, 3, 3, 3),
    "Mixed_4c.b2b": (64, 24, 3, 3, 3),
    "Mixed_4d.b0": (128, 512, 1, 1, 1),
    "Mixed_4e.b1b": (288, 144, 3, 3, 3),
    "Mixed_4f.b0": (256, 528, 1, 1, 1),
    "Mixed_5b.b2b": (128, 32, 3, 3, 3),
    "Mixed_5c.b2a": (48, 832, 1, 1, 1),
    "Mixed_5c.b3b": (128, 832, 1, 1, 1),
}
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@pytest.fixture
def net(i3d):
    return i3d


@pytest.fixture(scope="module")
def layout(i3d):
    """Tensors of the right shapes, each of one number: small as a file."""
    state = i3d.state_dict()
    return {
        key: torch.full((), float(i % 7 + 1), dtype=value.dtype).expand(value.shape)
        for i, (key, value) in enumerate(state.items())
    }


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(metric, "SIZE_PX", 32)


def videos(n=2, frames=10, height=24, width=40, seed=0):
    """Smooth in space and time, each of another colour."""
    draw = torch.Generator().manual_seed(seed)
    low = torch.randn(n, 3, 4, 4, 4, generator=draw) + torch.randn(n, 3, 1, 1, 1, generator=draw)
    return F.interpolate(low, (frames, height, width), mode="trilinear").tanh().transpose(1, 2)


# ---- layout -------------------------------------------------------------------------------------


def test_layout_is_that_of_the_common_file(net):
    state = net.state_dict()
    assert {k: tuple(state[f"{k}.conv3d.weight"].shape) for k in CONVS} == CONVS
    stages = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")
    units = [f"Mixed_{s}.{b}" for s in stages for b in ("b0", "b1a", "b1b", "b2a", "b2b", "b3b")]
    units += ["Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3"]
    keys = {f"{unit}.bn.{name}" for unit in units for name in BATCH_NORM}
    keys |= {f"{unit}.conv3d.weight" for unit in units}
    assert set(state) == keys | {"logits.conv3d.weight", "logits.conv3d.bias"}
    assert state["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)
    assert sum(p.numel() for p in net.parameters()) == 12_697_264


def test_stages_halve_and_round_up(net):
    seen = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, out, n=name: seen.update({n: tuple(out.shape)}))
        for name, layer in net.items()
    ]
    with torch.no_grad():
        out = net(videos(1, 11, 33, 70))
    for hook in hooks:
        hook.remove()
    assert seen["Conv3d_1a_7x7"] == (1, 64, 6, 17, 35)
    assert seen["Conv3d_2c_3x3"] == (1, 192, 6, 9, 18)
    assert seen["Mixed_3c"] == (1, 480, 6, 5, 9)
    assert seen["Mixed_4f"] == (1, 832, 3, 3, 5)
    assert seen["Mixed_5c"] == (1, 1024, 2, 2, 3)
    assert seen["logits"] == (1, 400, 1, 1, 1)
    assert out.shape == (1, 400) and out.isfinite().all()


def test_the_end_is_a_mean_over_windows_of_seven_cells(net):
    found = []
    hook = net["Mixed_5c"].register_forward_hook(lambda _, __, out: found.append(out))
    with torch.no_grad():
        out = net(videos(1, 17, 226, 32))  # 3 x 8 x 1 cells
    hook.remove()
    x = found[0]
    assert x.shape[2:] == (3, 8, 1)
    windows = [x[:, :, t : t + 2, i : i + 7].mean((2, 3, 4)) for t in (0, 1) for i in (0, 1)]
    want = F.linear(sum(windows) / 4, *(p.flatten(1) if p.ndim > 1 else p
                                        for p in net["logits"].conv3d.parameters()))  # fmt: skip
    torch.testing.assert_close(out, want, atol=1e-5, rtol=1e-4)


def literal_same(x, weight, stride):
    """Convolution as TensorFlow documents SAME: one window at a time, nothing outside counts."""
    size, kernel = x.shape[1:], weight.shape[2:]
    out = [math.ceil(n / s) for n, s in zip(size, stride, strict=True)]
    before = [
        max((o - 1) * s + k - n, 0) // 2
        for o, s, k, n in zip(out, stride, kernel, size, strict=True)
    ]
    y = torch.zeros(len(weight), *out, dtype=x.dtype)
    for place in torch.cartesian_prod(*map(torch.arange, out)).tolist():
        for cell in torch.cartesian_prod(*map(torch.arange, kernel)).tolist():
            at = [p * s + c - b for p, s, c, b in zip(place, stride, cell, before, strict=True)]
            if all(0 <= a < n for a, n in zip(at, size, strict=True)):
                t, i, j = at
                y[(slice(None), *place)] += weight[(..., *cell)] @ x[:, t, i, j]
    return y


@pytest.mark.parametrize("size", [(3, 5, 6), (4, 7, 8)])
@pytest.mark.parametrize("window, stride", [(7, 2), (3, 1)])
def test_padding_is_tensorflows(size, window, stride):
    unit = Unit(2, 3, window, stride).double().eval().requires_grad_(False)
    draw = torch.Generator().manual_seed(0)
    unit.bn.running_var[:] = 0.001  # as much as eps
    unit.bn.running_mean[:] = torch.rand(3, generator=draw)
    x = torch.randn(2, *size, generator=draw, dtype=torch.float64)
    y = literal_same(x, unit.conv3d.weight, (stride,) * 3)
    want = ((y - unit.bn.running_mean.view(-1, 1, 1, 1)) / 0.002**0.5).relu()
    torch.testing.assert_close(unit(x[None])[0], want)


def test_pools_are_tensorflows():
    x = torch.arange(1.0, 6).expand(1, 1, 2, 2, 5)
    assert max_pool(x, (1, 1, 3), (1, 1, 2))[0, 0, 0, 0].tolist() == [2, 4, 5]
    assert max_pool(x[..., :4], (1, 1, 3), (1, 1, 2))[0, 0, 0, 0].tolist() == [3, 4]
    assert max_pool(x, (1, 1, 2), (1, 1, 2))[0, 0, 0, 0].tolist() == [2, 4, 5]


@pytest.mark.parametrize("shape", [(1, 8, 3, 32, 32), (3, 16, 32, 32), (1, 3, 16, 32, 32)])
def test_the_network_refuses_other_shapes(net, shape):
    with pytest.raises(ValueError, match=r"expected \(N, T, 3, H, W\) with T >= 9, got"):
        net(torch.zeros(shape))


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_files")
def test_a_file_of_this_layout_loads_whole_and_frozen(layout, tmp_path):
    old = {k: v for k, v in layout.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pt")
    weights.save_safetensors(layout, tmp_path / "x.safetensors")
    for name in ("old.pt", "x.safetensors"):
        net = load(tmp_path / name)
        state = net.state_dict()
        assert all(torch.equal(state[key], value) for key, value in old.items())
        assert not net.training and not any(p.requires_grad for p in net.parameters())


@pytest.mark.usefixtures("small_files")
def test_the_number_of_classes_is_the_files(layout, tmp_path):
    six = {"logits.conv3d.weight": torch.zeros(()).expand(600, 1024, 1, 1, 1)}
    torch.save(layout | six | {"logits.conv3d.bias": torch.zeros(600)}, tmp_path / "x.pt")
    assert load(tmp_path / "x.pt")["logits"].conv3d.out_channels == 600


@pytest.mark.parametrize(
    "change, told",
    [
        ({"Conv3d_1a_7x7.conv3d.weight": torch.zeros(()).expand(64, 2, 7, 7, 7)},
         r"Conv3d_1a_7x7\.conv3d\.weight: expected shape \(64, 3, 7, 7, 7\), got shape \(64, 2,"),
        ({"Mixed_4c.b1b.bn.running_var": None},
         r"Mixed_4c\.b1b\.bn\.running_var: expected shape \(224,\), got none; the file must"),
        ({"logits.conv3d.bias": None}, r"logits\.conv3d\.bias: expected shape \(400,\), got none"),
        ({"Mixed_5d.b0.bn.bias": torch.zeros(2)},
         r"Mixed_5d\.b0\.bn\.bias: expected none, got shape \(2,\); the file must hold RGB I3D"),
        ({"epoch": 3}, "expected RGB I3D weights .* alone"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("small_files")
def test_the_first_key_or_shape_that_differs_is_named(layout, tmp_path, change, told):
    torch.save({k: v for k, v in (layout | change).items() if v is not None}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match=rf"x\.pt: {told}"):
        load(tmp_path / "x.pt")


def test_a_file_that_is_none_or_runs_code_is_refused_with_its_path(tmp_path):
    (tmp_path / "text.pt").write_bytes(b"hello")
    for name in ("none.pt", "text.pt"):
        with pytest.raises(WeightsError, match=rf"{name}: expected RGB I3D weights"):
            load(tmp_path / name)
    with pytest.raises(WeightsError, match="expected a safetensors file"):
        load(tmp_path / "none.safetensors")
    marker = tmp_path / "ran"
    torch.save({"extra": Bomb(marker)}, tmp_path / "bomb.pt")
    with pytest.raises(WeightsError, match="refused '(posix|nt).system'"):
        load(tmp_path / "bomb.pt")
    assert not marker.exists()


# ---- metric -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frames, want",
    [
        (6, [0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0]),
        (4, [0, 1, 2, 3, 3, 2, 1, 0] * 2),
        (3, [0, 1, 2, 2, 1, 0] * 2),
        (1, [0] * 16),
        (10, list(range(10))),
        (13, list(range(13))),
    ],
)
def test_short_videos_are_mirrored_in_time(frames, want):
    video = torch.arange(float(frames)).view(1, -1, 1, 1, 1).expand(2, -1, 3, 2, 2)
    assert mirrored(video)[1, :, 0, 0, 0].tolist() == want


def test_features_are_the_networks_of_resized_frames(net):
    x = videos(1, 6)
    frames = F.interpolate(x[0], (32, 32), mode="bilinear", align_corners=False)
    want = net(torch.cat([frames, frames.flip(0)])[None])
    torch.testing.assert_close(video_features(net, x), want)
    assert not torch.allclose(video_features(net, x.flip(2)), want)  # channels
    assert not torch.allclose(video_features(net, x.transpose(3, 4)), want)


def test_features_do_not_depend_on_the_batch(net):
    x = videos(5, 6)
    kept, together = x.clone(), video_features(net, x)
    alone = torch.cat([video_features(net, v) for v in x.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(video_features(net, x), together)
    assert torch.equal(x, kept) and not together.requires_grad
    order = [3, 1, 0, 4, 2]
    other = video_features(net, videos(5, 6, seed=1))
    assert fvd(together, other) == pytest.approx(fvd(alone[order], other), rel=1e-4)


def test_equal_sets_score_zero_and_noise_counts(net):
    x = videos(10, 6)
    real = video_features(net, x)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    noisy = [(x + s * noise).clamp(-1, 1) for s in (0, 0.1, 0.3, 1)]
    found = [fvd(video_features(net, y), real) for y in noisy]
    assert abs(found[0]) < 1e-3 * found[1] and found == sorted(found)
    shuffled = fvd(video_features(net, x[:, [3, 0, 5, 1, 4, 2]]), real)
    assert shuffled > 100 * abs(found[0])  # it sees the order of frames


def test_the_distance_is_frechets():
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    x = x - x.mean(0)
    shift = torch.tensor([1.0, 0, 2, 0])
    assert fvd(x + shift, x) == pytest.approx(5, abs=1e-4)
    assert fvd(3 * x, x) == pytest.approx(4 * x.var(0).sum().item(), rel=1e-4)
    assert fvd(x, 3 * x[:30] + shift) == pytest.approx(fvd(3 * x[:30] + shift, x), rel=1e-6)


@pytest.mark.parametrize(
    "fake, real, why",
    [
        (torch.zeros(3, 4), torch.zeros(3, 5), r"\(3, 4\) and \(3, 5\)"),
        (torch.zeros(1, 4), torch.zeros(3, 4), "at least 2 videos a side, got 1"),
        (torch.zeros(3, 4), torch.full((3, 4), torch.nan), "finite"),
    ],
)
def test_doors_of_the_distance(fake, real, why):
    with pytest.raises(ValueError, match=why):
        fvd(fake, real)


@pytest.mark.parametrize(
    "video, why",
    [
        (videos(1)[0], r"\(N, T, 3, H, W\)"),
        (videos(1) * 200, r"\[-1, 1\]"),
        (videos(1).byte(), "float"),
        (videos(1) * torch.nan, "finite"),
    ],
)
def test_doors_of_the_features(net, video, why):
    with pytest.raises(ValueError, match=why):
        video_features(net, video)


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="eval mode"):
        video_features(torch.nn.Identity().train(), videos(1))
