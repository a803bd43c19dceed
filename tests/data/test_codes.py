"""Latents and codes as data: what is drawn, and files of them."""

import io
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gen.data import Codes

N, Z, L, D = 20, 6, 5, 3


def array(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.fixture
def written(tmp_path):
    """Writes an array (or bytes) in a file, and gives the data of it."""

    def write(content, name="codes.npy", **options):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix == ".safetensors":
            save_file({k: torch.as_tensor(v) for k, v in content.items()}, path)
        else:
            np.save(path, content)
        return Codes(**dict(z_dim=Z, batch_size=4, val_count=5, latents=str(path)) | options)

    return write


def test_latents_are_a_function_of_their_position():
    data = Codes(z_dim=6, batch_size=4, val_count=10)
    a, b = data.train[3]["z"], Codes(z_dim=6).train[3]["z"]
    assert torch.equal(a, b) and a.shape == (6,) and not torch.equal(a, data.train[4]["z"])
    assert not torch.equal(a, Codes(z_dim=6, seed=1).train[3]["z"])
    many = torch.cat([data.train[i]["z"] for i in range(500)])
    assert abs(many.mean()) < 0.1 and abs(many.std() - 1) < 0.1
    assert len(data.val) == 10 and not torch.equal(data.val[3]["z"], a)
    assert next(iter(data.train_dataloader()))["z"].shape == (4, 6)
    with pytest.raises(ValueError, match="expected val_count >= 1 and z_dim >= 0, got 1000 and -1"):
        Codes(z_dim=-1)
    with pytest.raises(ValueError, match="--data.z_dim: expected the width of a latent, got none"):
        Codes().setup("fit")


def test_the_width_of_latents_is_that_of_the_method():
    data, method = Codes(), SimpleNamespace(latent_dim=Z)
    data.trainer = SimpleNamespace(
        lightning_module=method, fast_dev_run=True, world_size=1, global_rank=0
    )
    data.setup("fit")
    assert data.train[0]["z"].shape == (Z,)
    other = Codes(z_dim=Z + 1)
    other.trainer = data.trainer
    with pytest.raises(ValueError, match=f"--data.z_dim: expected {Z}, .*, got {Z + 1}; leave it"):
        other.setup("fit")


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
@pytest.mark.parametrize("shape, name", [((N, Z), "z"), ((N, L, D), "ws")])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_of_a_file(written, kind, shape, name, dtype):
    rows = array(*shape, dtype=dtype)
    data = written(rows if kind == "npy" else {"any": rows}, f"codes.{kind}")
    expected = torch.from_numpy(rows.astype(np.float32))
    assert len(data.train) == N - 5 and len(data.val) == 5
    (val,) = data.val_dataloader()  # the last rows, in order
    assert set(val) == {name, "index"} and torch.equal(val[name], expected[-5:])
    drawn = torch.stack([data.train[p][name] for p in range(200)])
    assert drawn.dtype == torch.float32
    same = (drawn[:, None] == expected[None]).flatten(2).all(2)  # (200, N)
    assert same[:, : N - 5].any(0).all() and same.sum(1).eq(1).all() and not same[:, -5:].any()
    again = torch.stack([Codes(Z, 4, latents=data.latents, val_count=5).train[7][name]])
    assert torch.equal(again[0], drawn[7])
    other = Codes(Z, 4, seed=1, latents=data.latents, val_count=5).train
    assert not torch.equal(torch.stack([other[p][name] for p in range(200)]), drawn)
    assert next(iter(data.train_dataloader()))[name].shape == (4, *shape[1:])


def test_the_file_is_not_changed(written):
    data = written(array(N, Z))
    before = open(data.latents, "rb").read()
    data.train[0]["z"].zero_()
    data.rows.zero_()
    assert open(data.latents, "rb").read() == before


class Evil:
    def __reduce__(self):
        return pytest.fail, ("executed",)


def npz():
    file = io.BytesIO()
    np.savez(file, a=array(N, Z))
    return file.getvalue()


def saved(content):
    file = io.BytesIO()
    np.save(file, content, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    "content, told",
    [
        (array(N, Z + 1), r"shape \(N, 6\), .*z_dim 6, or .*; got float32 of \(20, 7\)"),
        (array(N), r"got float32 of \(20,\)"),
        (array(N, 1, 2, 3), r"got float32 of \(20, 1, 2, 3\)"),
        (array(0, Z), "expected"),
        (array(N, 0, D), "expected"),
        (np.float32(1), r"got float32 of \(\)"),
        (np.zeros((N, Z), np.int64), "expected floats .* got int64"),
        (np.zeros((N, Z), complex), "expected floats .* got complex128"),
        (np.zeros((N, Z), "U3"), "expected a .npy .* got TypeError"),
        (array(5, Z), "expected more than val_count = 5 rows, got 5; lower --data.val_count"),
        (np.where(np.arange(N)[:, None] == 13, np.nan, array(N, Z)), "others in row 13$"),
        (np.where(np.arange(N)[:, None] == 3, np.inf, array(N, Z)), "others in row 3$"),
        (b"", "expected a .npy or .safetensors file of one array of floats, got EOFError"),
        (b"text", "expected a .npy or .safetensors"),
        (pickle.dumps(Evil()), "expected a .npy or .safetensors"),
        (saved(np.array([Evil()] * N, object)), "expected a .npy or .safetensors"),
        (saved(array(N, Z))[:-4], "expected a .npy or .safetensors"),
        (npz(), "expected a .npy or .safetensors"),
    ],
)
def test_other_files_are_refused(written, content, told):
    with pytest.raises(ValueError, match=rf"(?s)codes.npy: .*{told}"):
        written(content).setup("fit")


@pytest.mark.parametrize("content", [{"a": array(N, Z), "b": array(N, Z)}, {}, b"", b"x" * 99])
def test_other_safetensors_are_refused(written, content):
    with pytest.raises(ValueError, match="x.safetensors: expected a .npy or .safetensors file of"):
        written(content, "x.safetensors").setup("fit")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.npy"):
        Codes(latents=str(tmp_path / "none.npy")).setup("fit")
