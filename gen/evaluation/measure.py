"""How an evaluation measures: blocks of sources, pairs of domains, and who judges them."""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gen import gallery
from gen.data.nearest import Nearest
from gen.evaluation.features import MOST, SECOND, Backbone
from gen.evaluation.ledger import Ledger
from gen.evaluation.names import FLOORS, Protocol
from gen.evaluation.plan import Source, draw_styles, ordered_pairs, plan
from gen.evaluation.rows import FRAMES
from gen.interpolation import alphas, path
from gen.metrics.accuracy import domain_accuracy
from gen.metrics.checks import check_images
from gen.metrics.identity import identity_similarity
from gen.metrics.smoothness import path_distances, pixel_steps, smoothness
from gen.metrics.texture import texture_scores
from gen.metrics.translation import translation_scores
from gen.networks.perceptual import LPIPS

BASIC = ("intra", "inter", "translation")  # what needs validation images and nothing else
GROUPS = (*BASIC, "accuracy", "texture", "identity", "fidelity", "ppl")
SCORES = ("fid", "kid", "prc")
OUTPUTS, PATHS = 10, 4  # of a source: translations, and steps of the path length
NEEDS = {"accuracy": "a classifier", "identity": "an ArcFace file", "fidelity": "training images"}


class Judges(NamedTuple):
    """What measures, beside LPIPS; a group whose judge is missing cannot be asked for."""

    train: object = None  # training images (`data.train`): fidelity, and the nearest of them
    backbone: str = "effnetlite0"  # features of fidelity, see `gen.metrics.fidelity`
    classifier: object = None  # a DomainClassifier of the same domains: accuracy
    arcface: object = None  # `gen.networks.arcface.IRSE50`: identity
    second: str | None = "mobilenetv2"  # another backbone, which no loss has seen

    def missing(self) -> list[str]:
        """Groups that cannot be measured without more of us."""
        given = dict(accuracy=self.classifier, identity=self.arcface, fidelity=self.train)
        return [group for group, judge in given.items() if judge is None]


class Measurement:
    """What is measured how; see `gen.evaluation.evaluate` for the arguments."""

    def __init__(
        self, method, images, metrics, judges, outputs, net, grid, seed, batch_size, max_sources
    ) -> None:
        self.method, self.images, self.judges = method, images, judges
        self.groups = [group for group in GROUPS if group in metrics]
        self.outputs = outputs  # a source, for each guide
        self.net, *self.other_nets = [net] if isinstance(net, str) else net
        self.grid, self.seed, self.batch_size = grid, seed, batch_size
        self.sources = plan(images, seed, max_sources)
        self.max_sources = max_sources
        here, looks = gallery.device(method), set(metrics) & set(BASIC)
        self.lpips = LPIPS(self.net).to(here) if looks else None
        self.others = [LPIPS(other).to(here) for other in self.other_nets if looks]
        self.nearest = Nearest(judges.train) if judges.train is not None else None
        self.backbones = [
            Backbone(name, judges.train, images, here, most)
            for name, most in ((judges.backbone, None), (judges.second, MOST))
            if name and judges.train is not None
        ]

    def names(self) -> dict[str, str]:
        """Who judges a group: values of another judge are not taken from a ledger."""
        j, nets = self.judges, " ".join([self.net, *self.other_nets])
        smooth = f"{nets} {self.grid}, with direct and straight"
        copies = ", nearest of training" if self.nearest else ""
        names = dict.fromkeys(GROUPS, smooth) | {"translation": self.net + copies}
        names |= {"accuracy": _digest(j.classifier), "identity": _digest(j.arcface)}
        of = self.max_sources or "all"
        names["texture"] = copies
        return names | {
            "fidelity": f"{j.backbone} {j.second}, {of} sources",
            "ppl": f"{of} sources",
        }

    def protocol(self) -> Protocol:
        judge, method = self.judges.classifier, self.method
        name = judge.hparams.model_name if judge is not None else ""
        options = (self.outputs, self.net, self.grid, name, self.judges.second, self.seed)
        return Protocol(list(method.domains), method.img_size, *options)

    # ---- values of single sources ---------------------------------------------------------------

    def measure_sources(self, book: Ledger, rank: int, world: int) -> None:
        groups = [g for g in self.groups if g not in ("fidelity", "ppl")]
        mine = self.sources[rank::world] if groups else []
        for i in tqdm(range(0, len(mine), self.batch_size), "evaluate", disable=None):
            block = mine[i : i + self.batch_size]
            units = [s.index for s in block]
            x, y = gallery.batch(self.method, self.images, units)  # (N, 3, H, W), (N,)
            todo = {
                guide: [g for g in groups if not book.done(g, guide).issuperset(units)]
                for guide in self.outputs
            }
            content = self.method.encode(x) if any(todo.values()) else None
            for guide in self.outputs:
                began = time.perf_counter()
                for group, scores in self.score(todo[guide], block, x, y, content, guide):
                    known = {  # NaN where a source has no twin
                        name: {u: v for u, v in zip(units, score.tolist(), strict=True) if v == v}
                        for name, score in scores.items()
                    }
                    book.add(group, guide, time.perf_counter() - began, known)
                    began = time.perf_counter()

    def score(self, groups, block, x, y, content, guide) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Each group's values, (N,), of a block of N sources."""
        if not groups:
            return
        target = self.draw(block, "target", guide)  # (N, K, D)
        if "intra" in groups:
            yield "intra", self.walk(content, target[:, 0], target[:, 1], "intra")
        if "inter" in groups:
            start, end = (self.draw(block, role, guide)[:, 0] for role in ("start", "end"))
            yield "inter", self.walk(content, start, end, "inter")
        rest = [group for group in groups if group not in ("intra", "inter")]
        if rest:
            made = torch.stack([self.decode(content, s) for s in target.unbind(1)], 1)
        for group in rest:  # made: (N, K, 3, H, W)
            yield group, getattr(self, group)(block, x, y, made)

    def draw(self, block: Sequence[Source], role: str, guide: str) -> Tensor:
        """Styles (N, count, D) of the sources' `role`."""
        count = self.outputs[guide] if role == "target" else 1
        indices, domains = [s.index for s in block], [getattr(s, role) for s in block]
        key = dict(seed=self.seed, guide=guide)
        return draw_styles(self.method, self.images, indices, domains, role, count, **key)

    def decode(self, content: list[Tensor], s: Tensor) -> Tensor:
        """Images (N, 3, H, W), clamped as when saved."""
        return self.method.decode(content, s).clamp(-1, 1)

    def walk(self, content, a: Tensor, b: Tensor, group: str) -> dict[str, Tensor]:
        """Smoothness of a path a source, from style a (N, D) to b; `ps@vgg`: by another network."""

        def render(grid: Tensor) -> Tensor:
            frames = path(lambda s: self.decode(content, s), a, b, grid)  # (N, T, 3, H, W)
            check_images(frames, f"{group}-domain frames", ndim=5, frames=FRAMES)
            return frames

        if self.grid == "uniform":
            steps, _ = path_distances(self.lpips, render(alphas(FRAMES, "strict")))
            frames = render(alphas(FRAMES, "uniform", steps))
        else:
            frames = render(alphas(FRAMES, self.grid))
        found = smoothness(*path_distances(self.lpips, frames), pixel_steps(frames))
        for lpips in self.others:
            seen = smoothness(*path_distances(lpips, frames))
            found |= {f"{key}@{lpips.net}": value for key, value in seen.items()}
        return found

    def translation(self, block, x, y, made) -> dict[str, Tensor]:
        """`translation_scores`, NaN in what needs a twin where a source has none."""
        true, missing = self.twins(block, x, [s.target for s in block])
        if missing.all():
            return translation_scores(self.lpips, x, made)
        near = self.nearest and self.nearest(x, [s.target for s in block])
        scores = translation_scores(self.lpips, x, made, true, near)
        free = ("diversity", "content")
        return {
            k: v if k.startswith(free) else v.masked_fill(missing, torch.nan)
            for k, v in scores.items()
        }

    def twins(self, block, x: Tensor, domains: Sequence[int]) -> tuple[Tensor, Tensor]:
        """True images (N, 3, H, W) of the sources in a domain each, and (N,) where there is none:
        there the source itself stands in."""
        found = [self.images.twin(s.index, y) for s, y in zip(block, domains, strict=True)]
        true = [x[n] if t is None else self.images[t]["x"].to(x) for n, t in enumerate(found)]
        return torch.stack(true), torch.tensor([t is None for t in found], device=x.device)

    def accuracy(self, block, x, y, made) -> dict[str, Tensor]:
        """Of the outputs; of the sources as what they are, and left unchanged as what they should
        become; of the twins."""
        target = torch.tensor([s.target for s in block], device=x.device)
        judge = self.judges.classifier
        true, missing = self.twins(block, x, target.tolist())
        return {
            "accuracy": domain_accuracy(judge, made, target),
            "real": domain_accuracy(judge, x, y),
            "unchanged": domain_accuracy(judge, x, target),
            "twin": domain_accuracy(judge, true, target).masked_fill(missing, torch.nan),
        }

    def texture(self, block, x, y, made) -> dict[str, Tensor]:
        """Against the twin; where there is none, against the nearest training image."""
        domains = [s.target for s in block]
        real, missing = self.twins(block, x, domains)
        if missing.any() and self.nearest:
            near = self.nearest(x, domains)
            real = torch.where(missing[:, None, None, None], near, real)
            missing = torch.zeros_like(missing)
        scores = texture_scores(made, x, real)
        scores["detail_unchanged"] = texture_scores(x[:, None], x, real)["detail_ratio"]
        return {name: value.masked_fill(missing, torch.nan) for name, value in scores.items()}

    def identity(self, block, x, y, made) -> dict[str, Tensor]:
        return {"identity": identity_similarity(self.judges.arcface, x, made)}

    # ---- values of pairs of domains -------------------------------------------------------------

    def measure_pairs(self, book: Ledger, rank: int, world: int) -> None:
        """Fidelity of each ordered pair, beside what KD is where nothing is generated."""
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
        """Scores of the translations from a to b; KD alone by the second backbone."""
        first, *second = self.backbones
        of_a = [s._replace(target=b) for s in self.sources if self.images.labels[s.index] == a]
        made = torch.cat(list(self.fakes(of_a, guide)))  # (N, K, 3, H, W)
        found = first.scores(first.features(made.flatten(0, 1)), first.real(b), SCORES)
        for other in second:
            fake = other.features(made[:, :SECOND].flatten(0, 1))
            found |= other.scores(fake, other.real(b))
        return found

    def measure_lengths(self, book: Ledger, rank: int, world: int) -> None:
        """StyleGAN's path length in each target domain, every path with a source of its own."""
        if "ppl" not in self.groups:
            return
        from gen.metrics.path_length import perceptual_path_length  # slow to import

        domains = range(len(self.images.domains))
        todo = [y for y in domains[rank::world] if y not in book.done("ppl", "latent")]
        for y in tqdm(todo, "path length", disable=None):
            began = time.perf_counter()
            units = [s.index for s in self.sources if s.target == y]

            def generate(z: Tensor, source: Tensor, y=y, units=units) -> Tensor:
                x, _ = gallery.batch(self.method, self.images, [units[i] for i in source.tolist()])
                return self.decode(self.method.encode(x), self.method.map_style(z, y))

            found = perceptual_path_length(
                generate,
                self.method.latent_dim,
                PATHS * len(units),
                classes=len(units),
                seed=self.seed,
                batch_size=self.batch_size,
                device=gallery.device(self.method),
            )
            values = {name: {y: value} for name, value in found.items()}
            book.add("ppl", "latent", time.perf_counter() - began, values)

    def fakes(self, sources: Sequence[Source], guide: str) -> Iterator[Tensor]:
        """Translations of the sources, (n, K, 3, H, W) at a time."""
        for i in range(0, len(sources), self.batch_size):
            block = sources[i : i + self.batch_size]
            x, _ = gallery.batch(self.method, self.images, [s.index for s in block])
            content = self.method.encode(x)
            styles = self.draw(block, "target", guide)
            yield torch.stack([self.decode(content, s) for s in styles.unbind(1)], 1).cpu()


def _digest(judge: nn.Module | None) -> str:
    """Which network judges: the sum of its weights."""
    return "" if judge is None else str(sum(p.double().sum().item() for p in judge.parameters()))
