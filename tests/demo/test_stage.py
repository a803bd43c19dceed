"""The component of the demo in which objects are dragged: what it is given."""

import pytest
import torch

pytest.importorskip("gradio", reason="the extra demo is not installed")

from gen.demo import stage
from gen.inference import scenes


def test_a_scene_says_whose_each_px_is():
    still = scenes.drawn(0, (32, 64), 6)
    shown = stage.scene(still)
    assert len(shown["ids"]) == 32 * 64 and (shown["width"], shown["height"]) == (64, 32)
    for k, id_ in enumerate(shown["numbers"]):
        mine = [letter == chr(49 + k) for letter in shown["ids"]]
        assert torch.equal(torch.tensor(mine), (still.instance == id_).flatten())
