"""Workers that are spawned, as on macOS and Windows: each data set reaches them through pickle."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import torch
from shards import write_shards
from torch.utils.data import DataLoader, Dataset

import gen.data
from conftest import ROOT
from gen.data.base import _obey_parent
from pictures import write, zipped
from runs import rows

NAMES = [f"{split}/{domain}/{k}.png" for split in ("train", "val") for domain in "ab"
         for k in range(3)]  # fmt: skip
FEW = dict(batch_size=2, num_workers=1)


def images(folder):
    """Data sets of images: drawn, in a folder, a zip and shards, and codes."""
    root = write(folder / "images", NAMES)
    zipped(root, folder / "images.zip")
    shards = write_shards(root, folder / "shards", 10**9)
    sources = {"folder": root, "zip": folder / "images.zip", "shards": shards}
    found = {k: gen.data.Domains(root=str(v), img_size=24, **FEW) for k, v in sources.items()}
    return found | {
        "drawn": gen.data.Heads(img_size=32, train_images=8, val_images=4, **FEW),
        "classes": gen.data.Classes(root=str(root), img_size=24, **FEW),
        "codes": gen.data.Codes(z_dim=4, batch_size=2),
    }


class Each(Dataset):
    """Element 0 of each of several data sets."""

    def __init__(self, parts: list) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, k: int):
        return self.parts[k][0]


def first(batch: list):
    return batch[0]


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_every_data_set_reaches_a_spawned_worker(tmp_path):
    cv2.setNumThreads(1)
    modules = images(tmp_path) | {k: make(tmp_path) for k, make in rows("SPAWNED").items()}
    parts = {}
    for name, data in modules.items():
        parts |= {f"{name}, train": data.train_dataloader().dataset, f"{name}, val": data.val}
    each = Each([*parts.values()])
    how = dict(num_workers=1, worker_init_fn=_obey_parent, multiprocessing_context="spawn")
    spawned = DataLoader(each, batch_size=1, collate_fn=first, **how)
    found = dict(zip(parts, spawned, strict=True))
    assert len(found) >= 12
    assert [name for k, name in enumerate(parts) if not same(found[name], each[k])] == []


def test_a_worker_of_a_fork_server_ends_when_its_parent_says_so():
    """Python 3.14 starts workers so on Linux: their system's parent is the server."""
    code = "import test_spawn; test_spawn.obey_parent_of_a_fork_server()"
    paths = os.pathsep.join(
        [str(ROOT), str(ROOT / "tests"), str(ROOT / "data_prep"), str(Path(__file__).parent)]
    )
    more = {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}  # no threads of libraries in the worker
    subprocess.run([sys.executable, "-c", code], env=os.environ | more, check=True, timeout=300)


def obey_parent_of_a_fork_server():
    how = dict(num_workers=1, worker_init_fn=_obey_parent, multiprocessing_context="forkserver")
    batches = iter(DataLoader(Each([[0], [1]]), batch_size=1, collate_fn=first, **how))
    assert next(batches) == 0
    [worker] = batches._workers
    os.kill(worker.pid, signal.SIGINT)
    child = subprocess.run(["kill", "-TERM", str(worker.pid)])  # from another process
    worker.join(1)
    assert child.returncode == 0 and worker.is_alive()
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0
    batches._shutdown_workers()
