"""IR-SE50 and the identity metric, on a stand-in: other weights, the same layout."""

import pytest
import torch
import torch.nn.functional as F

from gen.files import WeightsError
from gen.metrics.identity import face_crop, identity_similarity
from gen.networks.arcface import IRSE50, Unit, load
from harness import Bomb

SHAPES = {  # as the file's keys are generally known
    "input_layer.0.weight": (64, 3, 3, 3),
    "input_layer.1.running_var": (64,),
    "input_layer.2.weight": (64,),
    "body.0.res_layer.0.weight": (64,),
    "body.0.res_layer.1.weight": (64, 64, 3, 3),
    "body.0.res_layer.2.weight": (64,),
    "body.0.res_layer.3.weight": (64, 64, 3, 3),
    "body.0.res_layer.4.running_mean": (64,),
    "body.0.res_layer.5.fc1.weight": (4, 64, 1, 1),
    "body.0.res_layer.5.fc2.weight": (64, 4, 1, 1),
    "body.3.shortcut_layer.0.weight": (128, 64, 1, 1),
    "body.3.shortcut_layer.1.bias": (128,),
    "body.7.shortcut_layer.0.weight": (256, 128, 1, 1),
    "body.21.shortcut_layer.0.weight": (512, 256, 1, 1),
    "body.23.res_layer.5.fc1.weight": (32, 512, 1, 1),
    "output_layer.0.weight": (512,),
    "output_layer.3.weight": (512, 512 * 7 * 7),
    "output_layer.3.bias": (512,),
    "output_layer.4.running_mean": (512,),
}


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return IRSE50().requires_grad_(False).eval()


@pytest.fixture(scope="module")
def layout(net):
    """Tensors of the right shapes, each of one number: small as a file."""
    state = net.state_dict()
    return {
        key: torch.full((), float(i % 7 + 1), dtype=value.dtype).expand(value.shape)
        for i, (key, value) in enumerate(state.items())
    }


def images(n, size=64, seed=0):
    low = torch.randn(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(low, (size, size), mode="bilinear").tanh()


# ---- layout -------------------------------------------------------------------------------------


def test_layout_is_that_of_the_common_file(net):
    state = net.state_dict()
    assert {key: tuple(state[key].shape) for key in SHAPES} == SHAPES
    assert sum(p.numel() for p in net.parameters()) == 43_797_696
    assert len(net.body) == 24
    shortcuts = {key.split(".")[1] for key in state if "shortcut_layer" in key}
    assert shortcuts == {"3", "7", "21"}
    sizes = [net.body[:i](torch.zeros(1, 64, 112, 112)).shape[2] for i in (1, 4, 8, 22)]
    assert sizes == [56, 28, 14, 7]


def test_a_unit_is_its_formula():
    unit = Unit(8, 16, 2).eval()
    x = torch.randn(2, 8, 6, 6)
    r = unit.res_layer
    h = r[3](F.prelu(r[1](x / (1 + 1e-5) ** 0.5), r[2].weight)) / (1 + 1e-5) ** 0.5
    scale = torch.sigmoid(r[5].fc2(F.relu(r[5].fc1(h.mean((2, 3), keepdim=True)))))
    short = unit.shortcut_layer[0](x) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(unit(x), short + h * scale)
    same = Unit(8, 8, 2).eval()
    torch.testing.assert_close(same.shortcut_layer(x), x[:, :, ::2, ::2])


@pytest.mark.usefixtures("small_files")
def test_a_file_of_this_layout_loads_whole_and_frozen(layout, tmp_path):
    torch.save(layout, tmp_path / "x.pth")
    net = load(tmp_path / "x.pth")
    state = net.state_dict()
    assert all(torch.equal(state[key], value) for key, value in layout.items())
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    old = {k: v for k, v in layout.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    assert torch.equal(
        load(tmp_path / "old.pth").output_layer[3].bias, layout["output_layer.3.bias"]
    )


@pytest.mark.parametrize(
    "change, told",
    [
        ({"body.7.res_layer.1.weight": torch.zeros(1, 2)},
         r"body\.7\.res_layer\.1\.weight: expected shape \(256, 128, 3, 3\), got shape \(1, 2\);"),
        ({"body.21.shortcut_layer.0.weight": None},
         r"body\.21\.shortcut_layer\.0\.weight: expected shape \(512, 256, 1, 1\), got none;"),
        ({"body.24.res_layer.0.weight": torch.zeros(512)},
         r"body\.24\.res_layer\.0\.weight: expected none, got shape \(512,\);"),
        ({"epoch": 3}, "expected IR-SE50 weights .* alone"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("small_files")
def test_the_first_key_or_shape_that_differs_is_named(layout, tmp_path, change, told):
    torch.save({k: v for k, v in (layout | change).items() if v is not None}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=rf"x\.pth: {told}"):
        load(tmp_path / "x.pth")


def test_a_file_that_is_none_or_runs_code_is_refused_with_its_path(layout, tmp_path):
    for name, data in (("none", None), ("empty", b""), ("text", b"hello")):
        path = tmp_path / f"{name}.pth"
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(WeightsError, match=rf"{name}\.pth: expected IR-SE50 weights"):
            load(path)
    marker = tmp_path / "ran"
    torch.save({"extra": Bomb(marker)}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match="refused '(posix|nt).system'"):
        load(tmp_path / "bomb.pth")
    assert not marker.exists()


@pytest.mark.parametrize("shape", [(1, 3, 256, 256), (3, 112, 112), (1, 1, 112, 112)])
def test_the_network_refuses_other_sizes(net, shape):
    with pytest.raises(ValueError, match=r"expected \(N, 3, 112, 112\), got"):
        net(torch.zeros(shape))


# ---- metric -------------------------------------------------------------------------------------


def test_the_crop_is_the_published_one():
    x = images(2, 256)
    want = F.adaptive_avg_pool2d(x[..., 35:223, 32:220], 112)
    torch.testing.assert_close(face_crop(x), want)
    small = face_crop(images(2, 64))
    assert small.shape == (2, 3, 112, 112)
    torch.testing.assert_close(small, face_crop(images(2, 64).repeat_interleave(4, 2)
                               .repeat_interleave(4, 3)), atol=0.3, rtol=0)  # fmt: skip


def test_similarity_is_the_mean_cosine_over_outputs(net):
    x, outputs = images(2), torch.stack([images(2, seed=1), images(2, seed=2)], 1)
    kept = x.clone(), outputs.clone()
    got = identity_similarity(net, x, outputs)
    codes = [net(face_crop(v)) for v in (x, outputs[:, 0], outputs[:, 1])]
    want = sum(F.cosine_similarity(codes[0], c) for c in codes[1:]) / 2
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    assert got.shape == (2,) and (got < 0.999).all() and not got.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(identity_similarity(net, x, outputs), got)
    assert torch.equal(x, kept[0]) and torch.equal(outputs, kept[1])


def test_an_unchanged_image_scores_one_and_constant_images_are_finite(net):
    x = torch.cat([images(1), torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)])
    same = identity_similarity(net, x, x[:, None].expand(-1, 2, -1, -1, -1))
    torch.testing.assert_close(same, torch.ones(3), atol=1e-5, rtol=0)
    flat = identity_similarity(net, x, -x[:, None])
    assert flat.isfinite().all() and (flat.abs() <= 1).all()


@pytest.mark.parametrize(
    "x, outputs, why",
    [
        (images(1), images(1), r"outputs: expected \(N, T, 3, H, W\)"),
        (images(1), images(1)[:, None] * 300, r"expected values in \[-1, 1\]"),
        (images(1), images(2)[:, None], "expected sources .* and outputs"),
        (images(1)[..., :32], images(1)[:, None, ..., :32], "expected sources .* H, H"),
        (images(1).byte(), images(1)[:, None], "expected a float tensor"),
        (images(1) * torch.nan, images(1)[:, None], "finite"),
    ],
)
def test_doors(net, x, outputs, why):
    with pytest.raises(ValueError, match=why):
        identity_similarity(net, x, outputs)


def test_a_network_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="eval mode"):
        identity_similarity(torch.nn.Identity().train(), images(1), images(1)[:, None])
