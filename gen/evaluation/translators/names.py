"""Names of the values of a translator's evaluation: `group/what/name_protocol`."""

from collections.abc import Iterator
from typing import NamedTuple

from gen.evaluation.features import HELD, SECOND, better
from gen.evaluation.results import FRAMES, LOWER, Key, Results
from gen.evaluation.translators.plan import GUIDES, ordered_pairs
from gen.metrics.gradual import BETTER as GRADUAL
from gen.metrics.gradual import gradual
from gen.metrics.nearest import NEAREST_PX
from gen.metrics.smoothness import BETTER, value_name
from gen.metrics.translation import bootstrap

FLOORS = {  # fidelity of images that no method made
    "source": f"up to {HELD} validation images of the source domain, left as they are",
    "real": f"up to {HELD} validation images of the target domain, on paired data the true twins",
    "halves": "every other training image of the target domain against the rest",
}
CONTROLS = {  # paths between domains that no model makes
    "dissolve": "the first and the last latent-guided frame, mixed pixel by pixel",
    "nearest": f"training images nearest to each latent-guided frame at {NEAREST_PX} px",
    "twins": "the true images of the two domains, mixed pixel by pixel",
    "source": "the source left as it is",
}
Name = tuple[str, str]  # name and protocol
UNNAMED = "", ""  # a value that is reported elsewhere


class Protocol(NamedTuple):
    """The settings under which values were measured; rows state them."""

    domains: list[str]
    img_size: int
    outputs: dict[str, int]  # K for each guide
    net: str  # LPIPS network
    grid: str  # alphas of paths
    classifier: str  # model name of the classifier
    second: str | None  # second backbone
    unseen: str  # backbone that judges mid-path frames
    seed: int

    def rows(self, book: Results, groups: list[str]) -> Iterator[tuple[str, str, dict]]:
        """Yields (group, guide, row) of all values measured in `groups`."""
        pairs = ordered_pairs(len(self.domains))
        for (group, guide, value), of_unit in [*book.values.items(), *_gradual(book)]:
            known = group.removesuffix("_kd") in groups
            if not (of_unit and known and guide in (*self.outputs, *FLOORS, "dissolve")):
                continue
            if (group, guide, value) in book.about:
                how, better, _ = book.about[group, guide, value]
                name, protocol = value, f"{how}, {self.img_size} px"
            else:
                name, protocol = self.name(group, guide, value)
                better = self.better(group, value)
            if not name:
                continue
            ordered = [v for _, v in sorted(of_unit.items())]
            mean, low, high = bootstrap(ordered, self.seed)
            row = dict(metric=name, value=mean, ci95=[low, high], protocol=protocol)
            row |= dict(count=len(ordered), better=better, values=of_unit)
            yield group, guide, row
            if group == "fidelity" and guide not in FLOORS:
                for unit, v in sorted(of_unit.items()):
                    a, b = (self.domains[y] for y in pairs[unit])
                    single = dict(metric=f"{name}/{a}>{b}", value=v, ci95=None, count=1)
                    yield group, guide, row | single | {"values": {unit: v}}

    def name(self, group: str, guide: str, value: str) -> Name:
        """Name and protocol of a value."""
        if group == "ppl":
            name, how = f"latent/{value}", "4 paths a source, mean over target domains"
        elif group in ("intra", "inter"):
            name, how = self.path(group, guide, value)
        elif group == "psi":
            group, psi, key = value.split("/")
            name, how = self.path(group, f"{guide}_psi{psi}", key)
        else:
            name, how = getattr(self, group)(guide, value)
        px = f", {self.img_size} px" + " seen at 256 px" * (group in ("intra", "inter"))
        return (name, how + px) if name else UNNAMED

    def better(self, group: str, value: str) -> str:
        """The better direction of a value of paths or sets."""
        if group in ("fidelity", "middle_kd"):
            return better(value)
        if group == "ppl":
            return LOWER
        key = value.rpartition("/")[2].partition("@")[0]
        return (BETTER | GRADUAL)[key]

    def controls(self, guide: str, value: str) -> Name:
        control, key = value.split("/")
        name, _ = self.path("inter", control, key)
        return (name, f"{CONTROLS[control]}, seen at 256 px") if name else UNNAMED

    def middle(self, guide: str, value: str) -> Name:
        return self.path("inter", guide, value)

    def middle_kd(self, guide: str, value: str) -> Name:
        held = "against the training images of both, mean over pairs of domains"
        how = self.path_kind("inter", guide) + ", frames at alpha .4, .5, .6" * (guide != "real")
        return f"middle/{guide}/{value}", f"{how}, {held}"

    def made(self, guide: str) -> str:
        return f"{self.outputs[guide]} {guide}-guided outputs a source, clamped as when saved"

    def path(self, group: str, guide: str, value: str) -> Name:
        key, _, other = value.partition("@")
        if key == "pplsq" and (other or self.net) != "vgg":
            return UNNAMED
        on = "" if self.grid == "released" else f"_{self.grid}"
        ends = {
            "released": f"0..{1 - 1 / FRAMES:g}",
            "strict": "0..1",
            "uniform": "0..1 in steps equal to the eye",
        }[self.grid]
        name = value_name(key, FRAMES, other or self.net) + on
        how = f"{self.path_kind(group, guide)}, alpha {ends}"
        if key in ("realism", "membership"):  # both use mid-path frames, whatever the grid
            name = f"{key}_{self.unseen if key == 'realism' else self.classifier}"
            how = self.path_kind(group, guide)
            how += ", frames at alpha .4, .5, .6" * (guide != "real")
        elif key == "gradual":
            name = f"{name}_{self.unseen}"
        return f"{group}/{guide}/{name}", how

    def path_kind(self, group: str, guide: str) -> str:
        """Kind of a path, named after its two ends."""
        if guide in CONTROLS:
            return CONTROLS[guide]
        if guide == "real":
            return "validation images of the two domains"
        between = {"intra": "two styles of a domain", "inter": "styles of two domains"}[group]
        of, _, psi = guide.partition("_psi")
        how = f"{of}-guided, between {between}, lerp"
        return f"{how}, {psi} times as far from the domains' centres" if psi else how

    def fidelity(self, guide: str, value: str) -> Name:
        held = "against the training images, mean over ordered pairs of domains"
        if guide in FLOORS:
            return f"fidelity/{guide}/{value}", f"{FLOORS[guide]}, {held}"
        k = self.outputs[guide]
        if self.second and f"_{self.second}" in value:
            k, held = min(k, SECOND), f"{held}; the first {SECOND} outputs"
        return f"fidelity/{guide}/{value}_{k}x", f"{self.made(guide)} {held}"


def _gradual(book: Results) -> Iterator[tuple[Key, dict[int, float]]]:
    """Computes `gradual`, source by source, from `inter` or `controls` and `middle`."""
    for guide in (*GUIDES, "dissolve"):
        where = ("inter", guide, "") if guide in GUIDES else ("controls", "latent", f"{guide}/")
        path = [book.values.get((*where[:2], where[2] + key), {}) for key in ("travel", "progress")]
        columns = [*path, book.values.get(("middle", guide, "realism"), {})]
        units = sorted(set.intersection(*map(set, columns)))
        yield ("middle", guide, "gradual"), {u: gradual(*(c[u] for c in columns)) for u in units}
