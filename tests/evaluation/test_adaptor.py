"""Models that are not ours take the test of Movers, as functions."""

import json
import re
import sys

import numpy as np
import pytest

from conftest import ROOT
from gen.data.movers import MoverClips
from gen.evaluation.adaptor import Adaptor
from gen.evaluation.animators import evaluate_animator
from gen.verbs import evaluate

SHAPE = (3, 32, 64)
CLIPS = MoverClips(777, 5, 8, 32, 64, frames=4, max_objects=4, branches=True)


def centres(masks):
    """Centres of the boxes of masks (M, H, W): (M, 2) px; NaN of an empty one."""
    found = np.full((len(masks), 2), np.nan)
    for k, mask in enumerate(masks):
        if mask.any():
            y, x = np.nonzero(mask)
            found[k] = (x.min() + x.max()) / 2, (y.min() + y.max()) / 2
    return found


def only_dragged(frame, masks, drags):
    """Nothing moves but what the user drags."""
    places = np.repeat(np.nan_to_num(centres(masks))[None], 3, axis=0)
    for k, path in drags.items():
        places[:, k] = path[1:]
    return places


def table(rows):
    return {row["metric"]: row["value"] for row in rows}


def test_who_moves_nothing_else_is_the_baseline():
    seen = []

    def animate(frame, masks, drags):
        seen.append((frame, masks, drags))
        return only_dragged(frame, masks, drags)

    found = table(evaluate_animator(Adaptor(animate, SHAPE), CLIPS, ["motion", "response"]))
    assert found["user/ade_px_dragged"] == pytest.approx(0, abs=1e-4)
    for name in ("fde_px", "ade_px", "fde_px_reacting"):
        assert found[f"user/{name}"] == pytest.approx(found[f"still/{name}"], abs=1e-4)
    for name in ("change_px_velocity", "change_px_removed"):
        assert found[f"user/{name}"] == pytest.approx(found[f"still/{name}"], abs=1e-4)
    assert found["user/moved_px_velocity"] == pytest.approx(0, abs=1e-4)
    frame, masks, drags = seen[0]
    assert frame.dtype == np.uint8 and frame.shape == (32, 64, 3)
    assert masks.dtype == bool and masks.shape == (4, 32, 64)
    for _, masks, drags in seen:
        for k, path in drags.items():
            assert path.shape == (4, 2)
            assert path[0] == pytest.approx(centres(masks)[k], abs=0.51)


def knows(frame, masks, drags):
    """Recognises a clip by its first frame and its drag, and shows it."""
    for i in range(len(CLIPS)):
        clip = CLIPS[i]
        video = ((clip["video"] + 1) * 127.5).round().byte().movedim(1, 3).numpy()
        if (video[0] == frame).all() and follows(clip, drags):
            return video[1:]
    raise AssertionError("no such clip")


def follows(clip, drags):
    from gen.ops.motion import move_boxes

    half = np.array([63 / 2, 31 / 2])
    ways = (1 + move_boxes(clip["boxes"][0], clip["theta"])[..., :2].numpy()) * half  # (T, M, 2)
    return all(np.allclose(ways[:, k], path[1:], atol=1e-3) for k, path in drags.items())


def test_objects_of_a_video_are_found_by_their_looks(lpips_cache):
    rows = evaluate_animator(Adaptor(knows, SHAPE), CLIPS, count=4, samples=1)
    found = table(rows)
    assert found["user/psnr"] > 55  # 8 bits
    assert "user/epe_px" not in found
    assert "user_posterior/psnr" not in found
    assert found["user/fde_px_reacting"] < 0.5 * found["still/fde_px_reacting"]


def test_wrong_answers_are_named():
    for wrong, told in (
        (lambda *_: np.zeros((3, 2)), r"places \(3, 4, 2\) or frames \(3, 32, 64, 3\) of uint8"),
        (lambda *_: np.zeros((3, 32, 64, 3)), "got .* of float64"),
        (lambda *_: np.full((3, 4, 2), np.nan), "expected finite numbers"),
    ):
        with pytest.raises(ValueError, match=told):
            evaluate_animator(Adaptor(wrong, SHAPE), CLIPS, ["motion"], count=1)
    with pytest.raises(ValueError, match="returns places; measure --metrics motion response"):
        evaluate_animator(Adaptor(only_dragged, SHAPE), CLIPS, ["frames"], count=1, samples=1)


PAGE = (ROOT / "docs/movers.md").read_text()


def test_the_example_of_the_page_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(compile(code, "docs/movers.md", "exec"), {"__name__": "mine"})
    printed = capsys.readouterr().out
    for name in re.findall(r"`(fde_px_velocity|change_px_\w+|moved_px_\w+|fde_px)`", PAGE):
        assert f"user/{name}" in printed
    still, user = (
        re.search(rf"{who}/change_px_velocity +([\d.]+)", printed)[1] for who in ("still", "user")
    )
    assert still == user


def test_the_numbers_of_the_page_are_those_of_the_card():
    rows = (ROOT / "checkpoints/click_to_move_movers.jsonl").read_text().splitlines()
    values = {row["metric"]: row["value"] for row in map(json.loads, rows)}
    table = PAGE.split("| px, 200 test scenes ")[1].split("\n\n")[0].splitlines()[2:]
    for line, name in zip(
        table, ("fde_px", "fde_px_velocity", "change_px_velocity", "change_px_removed"), strict=True
    ):
        cells = [cell.strip() for cell in line.split("|")[2:-1]]
        wanted = [
            values.get(f"{who}/{name}") for who in ("still", "velocity", "user", "user_previous")
        ]
        if name.startswith("change_px"):  # without interaction nothing changes
            wanted[1] = wanted[0]
        assert cells == ["–" if value is None else f"{value:.2f}" for value in wanted], name


STAYS = """
import numpy as np

class Thing: pass

def animate(frame, masks, drags):
    places = np.full((5, len(masks), 2), {x}, float)
    for k, path in drags.items():
        places[:, k] = path[1:]
    return places
"""


def test_a_function_is_evaluated_by_its_name_and_a_change_of_it_is_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "outside_model.py").write_text(STAYS.format(x=10))
    words = (
        "--function outside_model.animate --data movers --metrics motion --count 2 --out x.jsonl"
    )
    values = table(evaluate.measure(words.split()))
    assert values["user/ade_px_dragged"] == pytest.approx(0, abs=1e-3)
    (tmp_path / "outside_model.py").write_text(STAYS.format(x=20))
    with pytest.raises(ValueError, match="checkpoint"):
        evaluate.measure(words.split())
    for name, told in (
        ("outside_model.nobody", "expected package.name of a function, got outside_model.nobody"),
        ("outside_model.Thing", "expected a function, got outside_model.Thing, a type"),
        ("animate", "expected package.name of a function"),
    ):
        with pytest.raises(ValueError, match=told):
            evaluate.measure(["--function", name, *words.split()[2:]])
