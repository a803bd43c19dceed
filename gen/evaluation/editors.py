"""Evaluates an editor of codes: are edits correct, diverse, and limited to the wanted change.

The published protocol (Liu et al., arXiv 2109.12492, its released evaluation) edits the first 1,000
test codes, one attribute at a time and both ways: ACC by a classifier, LPIPS between 10 edits, FID,
identity of a face descriptor, PIR and mean step of 20 frames between the two edits. Here:

- all labels are given at once, as in training. They are the labels that the judge predicts for
  another of 512 images of the generator and seed, so nobody has to list which attributes exclude
  each other (an image that shows two of these attributes is not used);
- diversity is over pairs of different edits; the release also counts each edit with itself, 9 of
  54 pairs;
- unwanted change is measured by the labels to keep and the factors that the judge regresses, in
  place of a descriptor of faces;
- a path is straight in W+ with PIR as there, between two edits to labels that differ in any way.

Source i, its wanted labels and its noise are functions of (seed, i): a shorter run is the beginning
of a longer one, and two editors of one generator can be compared source by source.

Letters in shapes: N sources, J edits of each, K attributes, P other images, Z noise, F factors, L
rows of a code, D its width, H image side.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gen import tasks
from gen.devices import float64
from gen.evaluation.edit_curves import Curves
from gen.evaluation.results import (
    FRAMES,
    HIGHER,
    NEITHER,
    Results,
    Values,
    head,
    weights_fingerprint,
)
from gen.inference import common, generation
from gen.inference.editing import declared, possible
from gen.interpolation import alphas, path
from gen.metrics.smoothness import BETTER, REPORTED, path_distances, smoothness
from gen.metrics.translation import translation_scores
from gen.networks.arcface import load as load_arcface
from gen.networks.perceptual import LPIPS

GROUPS = ("edits", "single", "paths", "curves", "identity", "examined")
DRAWS = (*GROUPS[:3], "commute")  # a place here decides the random numbers of a group
OTHERS = 512  # images whose labels are the wanted labels
FIRST_OTHER = 10**5  # number of the first of these images; sources begin at 0


@torch.no_grad()
def evaluate_editor(
    method,
    judge,
    metrics: Collection[str] = GROUPS,
    count: int = 500,
    outputs: int = 5,
    net: str = "alex",
    seed: int = 777,
    batch_size: int = 16,
    checkpoint: str | Path | None = None,
    psi: float | None = None,
    judge_checkpoint: str | Path | None = None,
    ledger: str | Path | None = None,
    examiner=None,
    examiner_checkpoint: str | Path | None = None,
    arcface=None,
) -> list[dict]:
    """Evaluates an editor of the codes of a generator, as a judge sees its images.

    - `edits`: edits to all labels of another image. `edits/accuracy_NAME` of each attribute, their
      mean `edits/accuracy`, and `edits/accuracy_joint`, where all K must be right;
      `edits/diversity_lpips_NET` between edits of different noise, 0 for an editor without noise;
      `edits/lpips_NET` to the source; as baseline, `unchanged/accuracy..` of the source itself.
    - `single`: each attribute changes once. The wanted labels are those of another image that has
      the other label there, and differ from the source's in the fewest labels: in two, where
      attributes exclude each other. `single/accuracy_NAME`; `single/kept_NAME`, the share kept of
      the labels to keep; `single/lpips_NET_NAME` to the source; `single/factors_NAME`, the change
      of the factors, mean over all factors, also those that should change; and the mean of each
      over attributes. An unchanged source scores 0, 1, 0, 0. Without labels to keep, no `kept`.
    - `paths`: PS, EQ, EFF and PIR of straight lines of codes between two edits of a source, with
      equal noise, to the labels of two other images, which differ. All paths count, whether their
      edits succeed or not: a path that does not move has PS 0, but PIR 0, too.
    - `curves`: the edits of `single` at strengths from 0.25 to 2, straight in W+ or as the editor's
      `edit_at` says. `curves/success_sS`, all K labels right, against `curves/lpips_NET_sS`, and
      the area under this curve; `curves/factors_sS`, the change of the factors as in `single`;
      `curves/monotone`; `curves/undo_lpips_NET` after an edit back;
      `curves/commute_lpips_NET` between two orders of two edits. Diversity is in `edits`.
    - `identity`: `curves/identity_sS`, the cosine of the face descriptors of source and edit, of
      the edits of `curves`. Meaningful for a generator of aligned photographs of faces alone.
    - `examined`: the edits of `edits` and `single` as an examiner sees them, a classifier of other
      architecture and training than the judge, whose labels also trained the editor. Its factors
      say one by one what else changed (`examined/factor_NAME`), the wanted change included.

    Args:
        method: editor with `map_latents`, `synthesize`, `edit`, `attribute_names`, `noise_dim`,
            `latent_dim`, `img_size`, such as `gen.methods.StyleFunction`.
        judge: classifier with `classify`, `regress`, `factor_std`, `attribute_names`, `img_size`,
            such as `gen.methods.AttributeClassifier`; on the same device.
        metrics: groups to measure, from `GROUPS`.
        count: number of sources.
        outputs: number of edits per source in `edits`.
        net: name of the LPIPS network.
        seed: seed of sources, wanted labels, noise and intervals.
        batch_size: sources per batch; changes values by rounding alone.
        checkpoint: file whose sha256 the rows state.
        psi: truncation of the codes; None takes the method's own.
        judge_checkpoint: file of the judge whose sha256 the rows state (`judge_sha256`).
        examiner: classifier as the judge, for `examined`, which is left out of all without one.
        examiner_checkpoint: file of the examiner whose sha256 the rows state.
        arcface: `gen.networks.arcface.IRSE50`, for `identity`, left out of all without one.
        ledger: file of single values, from which an interrupted evaluation resumes.

    Returns:
        Rows as of `gen.evaluation.translators.evaluate`: ci95 is a bootstrap over sources, `values`
        are those of single sources.

    Raises:
        ValueError: an unknown group, counts too small, a judge that does not fit, NaN; for all
            groups but `edits`, other images that are all equal in an attribute.
    """
    _check(method, judge, metrics, count, outputs, batch_size)
    groups = [group for group in GROUPS if group in metrics]
    for group, option, given, what in (
        ("examined", "--examiner", examiner, "a classifier"),
        ("identity", "--arcface", arcface, "IR-SE50 weights of your own"),
    ):
        if given is None and group in groups:
            if set(metrics) < {*GROUPS}:
                raise ValueError(f"{option}: expected {what} for `{group}`, got none")
            groups.remove(group)
    if examiner is not None:
        check_judge(method, examiner, "examiner")
    run = _Editor(method, judge, examiner, outputs, net, seed, batch_size, psi, arcface)
    run.check_others(groups)
    seen = f"{net}, {run.outputs} edits, psi {psi}, judge {weights_fingerprint(judge)}"
    judges = dict.fromkeys(GROUPS, seen)
    judges["curves"] += ", all pairs"  # values of older versions are measured again
    judges["examined"] += f", examiner {weights_fingerprint(examiner)}"
    judges["identity"] += f", arcface {weights_fingerprint(arcface)}"
    found = Results(ledger, head(checkpoint, seed), judges)
    units = range(count)
    found.measure(groups, units, batch_size, run.block, lambda group, b: getattr(run, group)(b))
    files = dict(checkpoint=checkpoint, judge=judge_checkpoint)
    if examiner is not None:
        files |= dict(examiner=examiner_checkpoint)
    return found.rows(groups, units, run.conditions, seed, **files)


def _check(method, judge, metrics, count: int, outputs: int, batch_size: int) -> None:
    if isinstance(metrics, str) or not metrics or set(metrics) - set(GROUPS):
        raise ValueError(f"metrics: expected some of {GROUPS}, got {metrics!r}")
    if not 1 <= count <= FIRST_OTHER or outputs < 2 or batch_size < 1:
        raise ValueError(
            f"expected count 1 .. {FIRST_OTHER}, outputs >= 2 (for diversity) and batch_size >= 1, "
            f"got {count}, {outputs} and {batch_size}"
        )
    check_judge(method, judge, "judge")


def check_judge(method, judge, role: str) -> None:
    """Raises ValueError unless a classifier predicts the editor's attributes at its size."""
    names = judge.attribute_names if hasattr(judge, "regress") else None
    if (names, judge.img_size) != (method.attribute_names, method.img_size):
        raise ValueError(
            f"{role}: expected an AttributeClassifier of {method.attribute_names} and "
            f"{method.img_size} px, got a {type(judge).__name__} of {names} and {judge.img_size} "
            "px; give the one that the editor was trained with, or another such"
        )


class _Block(NamedTuple):
    """A block of sources."""

    numbers: range
    ws: Tensor  # (N, L, D)
    x: Tensor  # (N, 3, H, H)
    y: Tensor  # (N, K) bool


class _Editor(Curves):
    """Measures an editor group by group; see `evaluate_editor` for the arguments."""

    def __init__(self, method, judge, examiner, outputs, net, seed, batch_size, psi, arcface):
        self.method, self.judge, self.seed, self.batch_size = method, judge, seed, batch_size
        self.examiner, self.arcface = examiner, arcface
        self.net, self.psi, self.names = net, psi, list(method.attribute_names)
        self.outputs = outputs if method.noise_dim else 1  # without noise all edits are equal
        self.lpips = LPIPS(net).to(common.device(method))
        self.conditions = f"{'own psi' if psi is None else f'psi {psi:g}'}, {method.img_size} px"
        numbers = range(FIRST_OTHER, FIRST_OTHER + OTHERS)
        blocks = (numbers[i : i + batch_size] for i in range(0, OTHERS, batch_size))
        others = torch.cat([self.block(some).y for some in blocks])
        self.others = others[possible(others, declared(judge))].cpu().numpy()  # (P, K) bool

    def check_others(self, groups: list[str]) -> None:
        varies = self.others.any(0) & ~self.others.all(0)  # (K,)
        same = [name for name, ok in zip(self.names, varies, strict=True) if not ok]
        alone = {"single", "curves", "identity", "examined"}.intersection(groups)
        if (same and alone) or (not varies.any() and "paths" in groups):
            raise ValueError(
                f"expected images with and without each attribute, got {OTHERS} that the judge "
                f"sees equal in {', '.join(same)}; take a larger psi, or measure edits alone"
            )

    # ---- one group of a block --------------------------------------------------------------------

    def edits(self, block: _Block) -> Values:
        d, z = self.draw("edits", block, self.any, self.outputs)  # (N, 1, K), (N, J, Z)
        made = self.edited(block, d.expand(-1, self.outputs, -1), z)  # (N, J, 3, H, H)
        right = self.predicted_labels(made) == d  # (N, J, K)
        what = f"{self.outputs} edits a source to the labels of another image"
        floor = "the source left unchanged, held to the labels of another image"
        both = ("edits", what, right), ("unchanged", floor, block.y[:, None] == d)
        for prefix, text, hits in both:  # (N, J, K)
            hits = float64(hits)
            yield f"{prefix}/accuracy", f"{text}, mean over attributes", hits.mean((1, 2)), HIGHER
            yield f"{prefix}/accuracy_joint", f"{text}, all of them", hits.amin(2).mean(1), HIGHER
            for name, value in zip(self.names, hits.mean(1).unbind(1), strict=True):
                yield f"{prefix}/accuracy_{name}", text, value, HIGHER
        found = translation_scores(self.lpips, block.x, made)
        varied = found.get("diversity", torch.zeros(len(d)))
        yield f"edits/diversity_lpips_{self.net}", f"{what}, pairs of them", varied, HIGHER
        far = found["content_lpips"]
        yield f"edits/lpips_{self.net}", f"{what}, to the source", far, NEITHER

    def single(self, block: _Block) -> Values:
        d, z = self.draw("single", block, self.nearest, len(self.names))  # (N, K, K), (N, K, Z)
        made = self.edited(block, d, z)  # (N, K, 3, H, H), edit k is of attribute k
        labels, y = self.predicted_labels(made), block.y[:, None]
        right = (labels == d).diagonal(dim1=1, dim2=2)  # (N, K)
        stay = d == y  # (N, K, K)
        kept = (stay & (labels == y)).sum(2) / stay.sum(2)  # (N, K), NaN without labels to keep
        features = self.lpips.features
        pairs = zip(made, block.x[:, None], strict=True)  # (K, 3, H, H), (1, 3, H, H)
        lpips = [self.lpips.distance(features(images), features(x)) for images, x in pairs]
        moved = self.moved(made, block.x)  # (N, K, F)
        what = "one attribute changed, the fewest others with it"
        every = f"mean |change| of {moved.shape[2]} factors in standard deviations"
        for name, text, of_edit, better in (
            ("accuracy", "is it as wanted", float64(right), HIGHER),
            ("kept", "share of labels to stay that stayed", kept, HIGHER),
            (f"lpips_{self.net}", "distance to the source", torch.stack(lpips), NEITHER),
            *([("factors", every, moved.mean(2), NEITHER)] if moved.shape[2] else []),
        ):
            text = f"{what}: {text}"
            yield f"single/{name}", f"{text}, mean over attributes", of_edit.nanmean(1), better
            for attribute, value in zip(self.names, of_edit.unbind(1), strict=True):
                yield f"single/{name}_{attribute}", text, value, better

    def paths(self, block: _Block) -> Values:
        d, z = self.draw("paths", block, self.two, 1)  # (N, 2, K), (N, 1, Z)
        a, b = (self.method.edit(block.ws, d[:, j], z[:, 0]) for j in (0, 1))  # (N, L, D)
        frames = path(self.images, a, b, alphas(FRAMES))  # (N, T, 3, H, H)
        found = smoothness(*path_distances(self.lpips, frames))
        what = "straight lines of codes between edits of equal noise to labels of two other images"
        seen = f"alpha 0..{1 - 1 / FRAMES:g}, seen at 256 px"
        for name in REPORTED:
            named = f"paths/{name}_t{FRAMES}_{self.net}"
            yield named, f"{what}, {seen}", found[name], BETTER[name]

    # ---- random draws, functions of (seed, number) -----------------------------------------------

    def draw(self, group: str, block: _Block, pick: Callable, J: int) -> tuple[Tensor, Tensor]:
        """Wanted labels (N, .., K), chosen by `pick`, and noise (N, J, Z)."""
        labels, noise = [], []
        for i, y in zip(block.numbers, block.y.cpu().numpy(), strict=True):
            rng = np.random.default_rng([self.seed, DRAWS.index(group), i])
            labels.append(pick(rng, y))  # before the noise, whose width depends on the editor
            noise.append(rng.standard_normal((J, self.method.noise_dim)))
        d, z = (torch.from_numpy(np.stack(some)).to(block.x) for some in (labels, noise))
        return d, z

    def any(self, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
        return self.others[[rng.integers(len(self.others))]]  # (1, K)

    def nearest(self, rng: np.random.Generator, y: np.ndarray) -> np.ndarray:
        """Labels (K, K): row k differs from y (K,) in label k and few others; ties by chance."""
        differ = self.others != y  # (P, K)
        chosen = []
        for k in range(len(y)):
            members = differ[:, k].nonzero()[0]
            counts = differ[members].sum(1)
            chosen.append(rng.choice(members[counts == counts.min()]))
        return self.others[chosen]

    def two(self, rng: np.random.Generator, _: np.ndarray) -> np.ndarray:
        """Two rows of labels that differ, (2, K)."""
        first = rng.integers(len(self.others))
        unlike = (self.others != self.others[first]).any(1).nonzero()[0]
        return self.others[[first, rng.choice(unlike)]]

    # ---- the generator and the judge -------------------------------------------------------------

    def block(self, numbers: range) -> _Block:
        z = generation.latents(self.method, [self.seed * 10**6 + i for i in numbers])
        ws = self.method.map_latents(z, self.psi)
        x = self.images(ws)
        return _Block(numbers, ws, x, self.predicted_labels(x[:, None])[:, 0])

    def edited(self, block: _Block, d: Tensor, z: Tensor) -> Tensor:
        """Images (N, J, 3, H, H) of edits to labels (N, J, K) with noise (N, J, Z)."""
        pairs = zip(d.unbind(1), z.unbind(1), strict=True)
        return torch.stack([self.images(self.method.edit(block.ws, *pair)) for pair in pairs], 1)

    def images(self, ws: Tensor) -> Tensor:
        """Codes (N, L, D) -> images (N, 3, H, H) in [-1, 1], clamped as in saved images."""
        return _finite(self.method.synthesize(ws), "images").clamp(-1, 1)

    def predicted_labels(self, images: Tensor) -> Tensor:
        """Images (N, J, 3, H, H) -> attributes that the judge predicts, (N, J, K) bool."""
        logits = _finite(self.judge.classify(images.flatten(0, 1)), "logits of the judge")
        return logits.unflatten(0, images.shape[:2]) > 0

    def factors(self, x: Tensor) -> Tensor:
        return _finite(self.judge.regress(x), "factors of the judge")

    def moved(self, images: Tensor, x: Tensor) -> Tensor:
        """|Change| (N, J, F) of the judge's factors from x to images, in standard deviations."""
        after = self.factors(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        return (after - self.factors(x)[:, None]).abs() / self.judge.factor_std


def _finite(values: Tensor, what: str) -> Tensor:
    if not values.isfinite().all():
        raise ValueError(
            f"{what}: expected finite values, got NaN or infinity; try a smaller psi, or a "
            "checkpoint from before the training went wrong"
        )
    return values


def from_options(method, o, ledger: Path | None = None) -> list[dict]:
    """Rows for the options `o` of `gen evaluate`."""
    if not o.classifier:
        raise ValueError(
            "--classifier: expected the checkpoint of an AttributeClassifier that reads the "
            "editor's attributes, got nothing; `gen fit --model=AttributeClassifier` makes one"
        )
    judge = o.load(o.classifier)
    tasks.expect(judge, "classifier", source=f"--classifier {o.classifier}")
    examiner = o.load(o.examiner) if o.examiner else None
    if examiner is not None:
        tasks.expect(examiner, "classifier", source=f"--examiner {o.examiner}")
    count = 500 if o.count is None else o.count
    groups = o.metrics or ["all"]
    return evaluate_editor(
        method,
        judge,
        metrics=GROUPS if "all" in groups else groups,
        count=count if o.max_sources is None else min(count, o.max_sources),
        net=o.net[0],
        seed=o.seed,
        batch_size=o.batch_size,
        checkpoint=o.checkpoint,
        psi=o.psi,
        judge_checkpoint=o.classifier,
        ledger=ledger,
        examiner=examiner,
        examiner_checkpoint=o.examiner,
        arcface=load_arcface(o.arcface).to(o.device) if o.arcface else None,
    )
