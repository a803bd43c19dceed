"""Evaluation of an animator: who knows all is right, who knows nothing as wrong as he must be."""

import json
import runpy
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import default_collate

from conftest import ROOT
from cut import check_goes_on
from gen.data.clips import Clips
from gen.data.movers import MoverClips
from gen.evaluation import animators
from gen.evaluation.animators import GROUPS, evaluate_animator, possible
from gen.evaluation.results import to_json, to_table
from gen.files import sha256
from gen.methods.click_to_move import ClickToMove
from gen.networks.click_to_move.animator import Animation, true_camera
from gen.ops.motion import identity, move_boxes, warp
from rows_click_to_move import CLICK_TO_MOVE
from runs import ship

SHAPE = dict(height=32, width=64, frames=4, max_objects=4)
CLIPS = MoverClips(777, 5, 6, **SHAPE, branches=True)
FRAMES = ("psnr", "ssim", "lpips_alex")
SIDES = ("nobody", "user", "user_camera", "user_posterior", "oracle")
X = torch.tensor([1.0, 0.0])[:, None, None]


class Knows(torch.nn.Module):
    """Recognises a clip by its first frame and its dragged objects, and repeats it."""

    task = "animator"
    takes = frozenset()
    shape, hparams = (3, 32, 64), SimpleNamespace(camera=0.5)

    def __init__(self, clips=CLIPS):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)
        self.clips = [clips[i] for i in range(len(clips))]
        self.asked = []

    def find(self, scene, motion, i):
        """Branches look alike in the first frame; the way of the dragged object tells which."""
        same = [c for c in self.clips if torch.equal(c["video"][0], scene.frame[i])]
        user = motion.user[i]
        right = [c for c in same if torch.equal(c["theta"][:, user], motion.theta[i][:, user])]
        return right[0]

    def predict_motion(self, scene, motion, object_z):
        self.asked.append(motion.user.sum(1).tolist())
        return torch.stack([self.find(scene, motion, i)["theta"] for i in range(len(object_z))])

    def animate(self, scene, motion, z, object_z):
        clips = [self.find(scene, motion, i) for i in range(len(z))]
        video, flow, visible, theta = (
            torch.stack([clip[name] for clip in clips])
            for name in ("video", "flow", "visible", "theta")
        )
        boxes = move_boxes(scene.boxes, theta)
        return Animation(video[:, 1:], flow, visible, theta, boxes)

    def encode(self, clips):
        return torch.zeros(len(clips["video"]), 8)

    def latents(self, shape, seed):
        return torch.zeros(shape[0], 8), torch.zeros(*shape, 3, 4)


class Still(Knows):
    """Nobody but the dragged object moves."""

    hparams = {"edges": False}

    def predict_motion(self, scene, motion, object_z):
        theta = motion.theta
        return theta.where(motion.user[:, None, :, None, None], identity(theta))


def values(rows):
    return {row["metric"]: row["value"] for row in rows}


def test_who_knows_all_is_right():
    found = values(evaluate_animator(Knows(), CLIPS, ["motion", "response"], batch_size=4))
    change = [f"user/change_px_{branch}" for branch in ("velocity", "removed")]
    more = "user/fde_px_velocity", "user/fde_px_reacting", *change
    for name in ("user/ade_px", "user/fde_px", *more):
        assert found[name] == pytest.approx(0, abs=1e-4), name
    assert found["still/fde_px"] > 1
    for name in ("change_px_velocity", "change_px_removed", "fde_px_reacting"):
        assert found[f"still/{name}"] > 0.5
    assert 0 < found["velocity/fde_px"] < found["still/fde_px"]
    assert max(found["user/moved_px_velocity"], found["user/moved_px_removed"]) < 0.1


def test_without_reactions_the_error_is_the_reaction():
    found = values(evaluate_animator(Still(), CLIPS, ["motion", "response"]))
    for name, value in found.items():
        if name.startswith("user/") and name.replace("user", "still") in found:
            assert value == pytest.approx(found[name.replace("user", "still")], abs=1e-5)
    assert found["user/moved_px_velocity"] == found["user/moved_px_removed"] == 0
    assert found["user/fde_px_reacting"] > 0.5 and found["user/fde_px_velocity"] > 0.5


def test_a_graph_without_edges_stands_beside(tmp_path):
    (tmp_path / "still").write_bytes(b"x")
    rows = evaluate_animator(
        Knows(), CLIPS, ["motion", "response"], no_edges=Still(),
        no_edges_checkpoint=tmp_path / "still",
    )  # fmt: skip
    assert {row["no_edges_sha256"] for row in rows} == {sha256(tmp_path / "still")}
    found = values(rows)
    alone = values(evaluate_animator(Still(), CLIPS, ["motion", "response"]))
    rows = [name for name in found if name.startswith("no_edges/")]
    assert {"no_edges/ade_px", "no_edges/fde_px", "no_edges/fde_px_velocity"} <= set(rows)
    for name in rows:
        assert found[name] == alone[name.replace("no_edges", "user")] != found["user/ade_px"]
    assert max(found["user/ade_px_dragged"], found["user/fde_px_dragged"]) < 1e-4


@pytest.mark.parametrize("hparams, got", [({"edges": True}, "one with edges"), ({}, "Linear")])
def test_a_graph_with_edges_is_none_without(hparams, got):
    other = Still() if hparams else torch.nn.Linear(1, 1)
    other.hparams = hparams
    with pytest.raises(ValueError, match=f"no_edges: expected a ClickToMove .*false, got {got}"):
        evaluate_animator(Knows(), CLIPS, ["motion"], no_edges=other)


def test_who_has_no_px_is_not_looked_for(lpips_cache):
    class Tiny(MoverClips):
        def __getitem__(self, index):
            clip = super().__getitem__(index)
            clip["instance"][:, clip["instance"][0] == 1 + clip["target"]] = 0
            return clip

    clips = Tiny(777, 5, 2, **SHAPE, branches=True)
    found = values(evaluate_animator(Knows(clips), clips, ["frames"], samples=1))
    assert "user/psnr" in found and "user/found_px" not in found


def test_reactions_where_there_are_none_are_seen():
    class Nervous(Still):
        def predict_motion(self, scene, motion, object_z):
            theta = super().predict_motion(scene, motion, object_z).clone()
            theta[..., 0, 2] += 0.1 * motion.user.any(1).float()[:, None, None]
            return theta

    found = values(evaluate_animator(Nervous(), CLIPS, ["response"]))
    assert found["user/moved_px_velocity"] == 0  # one is dragged in both
    assert 1 < found["user/moved_px_removed"] < 3.2  # 0.1 of half the width


def test_one_object_is_dragged_the_target():
    knows = Knows()
    evaluate_animator(knows, CLIPS, ["motion"], batch_size=6)
    assert knows.asked == [[1] * 6, [0] * 6]


def test_frames_of_the_truth(lpips_cache):
    rows = evaluate_animator(Knows(), CLIPS, ["frames"], count=3, samples=2)
    found = values(rows)
    best = {"psnr": 60, "ssim": 1, "lpips_alex": 0, "epe_px": 0}
    for side in ("user", "user_camera", "user_posterior", "oracle"):
        for name, value in best.items():
            assert found[f"{side}/{name}"] == pytest.approx(value, abs=1e-4), (side, name)
        assert found[f"{side}/found_px"] == found["real/found_px"] < 1
    for name in FRAMES:
        worse = min if name != "lpips_alex" else max
        assert worse(found[f"copy/{name}"], found[f"warp/{name}"]) == found[f"copy/{name}"]
        assert found[f"copy/{name}"] != found[f"copy/{name}_visible"]
    assert found["warp/psnr_visible"] > found["warp/psnr_revealed"]
    assert found["user_best2/psnr"] == 60 and found["user_best2/lpips_alex"] < 1e-6
    assert found["user/ps_t4_alex_native"] == found["real/ps_t4_alex_native"]
    for row in rows:
        low, high = row["ci95"]
        assert low <= row["value"] <= high and row["count"] == len(row["values"]) <= 3
        assert row["protocol"].endswith("3 frames after the first, 32 x 64 px")


class Faster(Clips):
    """One clip, in which all objects have gone 1, 3, 6 px to the right."""

    def __len__(self):
        return 1

    def __getitem__(self, i):
        theta = torch.eye(2, 3).repeat(3, 4, 1, 1)
        theta[..., 0, 2] = torch.tensor([[-1.0], [-3.0], [-6.0]]) / 31.5
        return CLIPS[0] | {"theta": theta}


def test_velocity_goes_on_as_it_began():
    found = values(evaluate_animator(Knows(Faster()), Faster(), ["motion"]))
    assert found["still/fde_px"] == pytest.approx(6, abs=1e-4)
    assert found["velocity/fde_px"] == pytest.approx(3, abs=1e-4)  # at 1, 2, 3 px
    assert found["velocity/ade_px"] == pytest.approx((0 + 1 + 3) / 3, abs=1e-4)


class Difference(torch.nn.Module):
    """In place of LPIPS."""

    def __init__(self, net):
        super().__init__()

    def features(self, x):
        return x

    def distance(self, x, y):
        return (x - y).abs().mean((1, 2, 3))

    forward = distance


def test_what_each_side_is_told(monkeypatch):
    class Tells(Knows):
        """Its flow is off by 1 px an object that is dragged, 10 for the camera, 100 z."""

        def animate(self, scene, motion, z, object_z):
            clips = default_collate([self.find(scene, motion, i) for i in range(len(z))])
            led = motion.known & torch.isclose(motion.camera, true_camera(clips)).all((1, 2, 3))
            off = motion.user.sum(1) + 10 * led + 100 * z[:, 0]
            made = super().animate(scene, motion, z, object_z)
            return made._replace(flow=made.flow + off[:, None, None, None, None] * X)

        def encode(self, clips):
            return super().encode(clips) + 1

    monkeypatch.setattr("gen.evaluation.animators.LPIPS", Difference)
    found = values(evaluate_animator(Tells(), CLIPS, ["frames"], count=1, samples=1))
    told = {s: found[f"{s}/epe_px"] for s in SIDES}
    wanted = dict(zip(SIDES, (0, 1, 11, 101, CLIPS[0]["present"].sum().item()), strict=True))
    assert told == pytest.approx(wanted, abs=1e-3)


@pytest.fixture
def i3d_file(i3d, tmp_path, monkeypatch):
    monkeypatch.setattr("gen.metrics.fvd.SIZE_PX", 32)
    torch.save(i3d.state_dict(), tmp_path / "i3d.pt")
    return tmp_path / "i3d.pt"


def test_distance_of_all_videos(i3d_file):
    options = dict(metrics=["fvd"], i3d=i3d_file)
    rows = evaluate_animator(Knows(), CLIPS, **options, batch_size=6)
    found = values(rows)
    assert list(found) == [f"{side}/fvd_i3d400" for side in ("copy", "user", "oracle", "warp")]
    least = min(found["copy/fvd_i3d400"], found["warp/fvd_i3d400"])
    for side in ("user", "oracle"):  # which are the real ones
        assert abs(found[f"{side}/fvd_i3d400"]) < 1e-3 * least
    for row in rows:
        assert row["ci95"] is None and row["values"] == {} and row["count"] == 6
        assert row["i3d_sha256"] == sha256(i3d_file) and row["seconds"] > 0
        assert row["protocol"].startswith("6 videos against the real ones, 400 I3D logits at")
    assert "copy/fvd_i3d400" in to_table(rows) and len(to_json(rows).splitlines()) == 4
    assert values(evaluate_animator(Knows(), CLIPS, **options, batch_size=4)) == pytest.approx(
        found, rel=1e-4, abs=1e-4
    )


def test_of_the_distance_only_the_oracle_is_told_all(i3d_file):
    class Needs(Knows):
        """Nothing changes, unless all are dragged."""

        def animate(self, scene, motion, z, object_z):
            made = super().animate(scene, motion, z, object_z)
            every = (scene.present == motion.user).all(1)[:, None, None, None, None]
            return made._replace(video=made.video.where(every, scene.frame[:, None]))

    found = values(evaluate_animator(Needs(), CLIPS, ["fvd"], i3d=i3d_file, count=2))
    assert found["user/fvd_i3d400"] == pytest.approx(found["copy/fvd_i3d400"])
    assert abs(found["oracle/fvd_i3d400"]) < 1e-3 * found["copy/fvd_i3d400"]


def test_the_default_says_what_it_leaves_out(i3d_file, monkeypatch, caplog):
    monkeypatch.setattr("gen.evaluation.animators.GROUPS", ("motion", "response", "fvd"))
    rows = evaluate_animator(Knows(Tracked()), Tracked())
    assert not [row for row in rows if "fvd" in row["metric"] or "i3d_sha256" in row]
    assert "left out: fvd, which needs the weights of an I3D" in caplog.text
    assert "left out: response, which needs branches" in caplog.text
    caplog.clear()
    rows = evaluate_animator(Knows(Tracked()), Tracked(), i3d=i3d_file)
    assert {"user/ade_px", "user/fvd_i3d400"} <= set(values(rows)) and "fvd" not in caplog.text


def test_the_same_twice_in_blocks_of_any_size(lpips_cache):
    method = ClickToMove(**CLICK_TO_MOVE)
    first, again = (
        values(evaluate_animator(method, CLIPS, count=3, samples=2, batch_size=n)) for n in (2, 3)
    )
    assert first == pytest.approx(again, abs=1e-5) and len(first) > 80
    other = values(evaluate_animator(method, CLIPS, ["frames"], count=1, samples=1, seed=1))
    assert other["user/psnr"] != first["user/psnr"]  # latents
    shorter = evaluate_animator(method, CLIPS, ["motion"], count=2)
    longer = {r["metric"]: r for r in evaluate_animator(method, CLIPS, ["motion"], count=3)}
    for row in shorter:
        of_clip = longer[row["metric"]]["values"]
        assert all(of_clip[i] == pytest.approx(v, abs=1e-5) for i, v in row["values"].items())


class Tracked(Clips):
    """Clips as of a real video: no interaction is known, and what is out of view is unknown."""

    def __len__(self):
        return 2

    def __getitem__(self, i):
        clip = CLIPS[3 * i]
        kept = {k: v for k, v in clip.items() if k not in ("interaction", "branch", "target")}
        kept["theta"], kept["boxes"] = kept["theta"].clone(), kept["boxes"].clone()
        kept["boxes"][2:] = 0
        kept["theta"][1:] = torch.eye(2, 3)
        return kept


def test_who_is_out_of_view_does_not_count():
    assert possible(Tracked()) == ["motion", "frames"] and possible(CLIPS) == list(GROUPS[:3])
    found = values(evaluate_animator(Knows(Tracked()), Tracked(), ["motion"]))
    first = CLIPS[0]
    names = {f"{s}/ade_px" for s in ("still", "velocity", "nobody", "user")}
    assert set(found) == names | {"user/ade_px_dragged"}
    assert found["still/ade_px"] > 0.1 and found["user/ade_px"] == 0 and first["present"].any()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(metrics=["fid"]), "fid"),
        (dict(metrics="motion"), "motion"),
        (dict(samples=0), "samples"),
        (dict(count=0), "count"),
        (dict(batch_size=0), "batch_size"),
        (dict(clips=Tracked(), metrics=["response"]), "branches"),
        (
            dict(metrics=["motion", "fvd"]),
            "fvd: expected the weights of an I3D.*--i3d FILE; got none",
        ),
        (dict(metrics=["fvd"], i3d="x.pt", count=1), "at least 2 clips, got 1"),
        (dict(clips=MoverClips(777, 0, 1, 32, 64, 3, 4, branches=True)), r"\(3, 32, 64\)"),
    ],
)
def test_doors(options, message):
    options = dict(method=Knows(), clips=CLIPS) | options
    with pytest.raises(ValueError, match=message):
        evaluate_animator(**options)


def test_nan_is_an_error():
    class Broken(Still):
        def predict_motion(self, scene, motion, object_z):
            return super().predict_motion(scene, motion, object_z) * torch.nan

    with pytest.raises(ValueError, match="NaN"):
        evaluate_animator(Broken(), CLIPS, ["motion"])


def test_script(tmp_path, monkeypatch, capsys, i3d_file):
    path = ship(ClickToMove(**CLICK_TO_MOVE), tmp_path / "tiny.safetensors")
    options = [
        "--checkpoint",
        path,
        "--data",
        "movers",
        "--count",
        2,
        "--out",
        tmp_path / "o.jsonl",
        "--i3d",
        i3d_file,
    ]
    argv = ["evaluate.py", *map(str, options), "--metrics", "motion", "response", "fvd"]
    monkeypatch.setattr(sys, "argv", argv)
    runpy.run_path(str(ROOT / "scripts/evaluate.py"), run_name="__main__")
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert {row["metric"] for row in rows} >= {"user/fde_px", "still/fde_px", "user/fvd_i3d400"}
    assert all(row["checkpoint_sha256"] for row in rows)
    assert "user/fde_px" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*argv, "--split", "val", "test"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "scripts/evaluate.py"), run_name="__main__")


def test_an_evaluation_that_was_cut_goes_on(tmp_path, monkeypatch):
    def evaluate(ledger):
        return evaluate_animator(
            Knows(), CLIPS, ["motion", "response"], batch_size=1, ledger=ledger
        )

    check_goes_on(evaluate, tmp_path, monkeypatch, after=3)


def test_longer_and_larger_clips_of_a_model_in_layers():
    torch.manual_seed(0)
    made = ClickToMove(**CLICK_TO_MOVE | dict(generator="layered"))
    clips = MoverClips(777, 5, 2, 48, 80, frames=12, max_objects=4, branches=True)
    rows = {row["metric"]: row for row in evaluate_animator(made, clips, ["motion"])}
    assert rows["user/error_px_frame5"]["value"] < rows["user/error_px_frame10"]["value"]
    assert "user/error_px_frame16" not in rows
    assert "11 frames after the first, 48 x 80 px" in rows["user/fde_px"]["protocol"]
    rows = {row["metric"] for row in evaluate_animator(made, clips, ["frames"], 1)}
    assert {"oracle_camera/ghost", "removed/psnr", "copy_removed/ghost"} <= rows
    with pytest.raises(ValueError, match=r"clips: expected \(T, H, W\) = \(3, 32, 64\), got"):
        evaluate_animator(ClickToMove(**CLICK_TO_MOVE), clips, ["motion"])


def test_clips_have_the_pace_of_training_and_longer_ones_go_on(monkeypatch):
    seen = []
    monkeypatch.setattr(animators, "evaluate_animator", lambda _, clips, **more: seen.append(clips))
    named = "split metrics max_sources count seed batch_size checkpoint i3d no_edges".split()
    some = dict.fromkeys(named) | dict(data="movers", size=None, net=["alex"])
    for frames in (None, 11, 24):
        animators.from_options(
            SimpleNamespace(shape=(11, 32, 64)), SimpleNamespace(**some, frames=frames)
        )
    assert [(clips.frames, clips.step) for clips in seen] == [(12, None), (12, None), (25, 1.0)]


class Removes(Knows):
    """Can be asked to remove the object that the branches change."""

    takes = frozenset({"removed"})

    def find(self, scene, motion, i):
        if motion.removed is None:
            return super().find(scene, motion, i)
        same = [c for c in self.clips if torch.equal(c["video"][0], scene.frame[i])]
        assert motion.removed[i].nonzero().flatten().tolist() == [same[0]["target"]]
        return self.clips[3 * (same[0]["index"] // 3) + 2]


def test_ghosts_and_removal_of_one_who_knows_all_and_of_nothing():
    rows = {row["metric"]: row["value"] for row in evaluate_animator(Removes(), CLIPS, ["frames"])}
    assert rows["removed/psnr"] == 60 and rows["removed/ghost"] == 0
    assert rows["copy_removed/ghost"] == pytest.approx(1) and rows["copy/ghost"] == pytest.approx(1)
    assert rows["user/ghost"] == 0 < rows["copy_removed/psnr"] < 60


@pytest.mark.parametrize("wrong, right", [("visible", "revealed"), ("revealed", "visible")])
def test_the_first_frame_does_not_show_what_a_removed_object_hides(wrong, right):
    class Errs(Removes):
        def animate(self, scene, motion, z, object_z):
            made = super().animate(scene, motion, z, object_z)
            if motion.removed is None:
                return made
            number = 1 + motion.removed.long().argmax(1)[:, None, None]
            hidden = warp((scene.instance == number)[:, None].float(), made.flow)
            seen = made.visible > 0  # in the branch without the object
            at = seen & (hidden == 0) if wrong == "visible" else seen & (hidden == 1)
            return made._replace(video=(-made.video).where(at, made.video))

    rows = {row["metric"]: row["value"] for row in evaluate_animator(Errs(), CLIPS, ["frames"])}
    assert rows[f"removed/psnr_{wrong}"] < 40 and rows[f"removed/psnr_{right}"] == 60
    assert rows[f"copy_removed/psnr_{wrong}"] < 40
