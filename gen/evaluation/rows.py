"""What the values of an evaluation are called: names with their protocol, means, intervals."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from gen.data.nearest import NEAREST_PX
from gen.evaluation.ledger import Ledger
from gen.evaluation.plan import ordered_pairs
from gen.metrics.smoothness import value_name
from gen.metrics.translation import bootstrap, protocol_names
from gen.report import versions
from gen.weights import sha256

FRAMES = 20  # of a path

Values = Iterator[tuple[str, str, Tensor]]  # name, protocol, (N,) with NaN where it has no meaning


class Protocol(NamedTuple):
    """How values were measured."""

    domains: list[str]
    img_size: int
    outputs: dict[str, int]  # K for each guide
    net: str  # LPIPS network
    grid: str  # alphas of paths
    classifier: str  # model name of the classifier
    seed: int

    def rows(self, book: Ledger, groups: list[str]) -> Iterator[tuple[str, str, dict]]:
        """(group, guide, row) of everything that was measured in `groups`."""
        pairs = ordered_pairs(len(self.domains))
        for (group, guide, value), of_unit in book.values.items():
            name, protocol = self.name(group, guide, value)
            if not name or not of_unit or group not in groups:
                continue
            ordered = [v for _, v in sorted(of_unit.items())]
            mean, low, high = bootstrap(ordered, self.seed)
            row = dict(metric=name, value=mean, ci95=[low, high], protocol=protocol)
            yield group, guide, row | {"count": len(ordered), "values": of_unit}
            if group == "fidelity":
                for unit, v in sorted(of_unit.items()):
                    a, b = (self.domains[y] for y in pairs[unit])
                    single = dict(metric=f"{name}/{a}>{b}", value=v, ci95=None, protocol=protocol)
                    yield group, guide, single | {"count": 1, "values": {unit: v}}

    def name(self, group: str, guide: str, value: str) -> tuple[str, str]:
        """Name and protocol of a value, empty for one that is reported elsewhere."""
        k, px = self.outputs[guide], f"{self.img_size} px"
        made = f"{k} {guide}-guided outputs a source"
        if group in ("intra", "inter"):
            key, _, other = value.partition("@")
            if key == "pplsq" and (other or self.net) != "vgg":
                return "", ""
            on = "" if self.grid == "released" else f"_{self.grid}"
            between = {"intra": "two styles of a domain", "inter": "styles of two domains"}[group]
            ends = {
                "released": f"0..{1 - 1 / FRAMES:g}",
                "strict": "0..1",
                "uniform": "0..1 in steps equal to the eye",
            }[self.grid]
            name = value_name(key, FRAMES, other or self.net) + on
            return f"{group}/{guide}/{name}", (
                f"{guide}-guided, between {between}, lerp, alpha {ends}, {px} seen at 256 px"
            )
        if group == "fidelity":
            held = "against the training images, mean over ordered pairs of domains"
            return f"fidelity/{guide}/{value}_{k}x", f"{made} {held}, {px}"
        if group == "ppl":
            return f"latent/{value}", f"4 paths a source, mean over target domains, {px}"
        if group == "identity":
            return f"{guide}/identity_irse50", f"{made}, {px}"
        if group == "accuracy":
            name = f"accuracy_{self.classifier}"
            shared = {"real": ("real", "the sources themselves, held out from training")}
        else:
            name = protocol_names(k, self.net)[value]
            shared = {
                "unchanged": ("source", "the source left as it is"),
                "nearest": ("nearest", f"training image nearest to the source at {NEAREST_PX} px"),
            }
        kind = value.partition("_")[0]
        if kind not in shared:
            return f"{guide}/{name}", f"{made}, {px}"
        if guide != "latent":  # the same for both guides
            return "", ""
        prefix, what = shared[kind]
        return f"{prefix}/{name.replace(kind, 'paired')}", f"{what}, {px}"


class Singles:
    """Values of single sources, by group and name: `values[group, name][number]`.

    And `wholes[group, name]`, a value of all of them together and how many they are.
    """

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        self.wholes: dict[tuple[str, str], tuple[float, int]] = {}
        self.protocols: dict[str, str] = {}
        self.seconds: dict[str, float] = defaultdict(float)

    def add(self, group: str, numbers: Sequence[int], values: Values) -> None:
        """What a group finds of the N sources `numbers`, and how long that takes."""
        began = time.perf_counter()
        for name, protocol, of_block in values:
            self.protocols[name] = protocol
            found = zip(numbers, of_block.double().tolist(), strict=True)
            if new := {i: value for i, value in found if value == value}:  # not NaN
                self.values[group, name].update(new)
        self.seconds[group] += time.perf_counter() - began

    def add_whole(self, group: str, name: str, protocol: str, value: float, count: int) -> None:
        """A value that single sources do not have, such as the distance of two sets."""
        self.protocols[name], self.wholes[group, name] = protocol, (value, count)

    def rows(self, how: str, seed: int, **files: str | Path | None) -> list[dict]:
        """Means with a bootstrap over sources, then values of all together, with none. `how` ends
        each protocol; of `files`, the name and the path of each, the rows state the sha256 as
        `NAME_sha256`."""
        common = {"seed": seed}
        common |= {f"{name}_sha256": file and sha256(file) for name, file in files.items()}
        common["versions"] = versions()
        out = []
        for (group, name), of_source in self.values.items():
            mean, *ci95 = bootstrap(list(of_source.values()), seed)
            found = row(name, mean, ci95, f"{self.protocols[name]}, {how}", len(of_source))
            seconds = {"seconds": round(self.seconds[group], 2)}
            out.append(found | {"values": of_source} | common | seconds)
        for (group, name), (value, count) in self.wholes.items():
            found = row(name, value, None, f"{self.protocols[name]}, {how}", count)
            out.append(found | common | {"seconds": round(self.seconds[group], 2)})
        return out


def row(
    metric: str, value: float, ci95: list[float] | None, protocol: str, count: int, values=()
) -> dict:
    numbers = {"metric": metric, "value": value, "ci95": ci95}
    return numbers | {"protocol": protocol, "count": count, "values": dict(enumerate(values))}


def to_json(rows: Sequence[Mapping]) -> str:
    """One line a row, without the values of single sources."""
    return "".join(
        json.dumps({k: v for k, v in row.items() if k != "values"}) + "\n" for row in rows
    )


def to_table(rows: Sequence[Mapping]) -> str:
    """A table to be printed: means, not single pairs of domains."""
    rows = [row for row in rows if ">" not in row["metric"]]
    width = max(len(row["metric"]) for row in rows)
    lines = [f"{'metric':{width}}  {'value':>8}  {'95 % interval':>17}  {'n':>5}  protocol"]
    for r in rows:
        interval = "{:.4f} .. {:.4f}".format(*r["ci95"]) if r["ci95"] else ""
        numbers = f"{r['value']:8.4f}  {interval:>17}  {r['count']:5}"
        lines.append(f"{r['metric']:{width}}  {numbers}  {r['protocol']}")
    return "\n".join(lines)
