"""Where a run shows its values and pictures: TensorBoard, and Weights & Biases offline."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gen.cli import main
from gen.files import cache_dir
from runs import arguments, fit, losses

MEASURED = [
    "--trainer.callbacks=Samples", "--trainer.callbacks.every_n_steps=1",
    "--trainer.callbacks+=Evaluate", "--trainer.callbacks.max_sources=2",
    "--trainer.callbacks.metrics=[translation]", "--trainer.limit_val_batches=1",
    "--trainer.val_check_interval=2",
]  # fmt: skip
METRIC = "val/latent/content_lpips_alex"


def pictures(run: Path) -> list[np.ndarray]:
    """The grids that `Samples` wrote."""
    return [np.asarray(Image.open(path)) for path in sorted((run / "samples").glob("*.png"))]


def test_tensorboard_has_the_values_and_the_pictures(tmp_path, lpips_cache):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    fit("StarGAN", tmp_path, "--logger=tensorboard", *MEASURED, steps=2)
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    (value,) = [float(row[METRIC]) for row in losses(tmp_path) if row.get(METRIC)]
    (scalar,) = found.Scalars(METRIC)
    assert scalar.value == pytest.approx(value, abs=1e-6)
    assert {"latent/adv", "d/real"} <= {*found.Tags()["scalars"]}
    shown = found.Images("samples")
    assert [image.step for image in shown] == [1, 2]
    for image, written in zip(shown, pictures(tmp_path), strict=True):
        sent = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
        assert np.array_equal(sent, written)


def test_wandb_has_the_pictures_and_a_table_of_the_rows(tmp_path, lpips_cache):
    pytest.importorskip("wandb")
    run, home = tmp_path / "run", tmp_path / "home"
    home.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    env |= dict(HOME=str(home), TMPDIR=str(home), GEN_CACHE=str(cache_dir()))
    more = ("--logger=wandb", "--wandb=offline", *MEASURED)
    command = [sys.executable, "-m", "gen", *arguments("StarGAN", run, *more, steps=2)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    (media,) = run.glob("wandb/offline-run-*/files/media")
    sent = [np.asarray(Image.open(path)) for path in sorted(media.rglob("samples_*.png"))]
    assert len(sent) == 2
    assert all(map(np.array_equal, sent, pictures(run)))
    (path,) = media.rglob("*.table.json")
    table = json.loads(path.read_text())
    assert table["columns"] == ["metric", "value", "low", "high", "count", "protocol"]
    (value,) = [float(row[METRIC]) for row in losses(run) if row.get(METRIC)]
    (row,) = [row for row in table["data"] if f"val/{row[0]}" == METRIC]
    assert row[1] == pytest.approx(value, abs=1e-6) and row[2] <= row[1] <= row[3]


@pytest.mark.parametrize("extra", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_told_with_its_extra(tmp_path, monkeypatch, extra):
    monkeypatch.setitem(sys.modules, extra, None)
    words = arguments("StarGAN", tmp_path / "x", f"--logger={extra}", steps=1)
    monkeypatch.setattr(sys, "argv", ["gen", *words])
    told = rf'expected the extra {extra}, got no {extra}; pip install -e "\.\[{extra}\]"'
    with pytest.raises(SystemExit, match=told):
        main()
    assert not (tmp_path / "x").exists()
