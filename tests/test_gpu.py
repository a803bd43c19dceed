"""What a GPU would refuse or wait for, found without one: see `fake_gpu`."""

import pytest
import torch

from fake_gpu import DeviceError, Fake, fake_gpu
from gen.methods.spatial_entropy import SpatialEntropy
from gen.weights import save_safetensors
from runs import VIT


def test_the_fake_gpu_refuses_what_a_gpu_refuses():
    with fake_gpu() as gpu:
        x = torch.randn(4, 3, device=gpu.device, requires_grad=True)
        (x * x).sum().backward()
        assert isinstance(x.grad, Fake) and x.grad.device == gpu.device
        generator = torch.Generator().manual_seed(0)
        for wrong in (
            lambda: x + torch.ones(3),
            lambda: torch.equal(x, torch.ones(4, 3)),
            lambda: torch.randn(3, generator=generator, device=gpu.device),
            lambda: torch.cat([x, torch.ones(1, 3)]),
            lambda: x.detach().numpy(),
        ):
            with pytest.raises(DeviceError):
                wrong()


def test_the_fake_gpu_counts_what_makes_the_host_wait():
    with fake_gpu() as gpu:
        x, on_host = torch.ones(4, 3, device=gpu.device), torch.ones(4, 3)
        pinned = on_host.pin_memory()
        free = (
            lambda: pinned.to(gpu.device, non_blocking=True) + x * 2,
            lambda: x.to("cpu", non_blocking=True),
            lambda: x[1:, 0] + x.new_zeros(3) + torch.full((), 2.0, device=gpu.device),
            lambda: torch.where(x > 0, x, 0)[torch.arange(2, device=gpu.device)],
        )
        for call in free:
            call()
        assert not gpu.waits
        for call in (
            lambda: on_host.to(x),
            lambda: on_host.to(gpu.device, non_blocking=True),
            lambda: pinned.to(gpu.device),
            lambda: x.cpu(),
            lambda: float(x.sum()),
            lambda: bool((x > 0).all()),
            lambda: x.tolist(),
            lambda: x[[0, 1]],
            lambda: x[torch.tensor([0, 1])],
            lambda: x[x > 0],
            lambda: x.new_tensor([1.0, 2.0]),
            lambda: torch.tensor([1.0], device=gpu.device),
            lambda: x.nonzero(),
            lambda: x.unique(),
            lambda: x.copy_(on_host),
        ):
            gpu.waits.clear()
            call()
            assert gpu.waits.total() == 1, (gpu.waits, call.__code__.co_firstlineno)


def test_pretrained_weights_start_a_run_on_a_gpu(tmp_path):
    path = tmp_path / "w.safetensors"
    save_safetensors(SpatialEntropy(**VIT, seed=1).net.state_dict(), path, {})
    method = SpatialEntropy(**VIT, pretrained_file=str(path), mixup=0.0, cutmix=0.0)
    given = SpatialEntropy(**VIT, seed=1).net.state_dict()
    with fake_gpu() as gpu:
        gpu.take(method).start()
    for network in (method.net, method.ema.module["net"]):
        found = network.state_dict()
        assert all(torch.equal(found[k].inner, v) for k, v in given.items() if "head" not in k)
