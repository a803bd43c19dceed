"""Measures a translator on blocks of sources and pairs of domains, with the help of judges."""

import time
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from gen.evaluation.features import HELD, MOST, SECOND, Backbone
from gen.evaluation.results import FRAMES, Results, fingerprint, weights_fingerprint
from gen.evaluation.translators import outputs as of_outputs
from gen.evaluation.translators.names import CONTROLS, FLOORS, Protocol
from gen.evaluation.translators.paths import Middle, Paths
from gen.evaluation.translators.plan import Source, draw_styles, ordered_pairs, plan
from gen.inference import common
from gen.interpolation import alphas, lerp
from gen.metrics.checks import FEWEST
from gen.metrics.gradual import MIDDLE
from gen.metrics.nearest import Nearest
from gen.metrics.smoothness import resize_frames
from gen.networks.perceptual import LPIPS

OF_PATHS = ("intra", "inter", "controls", "psi")
OF_OUTPUTS = of_outputs.GROUPS  # one function per group
GROUPS = (*OF_PATHS, "middle", *OF_OUTPUTS, "fidelity", "ppl")
BASIC = ("intra", "inter", "translation")  # groups that need validation images alone
LATENT = ("controls", "psi")  # groups that are measured for latents alone
SCORES = ("fid", "kid", "prc")
PSIS = (0.5, 2.0)  # psi = 1 is measured by `intra` and `inter`
OUTPUTS, PATHS = 10, 4  # per source: translations, and paths of the path length
LOOK_AT_TRAINING = ("controls", "psi", "middle", "texture", "fidelity")  # use training images
NEEDS = {"accuracy": "a classifier", "identity": "an ArcFace file"}
NEEDS |= dict.fromkeys(("fidelity", "middle"), "training images")


class Scorers(NamedTuple):
    """Judges other than LPIPS; a group whose judge is missing cannot be measured."""

    train: object = None  # training images (`data.train`) for fidelity and nearest neighbours
    backbone: str = "effnetlite0"  # features of fidelity, see `gen.metrics.fidelity`
    classifier: object = None  # a DomainClassifier of the same domains: accuracy
    arcface: object = None  # `gen.networks.arcface.IRSE50`: identity
    second: str | None = "mobilenetv2"  # second backbone, which no loss has used

    def missing(self) -> list[str]:
        """Groups that cannot be measured because a judge is missing."""
        given = dict(accuracy=self.classifier, identity=self.arcface)
        given |= dict(fidelity=self.train, middle=self.train)
        return [group for group, judge in given.items() if judge is None]


class Measurement:
    """Measures group by group; see `gen.evaluation.translators.evaluate` for the arguments."""

    def __init__(
        self, method, images, metrics, judges, outputs, net, grid, seed, batch_size, max_sources
    ) -> None:
        self.method, self.images, self.judges = method, images, judges
        self.groups = [group for group in GROUPS if group in metrics]
        self.outputs = outputs  # per source, for each guide
        self.net, *self.other_nets = [net] if isinstance(net, str) else net
        self.grid, self.seed, self.batch_size = grid, seed, batch_size
        self.sources = plan(images, seed, max_sources)
        self.max_sources = max_sources
        looks = set(metrics) & {*OF_PATHS, *OF_OUTPUTS} - {"accuracy", "texture", "identity"}
        here = common.device(method)
        self.lpips = LPIPS(self.net).to(here) if looks else None
        self.others = [LPIPS(other).to(here) for other in self.other_nets if looks]
        self.nearest = Nearest(judges.train) if judges.train is not None else None
        self.backbones = [
            Backbone(name, judges.train, images, here, most)
            for name, most in ((judges.backbone, None), (judges.second, MOST))
            if name and judges.train is not None
        ]
        self.middle = Middle(self.backbones[-1], judges.classifier) if self.backbones else None
        self.paths = Paths(self.lpips, self.others, grid, self.middle)
        self.means: dict[int, Tensor] = {}  # centres of the domains' styles

    def names(self) -> dict[str, str]:
        """Judge of each group; values of another judge are not taken from a ledger."""
        j, nets = self.judges, " ".join([self.net, *self.other_nets])
        smooth = f"{nets} {self.grid}, with progress"
        train = f" {fingerprint(j.train)}" if self.nearest else ""
        copies = f", nearest of training{train}" if self.nearest else ""
        unseen = self.middle.backbone.name if self.middle else ""
        middle = f"{unseen} {weights_fingerprint(j.classifier)}{copies}"
        names = dict.fromkeys(GROUPS, smooth) | dict.fromkeys(OF_OUTPUTS, self.net + copies)
        names |= {
            "accuracy": weights_fingerprint(j.classifier),
            "identity": weights_fingerprint(j.arcface),
        }
        of = self.max_sources or "all"
        names["texture"] = copies
        names["inter"] = names["controls"] = smooth + copies
        return names | {
            "psi": f"{smooth} {middle}",
            **dict.fromkeys(("middle", "middle_kd"), f"{middle} {of} sources, {self.grid}"),
            "fidelity": f"{j.backbone} {j.second}{train}, {of} sources",
            "ppl": f"{of} sources",
        }

    def protocol(self) -> Protocol:
        judge, method = self.judges.classifier, self.method
        name = judge.hparams.model_name if judge is not None else ""
        unseen = self.middle.backbone.name if self.middle else ""
        options = (self.outputs, self.net, self.grid, name, self.judges.second, unseen, self.seed)
        return Protocol(list(method.domains), method.img_size, *options)

    # ---- values of single sources ---------------------------------------------------------------

    def measure_sources(self, book: Results, rank: int, world: int) -> None:
        groups = [g for g in self.groups if g in (*OF_PATHS, *OF_OUTPUTS)]
        mine = self.sources[rank::world] if groups else []
        for i in tqdm(range(0, len(mine), self.batch_size), "evaluate", disable=None):
            block = mine[i : i + self.batch_size]
            units = [s.index for s in block]
            x, y = common.batch(self.method, self.images, units)  # (N, 3, H, W), (N,)
            todo = {
                guide: [
                    g
                    for g in groups
                    if (guide == "latent" or g not in LATENT)
                    and not book.done(g, guide).issuperset(units)
                ]
                for guide in self.outputs
            }
            content = self.method.encode(x) if any(todo.values()) else None
            for guide in self.outputs:
                began = time.perf_counter()
                for group, scores in self.score(todo[guide], block, x, content, guide):
                    known = {  # NaN where a source has no twin
                        name: {u: v for u, v in zip(units, score.tolist(), strict=True) if v == v}
                        for name, score in scores.items()
                    }
                    book.add(group, guide, time.perf_counter() - began, known)
                    began = time.perf_counter()
                rest = [group for group in todo[guide] if group in OF_OUTPUTS]
                if rest:
                    styles = self.draw(block, "target", guide)  # (N, K, D)
                    made = torch.stack([self.decode(content, s) for s in styles.unbind(1)], 1)
                    outputs = of_outputs.Outputs(self, guide, block, x, y, made)
                for group in rest:
                    book.take(group, units, OF_OUTPUTS[group](outputs), guide)

    def score(self, groups, block, x, content, guide) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yields the path values (N,) of each group for a block of N sources."""
        if "intra" in groups:
            target = self.draw(block, "target", guide)  # (N, K, D)
            yield "intra", self.paths.scores(self.walk(content, target[:, 0], target[:, 1]))
        for group in ("inter", "controls", "psi"):
            if group in groups:
                yield group, getattr(self, group)(block, x, content, guide)

    def draw(self, block: Sequence[Source], role: str, guide: str) -> Tensor:
        """Styles (N, count, D) of the sources for a role, see `plan.ROLES`."""
        count = self.outputs[guide] if role == "target" else 1
        indices, domains = [s.index for s in block], [getattr(s, role) for s in block]
        key = dict(seed=self.seed, guide=guide)
        return draw_styles(self.method, self.images, indices, domains, role, count, **key)

    def decode(self, content: list[Tensor], s: Tensor) -> Tensor:
        """Images (N, 3, H, W), clamped as in saved images."""
        return self.method.decode(content, s).clamp(-1, 1)

    def walk(self, content, a: Tensor, b: Tensor) -> Tensor:
        """Frames (N, T, 3, H, W) of one path per source, from style a (N, D) to style b."""
        return self.paths.frames(lambda s: self.decode(content, s), a, b)

    def requested_distance(self, block, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """LPIPS (N,) between the true images at both ends of the paths between domains, and these.

        The nearest training image replaces a missing twin; without training images LPIPS is NaN.
        """
        ends, missing = [], torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for role in ("start", "end"):
            domains = [getattr(s, role) for s in block]
            true, absent = self.twins(block, x, domains)
            if absent.any() and self.nearest:
                near = self.nearest(x, domains)
                true = torch.where(absent[:, None, None, None], near, true)
                absent = torch.zeros_like(absent)
            ends.append(true)
            missing |= absent
        seen = (resize_frames(end, 256, False) for end in ends)
        return self.lpips(*seen).masked_fill(missing, torch.nan), ends

    def inter(self, block, x: Tensor, content, guide: str) -> dict[str, Tensor]:
        start, end = self.ends(block, guide)
        return self.paths.scores(
            self.walk(content, start, end), self.requested_distance(block, x)[0]
        )

    def ends(self, block, guide: str) -> list[Tensor]:
        """Styles (N, D) at the two ends of the paths between domains."""
        return [self.draw(block, role, guide)[:, 0] for role in ("start", "end")]

    def controls(self, block, x: Tensor, content, guide: str) -> dict[str, Tensor]:
        """Values of the paths that no model makes, for comparison with paths between domains."""
        requested, true = self.requested_distance(block, x)
        frames, pairs = self.walk(content, *self.ends(block, guide)), _pairs(block)
        found = {}
        for kind in CONTROLS:
            if kind == "nearest" and not self.nearest:
                continue
            if kind == "source":
                scores = self.paths.standing(requested)
            else:
                made = self.paths.control(kind, frames, true, self.nearest, pairs)
                scores = self.paths.scores(made, requested)
            if kind == "twins":
                untrue = requested.isnan()
                scores = {
                    k: v.masked_fill(untrue.to(v.device), torch.nan) for k, v in scores.items()
                }
            found |= {f"{kind}/{key}": value for key, value in scores.items() if "@" not in key}
        return found

    def psi(self, block, x: Tensor, content, guide: str) -> dict[str, Tensor]:
        """Values of both kinds of path, with styles nearer to or farther from their centres."""
        intra = self.draw(block, "target", guide)[:, :2].unbind(1)
        inter, requested, found = self.ends(block, guide), self.requested_distance(block, x)[0], {}
        for psi in PSIS:
            for group, styles, roles in (
                ("intra", intra, ("target", "target")),
                ("inter", inter, ("start", "end")),
            ):
                ends = [
                    lerp(self.centres([getattr(s, role) for s in block]), style, psi)
                    for style, role in zip(styles, roles, strict=True)
                ]
                more = (requested, _pairs(block)) if group == "inter" else ()
                scores = self.paths.scores(self.walk(content, *ends), *more)
                found |= {f"{group}/{psi:g}/{k}": v for k, v in scores.items() if "@" not in k}
        return found

    def centres(self, domains: Sequence[int]) -> Tensor:
        """Mean styles (N, D) of the domains."""
        for y in set(domains) - self.means.keys():
            self.means[y] = self.method.mean_style(y)
        return torch.cat([self.means[y] for y in domains])

    def twins(self, block, x: Tensor, domains: Sequence[int]) -> tuple[Tensor, Tensor]:
        """True images (N, 3, H, W) of the sources in the given domains, and a mask (N,) of missing
        images, which the source itself replaces."""
        found = [self.images.twin(s.index, y) for s, y in zip(block, domains, strict=True)]
        true = [x[n] if t is None else self.images[t]["x"].to(x) for n, t in enumerate(found)]
        return torch.stack(true), torch.tensor([t is None for t in found], device=x.device)

    # ---- values of pairs of domains -------------------------------------------------------------

    def measure_pairs(self, book: Results, rank: int, world: int) -> None:
        """Fidelity of each ordered pair of domains, and for comparison KD of real images."""
        if "fidelity" not in self.groups:
            return
        pairs = list(enumerate(ordered_pairs(len(self.images.domains))))[rank::world]
        for guide in (*self.outputs, *FLOORS):
            todo = [pair for pair in pairs if pair[0] not in book.done("fidelity", guide)]
            for unit, (a, b) in tqdm(todo, f"fidelity, {guide}", disable=None):
                began = time.perf_counter()
                if guide in FLOORS:
                    found = {
                        k: v for bb in self.backbones for k, v in bb.floor(guide, a, b).items()
                    }
                else:
                    found = self.pair(guide, a, b)
                values = {name: {unit: value} for name, value in found.items()}
                if values:
                    book.add("fidelity", guide, time.perf_counter() - began, values)

    def pair(self, guide: str, a: int, b: int) -> dict[str, float]:
        """Scores of the translations from a to b; the second backbone gives KD alone."""
        first, *second = self.backbones
        of_a = [s._replace(target=b) for s in self.sources if self.images.labels[s.index] == a]
        made = torch.cat(list(self.fakes(of_a, guide)))  # (N, K, 3, H, W)
        found = first.scores(first.features(made.flatten(0, 1)), first.real(b), SCORES)
        for other in second:
            fake = other.features(made[:, :SECOND].flatten(0, 1))
            found |= other.scores(fake, other.real(b))
        return found

    def measure_middle(self, book: Results, rank: int, world: int) -> None:
        """Compares mid-path frames between each two domains with the real images of both."""
        if "middle" not in self.groups:
            return
        S = len(self.images.domains)
        pairs = [(unit, *ab) for unit, ab in enumerate(combinations(range(S), 2))][rank::world]
        counts = torch.bincount(self.images.labels)
        for guide in (*self.outputs, "dissolve", *["real"] * (int(counts.min()) >= FEWEST)):
            todo = [pair for pair in pairs if pair[0] not in book.done("middle_kd", guide)]
            for unit, a, b in tqdm(todo, f"middle, {guide}", disable=None):
                began = time.perf_counter()
                if guide == "real":
                    of_unit, features = self.unseen(unit, a, b)
                else:
                    of_unit, features = self.mid_path(guide, a, b)
                book.add("middle", guide, time.perf_counter() - began, of_unit)
                if len(features) >= FEWEST:
                    kd = self.middle.backbone.scores(features, self.middle.real(a, b))
                    seconds = time.perf_counter() - began
                    book.add("middle_kd", guide, seconds, {k: {unit: v} for k, v in kd.items()})

    def unseen(self, unit: int, a: int, b: int) -> tuple[dict[str, dict[int, float]], Tensor]:
        """Realism and features of validation images, which are numbered through all pairs."""
        features = torch.cat([self.middle.backbone.unseen(y) for y in (a, b)])
        realism = self.middle.realism(features, a, b).tolist()
        first = unit * 2 * HELD
        return {"realism": {first + i: value for i, value in enumerate(realism)}}, features

    def mid_path(self, guide: str, a: int, b: int) -> tuple[dict[str, dict[int, float]], Tensor]:
        """Values of each source with a path between a and b, and the features of all frames."""
        sources = [s for s in self.sources if {s.start, s.end} == {a, b}]
        of_unit: dict[str, dict[int, float]] = {}
        features = []
        for i in range(0, len(sources), self.batch_size):
            block = sources[i : i + self.batch_size]
            x, _ = common.batch(self.method, self.images, [s.index for s in block])
            content = self.method.encode(x)
            ends = self.ends(block, "latent" if guide == "dissolve" else guide)
            if guide == "dissolve":
                last = alphas(FRAMES, self.grid)[-1].item() if self.grid == "released" else 1.0
                first, final = (self.decode(content, lerp(*ends, t)) for t in (0.0, last))
                made = [lerp(first, final, t) for t in MIDDLE]
            else:
                made = [self.decode(content, lerp(*ends, t)) for t in MIDDLE]
            frames = torch.stack(made, 1)  # (N, F, 3, H, W)
            features.append(self.middle.backbone.features(frames.flatten(0, 1)))
            scores = self.middle.scores(frames, _pairs(block), features[-1])
            for name, values in scores.items():
                known = zip((s.index for s in block), values.tolist(), strict=True)
                of_unit.setdefault(name, {}).update(known)
        return of_unit, torch.cat(features) if features else torch.zeros(0, 1)

    def measure_lengths(self, book: Results, rank: int, world: int) -> None:
        """StyleGAN's path length in each target domain; every path has its own source."""
        if "ppl" not in self.groups:
            return
        from gen.metrics.path_length import perceptual_path_length  # slow to import

        domains = range(len(self.images.domains))
        todo = [y for y in domains[rank::world] if y not in book.done("ppl", "latent")]
        for y in tqdm(todo, "path length", disable=None):
            began = time.perf_counter()
            units = [s.index for s in self.sources if s.target == y]

            def generate(z: Tensor, source: Tensor, y=y, units=units) -> Tensor:
                x, _ = common.batch(self.method, self.images, [units[i] for i in source.tolist()])
                return self.decode(self.method.encode(x), self.method.map_style(z, y))

            found = perceptual_path_length(
                generate,
                self.method.latent_dim,
                PATHS * len(units),
                classes=len(units),
                seed=self.seed,
                batch_size=self.batch_size,
                device=common.device(self.method),
            )
            values = {name: {y: value} for name, value in found.items()}
            book.add("ppl", "latent", time.perf_counter() - began, values)

    def fakes(self, sources: Sequence[Source], guide: str) -> Iterator[Tensor]:
        """Translations of the sources, in batches (n, K, 3, H, W)."""
        for i in range(0, len(sources), self.batch_size):
            block = sources[i : i + self.batch_size]
            x, _ = common.batch(self.method, self.images, [s.index for s in block])
            content = self.method.encode(x)
            styles = self.draw(block, "target", guide)
            yield torch.stack([self.decode(content, s) for s in styles.unbind(1)], 1).cpu()


def _pairs(block: Sequence[Source]) -> list[tuple[int, int]]:
    return [(s.start, s.end) for s in block]
