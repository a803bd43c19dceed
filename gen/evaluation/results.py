"""The results of an evaluation, of every kind of method: values of single units and their rows.

An evaluator measures groups of values on blocks of units: a unit is a source, an image, a clip, a
path or a pair of domains. It yields each value as (name, protocol, one number a unit, better), and
`Results` keeps them, on disk as they come, so that an evaluation that was cut goes on. Rows are
means and intervals of these, with what produced them, as JSON lines and as a table.
"""

import hashlib
import json
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from gen.checkpoint import find
from gen.devices import float64
from gen.files import sha256, write_atomic
from gen.metrics.translation import bootstrap

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "timm",
    "lpips",
    "torch-fidelity",
    "opencv-python-headless",
)
FRAMES = 20  # of a path
FORMAT = 2  # of a file of values; those of 1 named values of outputs otherwise
HIGHER, LOWER, NEITHER = "higher", "lower", "none"  # which direction of a value is better

Key = tuple[str, str, str]  # group, guide, value
Values = Iterator[tuple[str, str, Tensor, str]]  # name, protocol, (N,) NaN: no meaning, better
Wholes = Iterator[tuple[str, str, float, int, str]]  # of a whole set: .., value, count, better


class About(NamedTuple):
    """The words of a row: protocol, better direction, and the size of a whole set."""

    protocol: str
    better: str
    count: int | None = None  # of what a value of a whole set is of; None: it has units


class Results:
    """(group, guide, name) -> {unit: value}, in memory and on disk.

    On disk it is JSON lines: a head that says what is evaluated, then one line for what was
    measured together. A line that an interruption cut short is dropped.

    Args:
        path: file that is read if it exists, and grows; None keeps all in memory.
        head: values that must be equal for others to be compared or continued: checkpoint, data,
            seed.
        judges: what else decides the values of each group, such as the LPIPS network; lines that
            were measured with another are left aside.

    Raises:
        ValueError: the file has another head, or other lines than these.
    """

    def __init__(self, path: str | Path | None, head: dict, judges: dict[str, str]) -> None:
        self.path, self.judges = Path(path) if path else None, judges
        self.values: dict[Key, dict[int, float]] = defaultdict(dict)
        self.about: dict[Key, About] = {}
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.units: dict[tuple[str, str], set[int]] = defaultdict(set)  # that were measured
        if self.path and self.path.exists():
            data = self.path.read_bytes()
            data = data[: data.rfind(b"\n") + 1]  # a whole line ends with a newline
            try:
                found, *rest = [json.loads(line) for line in data.splitlines()] or [head]
                keys = [k for k in head if found.get(k) != head[k]] + sorted({*found} - {*head})
                for line in rest:
                    self._take(**line)
            except (AttributeError, RecursionError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{self.path}: expected values of an evaluation, got {type(error).__name__}: "
                    f"{error!s:.200}; delete it or write elsewhere"
                ) from error
            if keys:
                raise ValueError(
                    f"{self.path}: expected an evaluation with {', '.join(keys)} = "
                    f"{', '.join(str(head.get(k)) for k in keys)}, got "
                    f"{', '.join(str(found.get(k)) for k in keys)}; delete it or write elsewhere"
                )
            write_atomic(self.path, data)
        if self.path and (not self.path.exists() or not self.path.stat().st_size):
            write_atomic(self.path, (json.dumps(head) + "\n").encode())

    # ---- values as they come --------------------------------------------------------------------

    def add(
        self,
        group: str,
        guide: str,
        seconds: float,
        values: dict[str, dict[int, float]],
        about: dict[str, About] | None = None,
        units: Iterable[int] = (),
    ) -> None:
        """Values of one group and guide, each {unit: value}, measured in `seconds`.

        `units` are those that were measured: some may have no value.
        """
        line = dict(group=group, guide=guide, judge=self.judges[group], seconds=round(seconds, 3))
        line["values"] = values
        if about is not None:
            line |= dict(about=about, units=list(units))
        self._take(**line)
        if self.path:
            try:
                with self.path.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:  # a full disk names no file
                raise OSError(error.errno, error.strerror, str(self.path)) from error

    def take(self, group: str, units: Sequence[int], found: Values, guide: str = "") -> None:
        """Adds what a group finds of N units, and how long that takes."""
        began, values, about = time.perf_counter(), {}, {}
        for name, protocol, of_unit, better in found:
            numbers = zip(units, float64(of_unit).tolist(), strict=True)
            values[name] = {u: value for u, value in numbers if value == value}  # not NaN
            about[name] = About(protocol, better)
        self.add(group, guide, time.perf_counter() - began, values, about, units)

    def take_wholes(self, group: str, found: Wholes) -> None:
        """Adds values that single units do not have, such as the distance of two sets."""
        began, values, about = time.perf_counter(), {}, {}
        for name, protocol, value, count, better in found:
            values[name], about[name] = {0: value}, About(protocol, better, count)
        self.add(group, "", time.perf_counter() - began, values, about, [0])

    def measure(
        self,
        groups: Iterable[str],
        units: Sequence[int],
        batch_size: int,
        block: Callable[[Sequence[int]], Any],
        values: Callable[[str, Any], Values],
    ) -> None:
        """Measures what is not known yet: `values(group, block(some units))`."""
        for i in tqdm(range(0, len(units), batch_size), "evaluate", disable=None):
            some = units[i : i + batch_size]
            if todo := [group for group in groups if not self.done(group).issuperset(some)]:
                made = block(some)
                for group in todo:
                    self.take(group, some, values(group, made))

    def _take(
        self, group: str, guide: str, judge: str, seconds: float, values: dict, about=(), units=()
    ) -> None:
        if self.judges.get(group) == judge:
            self.seconds[group, guide] += seconds
            self.units[group, guide].update(units)
            for name, of_unit in values.items():
                self.values[group, guide, name] |= {int(u): v for u, v in of_unit.items()}
                self.units[group, guide].update(map(int, of_unit))
            for name, what in dict(about).items():
                self.about[group, guide, name] = About(*what)

    def done(self, group: str, guide: str = "") -> set[int]:
        """Units that were measured."""
        return self.units[group, guide]

    def update(self, other: "Results") -> None:
        """Takes another process's values; of the seconds, the slower process's."""
        for key, of_unit in other.values.items():
            self.values[key] |= of_unit
        self.about |= other.about
        for key, units in other.units.items():
            self.units[key] |= units
        for key, seconds in other.seconds.items():
            self.seconds[key] = max(self.seconds[key], seconds)

    # ---- rows -----------------------------------------------------------------------------------

    def rows(
        self,
        groups: Iterable[str],
        units: Iterable[int],
        how: str,
        seed: int,
        together: Callable[[Sequence[int]], np.ndarray | None] = lambda units: None,
        left_out: str = "",
        **files: str | Path | None,
    ) -> list[dict]:
        """Means of these groups and units with a bootstrap over units.

        Args:
            groups: groups in the order of the rows.
            units: units that count.
            how: end of each protocol.
            seed: seed of the bootstrap, which the rows state.
            together: group of each unit, where the bootstrap has to draw whole groups.
            left_out: what units without a value are, to be counted in the protocol.
            files: name and path of each file whose sha256 the rows state, as `NAME_sha256`.
        """
        common, wanted, out = provenance(seed, **files), set(units), []
        for group in groups:
            for key in [key for key in self.values if key[0] == group and key in self.about]:
                protocol, better, count = self.about[key]
                of_unit = self.values[key]
                if count is None:
                    of_unit = {unit: v for unit, v in of_unit.items() if unit in wanted}
                if not of_unit:
                    continue
                protocol += f", {how}" * bool(how)
                ci95, values = None, {}
                if count is None:
                    drawn, values, count = together([*of_unit]), of_unit, len(of_unit)
                    value, *ci95 = bootstrap([*of_unit.values()], seed, groups=drawn)
                    missing = len(wanted & self.units[key[:2]]) - count
                    protocol += f", without {missing} {left_out}" * bool(left_out and missing)
                    if drawn is not None:
                        protocol += f", {count} images in {len(set(drawn))} groups"
                else:
                    [value] = of_unit.values()
                found = dict(metric=key[2], value=value, ci95=ci95, protocol=protocol, count=count)
                seconds = {"seconds": round(self.seconds[key[:2]], 2)}
                out.append(found | {"better": better, "values": values} | common | seconds)
        return out


def provenance(seed: int, **files: str | Path | None) -> dict:
    """The origin of rows: the seed, `NAME_sha256` of each file, versions."""
    common = {"seed": seed}
    common |= {f"{name}_sha256": file and sha256(find(file)) for name, file in files.items()}
    return common | {"versions": versions()}


def head(checkpoint: str | Path | None, seed: int, *data) -> dict:
    """The head of a file of values: the method's file, the data sets, the seed."""
    digest = sha256(find(checkpoint)) if checkpoint else None
    return dict(format=FORMAT, checkpoint=digest, data=" ".join(map(fingerprint, data)), seed=seed)


def fingerprint(images) -> str:
    """Identifies a data set: its kind, options and size, the name and label of each element, and
    whether images of one name are pairs."""
    domains = getattr(images, "domains", [])
    labels = images.labels.tolist() if hasattr(images, "labels") else []
    count = len(labels) if labels else len(images)
    names = [*getattr(images, "keys", range(count))]
    what = [list(domains), getattr(images, "img_size", 0), names, labels]
    if not labels:
        plain = (bool, int, float, str)
        options = {k: v for k, v in _vars(images) if isinstance(v, plain)}
        starts = [start for start, _ in getattr(images, "starts", [])]
        what += [type(images).__name__, options, repr(starts)]
    elif hasattr(images, "twin") and len(set(names)) < len(names):
        twins = (images.twin(i, y) for i, own in enumerate(labels) for y in _others(own, domains))
        if all(twin is None for twin in twins):
            what.append("no pairs")
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _vars(images) -> list[tuple[str, Any]]:
    return sorted(getattr(images, "__dict__", {}).items())


def _others(own: int, domains: Sequence) -> Iterator[int]:
    return (y for y in range(len(domains)) if y != own)


def weights_fingerprint(network: nn.Module | None) -> str:
    """Identifies a network that judges, by the sum of its weights."""
    if network is None:
        return ""
    return str(sum(float64(p).sum().item() for p in network.parameters()))


def to_json(rows: Sequence[Mapping]) -> str:
    """One line a row, without the values of single units."""
    return "".join(
        json.dumps({k: v for k, v in row.items() if k != "values"}) + "\n" for row in rows
    )


def from_json(path: str | Path) -> list[dict]:
    """The rows of a file of such lines.

    Raises:
        ValueError: other lines; it names the file.
    """
    try:
        rows = [json.loads(line) for line in Path(path).read_bytes().splitlines() if line]
        for row in rows:
            float(row["value"]), row["metric"].strip()
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected JSON lines with `metric` and `value`, as evaluate.py --out writes, "
            f"got {type(error).__name__}: {error!s:.200}"
        ) from error
    return rows


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


def versions() -> dict[str, str]:
    """Versions of what produced a result, and the machine's kind (no names, no paths)."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return found
