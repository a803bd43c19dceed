"""The networks of Click to Move: sizes of the release, shapes, what depends on what."""

import pytest
import torch
from torch import Tensor, nn

from gen.networks.click_to_move.encoders import (
    AppearanceEncoder,
    DenseDecoder,
    LatentCode,
    Posterior,
    SparseEncoder,
    fold,
    label_maps,
    sample,
    unfold,
)
from gen.networks.click_to_move.frame_generator import (
    Discriminator,
    FeatureWarpGenerator,
    SpadeBlock,
    SpadeGenerator,
    blend,
)
from gen.ops.motion import warp

TINY = dict(width=4, levels=4, max_width=16)  # 32 x 64
GENERATORS = (FeatureWarpGenerator, SpadeGenerator)


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(cls: type, **options) -> nn.Module:
    torch.manual_seed(0)
    return cls(**options)


def clip(N: int = 2, T: int = 5, H: int = 32, W: int = 64) -> dict[str, Tensor]:
    labels = torch.randint(0, 20, (2, N, T + 1, H, W), generator=torch.Generator().manual_seed(0))
    return {
        "video": noise(N, T + 1, 3, H, W).tanh(),
        "maps": label_maps(*labels),
        "flow": 2 * noise(N, T, 2, H, W, seed=1),
        "visible": (noise(N, T, 1, H, W, seed=2) > 0).float(),
    }


class Motion(nn.Module):
    """All that makes a dense flow, put together as in training."""

    def __init__(self, z_dim: int = 8, norm: str = "group", residual: bool = True, **sizes: int):
        super().__init__()
        self.appearance = AppearanceEncoder(**sizes, feature_dim=6, norm=norm)
        self.posterior = Posterior(**sizes, z_dim=z_dim, norm=norm)
        self.latent = LatentCode(**sizes, z_dim=z_dim)
        self.sparse = SparseEncoder(**sizes, norm=norm)
        self.decoder = DenseDecoder(**sizes, norm=norm, residual=residual)
        self.z_dim = z_dim

    def forward(self, video: Tensor, maps: Tensor, flow: Tensor, visible: Tensor):
        features = self.appearance(video[:, 0], maps[:, 0])
        mean, log_variance = self.posterior(video, maps, flow, visible)
        z = sample(mean, log_variance, noise(len(video), self.z_dim, seed=3))
        codes = self.latent(z, features[-1], flow.shape[1])
        out = self.decoder(codes, features, self.sparse(flow), flow, visible)
        boxes = torch.tensor([[[-0.5, 0.0, 0.2, 0.4], [0.0, 0.0, 0.0, 0.0]]])
        return *out, self.appearance.objects(features, boxes.expand(len(video), 2, 4))


def test_published_sizes():
    """Of the release at 128 x 256. What differs are layers that it builds and never uses."""
    with torch.device("meta"):
        appearance, posterior, latent = AppearanceEncoder(), Posterior(), LatentCode()
        heads = size(posterior.heads) // 2  # mean and log variance of one half
        spade = SpadeGenerator()
        counts = [size(n) for n in (SparseEncoder(), DenseDecoder(), FeatureWarpGenerator())]
        critics = [size(Discriminator(frames)) for frames in (1, 6)]
    assert size(appearance) == 8_439_456 - 512  # a norm of the object codes
    assert size(posterior.things) + heads == 15_500_192
    assert size(posterior.stuff) + heads == 15_504_288
    assert (size(latent.zconv), size(latent.fc)) == (472_640, 524_800)
    assert counts == [2_068_896, 18_132_882 - 576_687, 5_811_459]  # decoder: heads of other scales
    assert critics == [2_758_977, 2_774_337]
    unused = 36_960  # the decoder of motion maps goes on to full size
    unused += 9 * 2 * 128 + 2 * 32  # norms in the nine SPADE layers and in the first of the maps
    assert size(spade) == 11_353_443 - unused


def shapes(net: nn.Module, layers: list[nn.Module], *inputs) -> list[tuple[int, ...]]:
    found = []
    for layer in layers:
        layer.register_forward_hook(lambda _, __, out: found.append(tuple(out.shape[1:])))
    net(*inputs)
    return found


def test_published_shapes():
    with torch.device("meta"):
        frame, maps = torch.zeros(1, 3, 128, 256), torch.zeros(1, 21, 128, 256)
        video, all_maps = torch.zeros(1, 6, 3, 128, 256), torch.zeros(1, 6, 21, 128, 256)
        flow, visible = torch.zeros(1, 5, 2, 128, 256), torch.zeros(1, 5, 1, 128, 256)
        features = AppearanceEncoder()(frame, maps)
        posterior, decoder = Posterior(), DenseDecoder()
        things = shapes(posterior, list(posterior.things), video, all_maps, flow, visible)
        sparse = SparseEncoder()(flow)
        codes = LatentCode()(torch.zeros(1, 1024), features[-1], 5)
        layers = [decoder.first, *decoder.ups, decoder.last, decoder.join]
        decoded = shapes(decoder, layers, codes, features, sparse, flow, visible)
    sides = [(64, 128), (32, 64), (16, 32), (8, 16), (4, 8), (2, 4)]
    channels = [32, 64, 128, 256, 512, 512]
    levels = [(c, *s) for c, s in zip(channels, sides, strict=True)]
    assert [tuple(f.shape[1:]) for f in features] == levels
    times = [2, 2, 2, 1, 1, 1, 1]
    layers = zip([*channels, 512], times, [*sides, (2, 4)], strict=True)
    assert things == [(c, t, *s) for c, t, s in layers]
    assert [tuple(s.shape[1:]) for s in sparse] == [(c, 5, *s) for c, *s in levels[:4]]
    assert codes.shape == (1, 528, 5, 2, 4)
    ups = [(512, 4, 8), (256, 8, 16), (128, 16, 32), (64, 32, 64), (32, 64, 128), (32, 128, 256)]
    assert decoded == [(512, 5, 2, 4), *ups, (32, 5, 128, 256)]


@pytest.mark.parametrize("cls", GENERATORS)
def test_published_shapes_of_frames(cls):
    with torch.device("meta"):
        net = cls()
        video = net(*(torch.zeros(s) for s in ((1, 3, 128, 256), (1, 5, 2, 128, 256))),
                    torch.zeros(1, 5, 1, 128, 256))  # fmt: skip
        logits, features = Discriminator(6)(torch.zeros(1, 6, 3, 128, 256))
        assert Discriminator()(torch.zeros(2, 6, 3, 128, 256))[0].shape == (12, 1, 8, 16)
    assert video.shape == (1, 5, 3, 128, 256) and logits.shape == (1, 1, 8, 16)
    assert [f.shape[1] for f in features] == [64, 128, 256, 512]


def test_folding_time_into_the_batch_and_back():
    x = torch.arange(2.0)[:, None] * 10 + torch.arange(5)  # (N, T)
    x = x[:, None, :, None, None].expand(2, 3, 5, 4, 6)
    assert torch.equal(fold(x)[:, 0, 0, 0], torch.tensor([0.0, 1, 2, 3, 4, 10, 11, 12, 13, 14]))
    assert torch.equal(unfold(fold(x), 5), x)


def test_maps_of_labels():
    semantic = torch.tensor([[0, 10, 11, 255], [18, 18, 18, 18]])
    instance = torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2]])
    maps = label_maps(semantic, instance)
    assert maps.shape == (21, 2, 4) and maps.dtype == torch.float32
    assert maps[:20, 0, 3].sum() == 0 and maps[:20].sum() == 7  # void has no class
    assert maps[0, 0, 0] == maps[10, 0, 1] == maps[11, 0, 2] == 1 and maps[18, 1].sum() == 4
    assert (maps[20] == 1).all()
    assert torch.equal(label_maps(semantic.expand(3, 2, 4), instance.expand(3, 2, 4))[2], maps)
    inner = torch.zeros(5, 7, dtype=torch.int64)
    inner[1:4, 2:5] = 3
    edge = label_maps(inner, inner)[20]
    assert edge[2, 3] == 0 and edge[0, 0] == 0 and edge[2, 1] == edge[2, 2] == edge[4, 3] == 1


def test_objects_are_cut_out_where_they_are():
    """The middle of a crop of two ramps is the box's centre, x and y apart."""
    net = build(AppearanceEncoder, width=2, levels=4, max_width=8)
    net.crop, net.code = nn.Identity(), nn.Identity()
    x, y = torch.arange(32.0).expand(16, 32), torch.arange(16.0)[:, None].expand(16, 32)
    features = [torch.zeros(2, 2, 32, 64), torch.stack([x, y]).expand(2, 2, 16, 32)]
    features[1] = torch.stack([features[1][0], -features[1][0]])
    features.append(torch.zeros(2, 8, 4, 8))
    boxes = torch.tensor([[0.4, -0.2, 0.1, 0.2], [-0.3, 0.1, 0.2, 0.1]])
    codes = net.objects(features, boxes.expand(2, 2, 4))[..., :98].view(2, 2, 2, 7, 7)
    px = (boxes[:, :2] + 1) / 2 * torch.tensor([127.0, 63.0])  # of an image of 64 x 128
    expected = (px + 0.5) / 4 - 0.5  # four pixels a cell
    torch.testing.assert_close(codes[0, :, :, 3, 3], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(codes[1], -codes[0])
    assert (codes[0, 0, 0, 3].diff() > 0).all() and (codes[0, 0, 1, :, 3].diff() > 0).all()


@pytest.mark.parametrize("T, H, W", [(5, 32, 64), (1, 32, 64), (3, 48, 48), (8, 32, 32)])
def test_any_number_of_frames_and_sizes_that_divide(T, H, W):
    net, batch = build(Motion, **TINY).eval(), clip(1, T, H, W)
    flow, logits, codes = net(**batch)
    assert flow.shape == (1, T, 2, H, W) and logits.shape == (1, T, 1, H, W)
    assert codes.shape == (1, 2, 6)
    again = net(**batch)
    for a, b in zip((flow, logits, codes), again, strict=True):
        assert a.isfinite().all() and torch.equal(a, b)
    for cls in GENERATORS:
        video = build(cls, width=4, downs=2, blocks=1, norm="group")(
            batch["video"][:, 0], flow, logits.sigmoid()
        )
        assert video.shape == (1, T, 3, H, W) and video.abs().max() <= 1


def test_sizes_that_do_not_divide_are_refused():
    net = build(AppearanceEncoder, **TINY)
    for H, W in ((40, 64), (16, 64)):
        with pytest.raises(ValueError, match=f"multiples of 16 px, got {H} x {W}; choose fewer"):
            net(torch.zeros(1, 3, H, W), torch.zeros(1, 21, H, W))
    with pytest.raises(ValueError, match="video: expected 6 frames, got 5"):
        Discriminator(6, width=4, levels=3)(torch.zeros(1, 5, 3, 32, 64))
    with pytest.raises(ValueError, match="norm: expected batch or group, got 'layer'"):
        SparseEncoder(**TINY, norm="layer")


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_all_parameters_learn(norm):
    net = build(Motion, **TINY, norm=norm)
    batch = clip(T=2)
    sum(out.square().mean() for out in net(**batch)).backward()
    parts = [("motion", net)]
    for cls in GENERATORS:
        maker = build(cls, width=4, downs=2, blocks=1, norm=norm)
        maker(batch["video"][:, 0], batch["flow"], batch["visible"]).square().mean().backward()
        parts.append((cls.__name__, maker))
    for frames in (1, 3):
        critic = build(Discriminator, frames=frames, width=4, levels=3, norm=norm)
        logits, features = critic(batch["video"])
        (logits.square().mean() + sum(f.mean() for f in features)).backward()
        parts.append((f"critic of {frames}", critic))
    for part, module in parts:
        for name, p in module.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), f"{part}: {name}"
            assert p.grad.any(), f"{part}: {name}"


def test_with_group_norm_clips_do_not_touch_each_other():
    net, batch = build(Motion, **TINY), clip()
    other = {k: torch.cat([v[:1], v[1:].flip(-1)]) for k, v in batch.items()}
    for a, b in zip(net(**batch), net(**other), strict=True):
        assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


def test_flow_starts_from_that_of_the_objects():
    for residual in (True, False):
        net, batch = build(Motion, **TINY, residual=residual), clip()
        nn.init.zeros_(net.decoder.flow[-1].weight)
        nn.init.zeros_(net.decoder.flow[-1].bias)
        assert torch.equal(net(**batch)[0], batch["flow"] * residual)


@pytest.mark.parametrize("cls", GENERATORS)
def test_a_frame_is_made_of_its_own_flow(cls):
    """Time is folded into the batch and taken out again in the same order."""
    net, batch = build(cls, width=4, downs=2, blocks=1).eval(), clip()
    frame = batch["video"][:, 0]
    video = net(frame, batch["flow"], batch["visible"])
    for t in range(5):
        alone = net(frame, batch["flow"][:, t : t + 1], batch["visible"][:, t : t + 1])
        torch.testing.assert_close(video[:, t : t + 1], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cls", GENERATORS)
def test_frame_0_is_encoded_once_for_all_frames(cls):
    net, batch, sizes = build(cls, width=4, downs=2, blocks=1), clip(), []
    net.encoder.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    net(batch["video"][:, 0], batch["flow"], batch["visible"])
    assert sizes == [2]


def test_what_is_not_visible_is_not_taken_from_frame_0():
    net, batch = build(FeatureWarpGenerator, width=4, downs=2, blocks=1).eval(), clip()
    frame, flow, hidden = batch["video"][:, 0], batch["flow"], torch.zeros_like(batch["visible"])
    assert torch.equal(net(frame, flow, hidden), net(-frame, -flow, hidden))
    video, ones = net(frame, flow, hidden), torch.ones_like(hidden)
    assert torch.equal(blend(video, frame, flow, hidden), video)
    still = blend(video, frame, torch.zeros_like(flow), ones)
    torch.testing.assert_close(still, frame[:, None].expand(2, 5, 3, 32, 64))


def test_a_clip_without_motion_has_equal_frames():
    batch = clip()
    flow, visible = torch.zeros_like(batch["flow"]), torch.ones_like(batch["visible"])
    for cls in GENERATORS:
        video = build(cls, width=4, downs=2, blocks=1).eval()(batch["video"][:, 0], flow, visible)
        torch.testing.assert_close(video, video[:, :1].expand_as(video))


def test_critics_judge_frames_by_themselves_or_together():
    video = clip()["video"]
    changed = video.clone()
    changed[0, 3] *= -1
    for frames, touched in ((1, 3), (6, 0)):
        net = build(Discriminator, frames=frames, width=4, levels=3).eval()
        (a, _), (b, _) = net(video), net(changed)
        rows = (a != b).flatten(1).any(1).nonzero().flatten().tolist()
        assert rows == [touched]
    norm = torch.linalg.matrix_norm(net.out.weight.detach().flatten(1), 2)
    torch.testing.assert_close(norm, torch.ones(()), atol=1e-3, rtol=0)


def test_a_posterior_is_sampled_with_given_noise():
    mean, log_variance, eps = noise(2, 8), noise(2, 8, seed=1), noise(2, 8, seed=2)
    assert torch.equal(sample(mean, log_variance, torch.zeros(2, 8)), mean)
    expected = torch.distributions.Normal(mean, (log_variance / 2).exp())
    torch.testing.assert_close(
        sample(mean, log_variance, eps), expected.mean + eps * expected.scale
    )


def test_codes_of_other_numbers_of_frames_lie_between():
    net = build(LatentCode, **TINY, z_dim=8).eval()
    z, inner = noise(1, 8), noise(1, 16, 2, 4)
    five, nine = net(z, inner, 5), net(z, inner, 9)
    torch.testing.assert_close(nine[:, :, ::2], five)
    torch.testing.assert_close(nine[:, :, 1], (five[:, :, 0] + five[:, :, 1]) / 2)


def test_a_spade_block_is_that_of_the_release():
    """Spec 2.7: (SPADE norm, LReLU, Conv3) twice, beside (SPADE norm, LReLU, Conv1)."""
    block = build(SpadeBlock, cin=6, cout=4, maps=5)
    x, maps = noise(2, 6, 8, 8), noise(2, 5, 8, 8, seed=1)

    def rectified(norm: nn.Module, x: Tensor) -> Tensor:
        y = norm(x, maps)
        return y.where(y > 0, 0.2 * y)

    h = block.conv1(rectified(block.norm1, x))
    wanted = block.conv2(rectified(block.norm2, h)) + block.shortcut(rectified(block.norm3, x))
    torch.testing.assert_close(block(x, maps), wanted)


def test_what_differs_from_the_release_is_named_where_it_is_made():
    for made in (AppearanceEncoder.objects, warp):
        assert "Own\n        choice" in made.__doc__ or "Own choice" in made.__doc__
    x = noise(1, 3, 8, 16)
    assert torch.equal(warp(x, torch.zeros(1, 2, 8, 16)), x)
