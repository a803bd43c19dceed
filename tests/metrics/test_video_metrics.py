"""Metrics of video on given pixels, and where an object is found."""

import pytest
import torch

from gen.metrics.video import MOST_DB, endpoint_error, ghost, locate, lpips, mean_over, psnr, ssim


def video(seed=0, shape=(2, 3, 3, 32, 40)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def left(x, of=20):
    """A mask of the first columns."""
    mask = torch.zeros_like(x[:, :, :1])
    mask[..., :of] = 1
    return mask


def test_psnr_counts_the_pixels_of_the_mask_alone():
    x, mask = video(), left(video())
    y = x + 0.2 * mask
    assert psnr(y, x, mask) == pytest.approx(10 * torch.tensor(4 / 0.04).log10().expand(2))
    half = psnr(y, x, torch.ones_like(mask))
    assert half == pytest.approx(psnr(y, x, mask) + 10 * torch.tensor(2.0).log10())
    assert (psnr(y, x, 1 - mask) == MOST_DB).all()
    worse = y.clone()
    worse[0] += 0.1
    assert psnr(worse, x, mask)[1] == psnr(y, x, mask)[1]  # clips do not mix


def test_an_empty_mask_has_no_value():
    x = video()
    mask = left(x)
    mask[0] = 0
    net = Pixels()
    values = psnr(x, -x, mask), ssim(x, -x, mask), lpips(net, x, -x, mask)
    for value in (*values, endpoint_error(x[:, :, :2], x[:, :, 1:], mask), mean_over(x, mask)):
        assert value[0].isnan() and value[1].isfinite()


def test_ssim_of_equal_pixels_is_one_and_sees_where_they_differ():
    x = video()
    y = x.clone()
    y[..., 20:] = -y[..., 20:]
    assert ssim(x, x, left(x)) == pytest.approx(torch.ones(2), abs=1e-6)
    assert ssim(y, x, left(x, 14)) == pytest.approx(torch.ones(2), abs=1e-6)  # windows of 11 px
    assert (ssim(y, x, 1 - left(x)) < 0.2).all()


class Pixels(torch.nn.Module):
    def forward(self, x, y):
        return (x - y).square().mean((1, 2, 3))


def test_lpips_sees_no_other_pixels():
    x, y = video(), video(1)
    changed = y.clone()
    changed[..., 20:] = 0
    net, mask = Pixels(), left(x)
    assert torch.equal(lpips(net, y, x, mask), lpips(net, changed, x, mask))
    assert (lpips(net, y, x, 1 - mask) != lpips(net, changed, x, 1 - mask)).all()


def test_endpoint_error_in_px():
    flow, target = torch.zeros(2, 3, 2, 8, 8), torch.zeros(2, 3, 2, 8, 8)
    flow[:, :, 0], flow[:, :, 1] = 3, 4
    target[1] = flow[1]
    mask = torch.ones(2, 3, 1, 8, 8)
    assert endpoint_error(flow, target, mask).tolist() == [5, 0]


@pytest.mark.parametrize("shift", [(0, 0), (7, -3), (-9, 4), (12, 0)])
def test_locate_finds_where_an_object_went(shift):
    """The last has gone out of the image by half."""
    first, mask = video(2)[0, 0], torch.zeros(32, 40, dtype=torch.bool)
    mask[12:20, 22:32] = True
    mask[12:15, 22:25] = False
    dx, dy = shift
    frame = video(3)[0, 0]
    rows, columns = mask.nonzero(as_tuple=True)
    inside = columns + dx < 40
    frame[:, rows[inside] + dy, columns[inside] + dx] = first[:, rows[inside], columns[inside]]
    found = locate(first, mask, frame + 0.01 * video(4)[0, 0])
    assert found.tolist() == [dx, dy]


def test_locate_needs_an_object():
    with pytest.raises(ValueError, match="empty"):
        locate(video()[0, 0], torch.zeros(32, 40, dtype=torch.bool), video()[0, 1])


def test_a_ghost_is_the_share_of_an_object_that_is_left():
    true, first = video(5), video(6)[:, 0]
    mask = torch.zeros_like(true[:, :, :1])
    mask[:, :, :, 4:12, 5:20] = 1
    for share in (0.0, 0.3, 1.0):
        made = true + share * (first[:, None] - true)
        found = ghost(made + 5 * (1 - mask), true, first, mask)  # elsewhere nothing counts
        torch.testing.assert_close(found.float(), torch.full((len(true),), share))
    across = first[:, None] - true  # an error that does not look like the object
    across = torch.stack([across[:, :, 1], -across[:, :, 0], 0 * across[:, :, 0]], 2)
    torch.testing.assert_close(
        ghost(true + across, true, first, mask).float(), torch.zeros(len(true))
    )
    assert ghost(true, true, first, 0 * mask).isnan().all()
