"""Metrics in two processes, of which one may have no update."""

import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from gen.metrics.smoothness import InterpolationSmoothness
from gen.metrics.translation import TranslationScores


class Toy(nn.Module):
    """LPIPS without weights: mean squared differences of pixels."""

    net = "toy"

    def features(self, x):
        return [x.flatten(1)]

    def distance(self, a, b):
        return (a[0] - b[0]).square().mean(1)


def noise(*shape, seed=0):
    return torch.rand(*shape, 3, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def smoothness():
    return InterpolationSmoothness(Toy(), frames=3, resize=None), (noise(4, 3),)


def scores(paired=False):
    x, outputs = noise(4), noise(4, 2, seed=1)
    return TranslationScores(Toy(), 2), (x, outputs, *([noise(4, seed=2)] if paired else []))


CASES = {"smoothness": smoothness, "scores": scores, "paired": lambda: scores(paired=True)}


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/init", rank=rank, world_size=2)
    found = {}
    for name, make in CASES.items():
        for dtype in (torch.float32, torch.float64):
            metric, arguments = make()
            if rank == 0:  # the other has seen nothing
                metric.update(*(x.to(dtype) for x in arguments))
            found[name, dtype] = {key: value.item() for key, value in metric.compute().items()}
        metric, _ = make()
        with pytest.raises(ValueError, match=r"expected count > 0, got no update\(\)"):
            metric.compute()
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_a_process_without_update_gets_the_values_of_the_others(tmp_path):
    run, end = mp.spawn(work, (str(tmp_path),), nprocs=2, join=False), time.monotonic() + 400
    try:
        while not run.join(timeout=10):
            assert time.monotonic() < end, "a process waits for ever"
    finally:
        for process in run.processes:
            process.kill()
    for name, make in CASES.items():
        metric, arguments = make()
        metric.update(*arguments)
        alone = {key: value.item() for key, value in metric.compute().items()}
        assert len(alone) > 2
        for rank in (0, 1):
            for dtype in (torch.float32, torch.float64):
                found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)[name, dtype]
                assert found == pytest.approx(alone, rel=1e-5)
