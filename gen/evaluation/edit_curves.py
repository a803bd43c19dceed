"""Curves of an editor over the strength of its edits, and an examiner that judges them apart.

Letters in shapes: N sources, J edits of each, K attributes, F factors, S strengths, L rows of a
code, D its width, H image side.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from gen.devices import float64
from gen.evaluation.results import HIGHER, LOWER, NEITHER, Values
from gen.inference.editing import at_strengths
from gen.metrics.identity import identity_similarity

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # of an edit; 1 is the edit as asked for
FARTHEST = 0.5  # LPIPS up to which the area counts


class Curves:
    """Groups of values over strengths, for `gen.evaluation.editors`; `self` is its measurer."""

    def curves(self, block) -> Values:
        """Edits of one attribute at every strength; see `evaluate_editor`."""
        d, z = self.draw("single", block, self.nearest, len(self.names))  # (N, K, K), (N, K, Z)
        wanted = d.diagonal(dim1=1, dim2=2) > 0  # (N, K) of each edit's own attribute
        sign = 2 * float64(wanted) - 1
        before = float64(self.own(self.judge.classify(block.x)[:, None].expand(-1, d.shape[1], -1)))
        right, far, moved, margins = [], [], [], [sign * before]
        for images in self.swept(block, d, z):  # (N, K, 3, H, H)
            logits = self.judge.classify(images.flatten(0, 1)).unflatten(0, images.shape[:2])
            right.append(((logits > 0) == (d > 0)).all(2))  # (N, K) all labels as wanted
            far.append(self.distances(images, block.x))
            moved.append(self.moved(images, block.x))
            margins.append(sign * float64(self.own(logits)))
        what, count = "one attribute changed, the fewest others with it", moved[0].shape[2]
        for strength, hits, lpips, leaks in zip(STRENGTHS, right, far, moved, strict=True):
            text = f"{what}, strength {strength:g}"
            yield f"curves/success_s{strength:g}", text, float64(hits).mean(1), HIGHER
            yield f"curves/lpips_{self.net}_s{strength:g}", text, lpips.mean(1), NEITHER
            if count:
                text += f": mean |change| of {count} factors in standard deviations"
                yield f"curves/factors_s{strength:g}", text, leaks.mean((1, 2)), NEITHER
        area = success_area(torch.stack(right), torch.stack(far)).mean(1)
        told = f"{what}: area under the share that succeeds within LPIPS b, b in 0 .. {FARTHEST}"
        yield "curves/area", told, area, HIGHER
        rises = float64(torch.stack(margins).diff(dim=0) > 0).mean((0, 2))  # (N,)
        told = f"{what}: share of steps of strength that raise the wanted attribute's logit"
        yield "curves/monotone", told, rises, HIGHER
        yield from self.undone(block, d, z)
        yield from self.commuted(block)

    def identity(self, block) -> Values:
        """Face similarity to the source of the edits of `curves`."""
        d, z = self.draw("single", block, self.nearest, len(self.names))  # (N, K, K), (N, K, Z)
        what = "one attribute changed, the fewest others with it: cosine of IR-SE50's descriptors"
        for strength, images in zip(STRENGTHS, self.swept(block, d, z), strict=True):
            value = identity_similarity(self.arcface, block.x, images)
            text = f"{what} of source and edit, strength {strength:g}"
            yield f"curves/identity_s{strength:g}", text, value, HIGHER

    def undone(self, block, d: Tensor, z: Tensor) -> Values:
        """Edits, then edits back to the source's labels with other noise."""
        y, back = block.y.to(d), []
        for k in range(len(self.names)):
            ws = self.method.edit(block.ws, d[:, k], z[:, k])
            back.append(self.images(self.method.edit(ws, y, z[:, k - 1])))
        far = self.distances(torch.stack(back, 1), block.x).mean(1)
        told = "one attribute changed, then all labels as they were: distance to the source"
        yield f"curves/undo_lpips_{self.net}", told, far, LOWER

    def commuted(self, block) -> Values:
        """Two changes in either order; a source without two that go together has no value."""
        d, z = self.draw("commute", block, self.pair, 1)  # (N, 3, K), (N, 1, Z)
        a, b, both = d.unbind(1)
        ends = []
        for first in (a, b):
            ws = self.method.edit(block.ws, first, z[:, 0])
            ends.append(self.images(self.method.edit(ws, both, z[:, 0])))
        far = self.distances(ends[0][:, None], ends[1])[:, 0]
        far[(a == b).all(1)] = torch.nan  # there is no pair
        told = "two changes of labels, one after the other: distance between the two orders"
        yield f"curves/commute_lpips_{self.net}", told, far, LOWER

    def examined(self, block) -> Values:
        """The edits of `edits` and `single`, seen by another network than the judge."""
        d, z = self.draw("edits", block, self.any, self.outputs)  # (N, 1, K), (N, J, Z)
        made = self.edited(block, d.expand(-1, self.outputs, -1), z)  # (N, J, 3, H, H)
        hits = float64(self.examine(made) == (d > 0))  # (N, J, K)
        text = f"{self.outputs} edits a source to the labels of another image, by the examiner"
        yield "examined/accuracy", f"{text}, mean over attributes", hits.mean((1, 2)), HIGHER
        yield "examined/accuracy_joint", f"{text}, all of them", hits.amin(2).mean(1), HIGHER
        for name, value in zip(self.names, hits.mean(1).unbind(1), strict=True):
            yield f"examined/accuracy_{name}", text, value, HIGHER
        agree = float64(self.examine(block.x[:, None])[:, 0] == block.y).mean(1)
        told = "share of the sources' labels on which judge and examiner agree"
        yield "examined/agreement", told, agree, NEITHER
        d, z = self.draw("single", block, self.nearest, len(self.names))
        made = self.edited(block, d, z)  # (N, K, 3, H, H)
        before, after = self.examine(block.x[:, None]), self.examine(made)
        stay = (d > 0) == block.y[:, None]  # (N, K, K)
        kept = (stay & (after == before)).sum(2) / stay.sum(2)
        text = "one attribute changed, the fewest others with it, by the examiner"
        right = float64((after == (d > 0)).diagonal(dim1=1, dim2=2)).mean(1)
        yield "examined/single", f"{text}: is it as wanted", right, HIGHER
        told = f"{text}: share of the labels to keep that stayed"
        yield "examined/kept", told, kept.nanmean(1), HIGHER
        yield from self.leaked(block, made, text)

    def leaked(self, block, made: Tensor, text: str) -> Values:
        """Change of each factor by edits (N, K, 3, H, H) of one attribute."""
        names = getattr(self.examiner, "factor_names", [])
        if not names:
            return
        after = self.examiner.regress(made.flatten(0, 1)).unflatten(0, made.shape[:2])
        moved = (after - self.examiner.regress(block.x)[:, None]).abs() / self.examiner.factor_std
        for name, value in zip(names, moved.mean(1).unbind(1), strict=True):
            told = f"{text}: mean |change| of this factor in standard deviations"
            yield f"examined/factor_{name}", told, value, NEITHER

    # ---- parts ----------------------------------------------------------------------------------

    def swept(self, block, d: Tensor, z: Tensor) -> Iterator[Tensor]:
        """Images (N, K, 3, H, H) of edits to labels d (N, K, K), at one strength after another."""
        edits = zip(d.unbind(1), z.unbind(1), strict=True)
        paths = [at_strengths(self.method, block.ws, *edit, STRENGTHS) for edit in edits]
        for codes in zip(*paths, strict=True):  # K of (N, L, D)
            yield torch.stack([self.images(ws) for ws in codes], 1)

    def own(self, logits: Tensor) -> Tensor:
        """Logits (N, K, K) of K edits -> (N, K), of the attribute that each edit changes."""
        return logits.diagonal(dim1=1, dim2=2)

    def distances(self, images: Tensor, x: Tensor) -> Tensor:
        """LPIPS (N, J) of images (N, J, 3, H, H) to sources (N, 3, H, H)."""
        features = self.lpips.features
        pairs = zip(images, x[:, None], strict=True)
        return torch.stack([self.lpips.distance(features(a), features(b)) for a, b in pairs])

    def examine(self, images: Tensor) -> Tensor:
        """Images (N, J, 3, H, H) -> attributes that the examiner predicts, (N, J, K) bool."""
        return self.examiner.classify(images.flatten(0, 1)).unflatten(0, images.shape[:2]) > 0

    def pair(self, rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
        """Labels (3, K): a change, another of other labels, and both; all y if there is none."""
        known = dict.fromkeys(row.tobytes() for row in rng.permutation(self.others))
        changes = [np.frombuffer(row, bool) ^ y for row in known]  # common ones tend to be first
        for a, b in combinations(changes, 2):
            both = y ^ a ^ b
            if a.any() and b.any() and not (a & b).any() and both.tobytes() in known:
                return np.stack([y ^ a, y ^ b, both])
        return np.stack([y, y, y])


def success_area(right: Tensor, far: Tensor) -> Tensor:
    """Area (N, K) under the success of edits (S, N, K) within a budget of LPIPS `far` (S, N, K).

    An edit succeeds within the budget b if some strength gives all wanted labels at a distance of
    at most b; the area over b in [0, FARTHEST], divided by FARTHEST, is 1 - b* / FARTHEST for the
    least such distance b*, and 0 if there is none. Range [0, 1].
    """
    least = torch.where(right, far, torch.inf).amin(0)  # (N, K)
    return float64(1 - least / FARTHEST).clamp(0, 1)
