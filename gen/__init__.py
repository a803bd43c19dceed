"""gen: smooth image and video generation research in PyTorch Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gen.methods.base import Method

__version__ = "0.1.0"


def load(path: str | Path, device: str = "cpu") -> Method:
    """A trained method, ready for inference, from a `.safetensors` or a Lightning `.ckpt` file.

    `method.translate(x, y_trg, z=...)` and its kin run on the averaged weights. Nothing in the file
    is executed, and it can only name methods of this package.

    Raises:
        gen.weights.WeightsError: The file is not such a checkpoint; says what was expected.
    """
    from gen.checkpoint import load

    return load(path).to(device).eval()
