"""Results of an evaluation, for every kind of method: values of single units, and their rows.

An evaluator measures groups of values on blocks of units; a unit is a source, an image, a clip, a
path or a pair of domains. It yields each value as (name, protocol, one number per unit, better).
`Results` writes the values to disk as they come, so an interrupted evaluation resumes. A row is a
mean with its interval and provenance; rows are written as JSON lines or as a table.
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
import torch.distributed as dist
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
FRAMES = 20  # frames per path
FORMAT = 2  # of a ledger; format 1 named the values of outputs differently
HIGHER, LOWER, NEITHER = "higher", "lower", "none"  # better direction of a value

Key = tuple[str, str, str]  # group, guide, value
Values = Iterator[tuple[str, str, Tensor, str]]  # name, protocol, (N,) with NaN if unknown, better
SetValues = Iterator[
    tuple[str, str, float, int, str]
]  # a set: name, protocol, value, count, better


class About(NamedTuple):
    """Protocol and better direction of a row; the size of the set for a value of a whole set."""

    protocol: str
    better: str
    count: int | None = None  # size of the whole set; None: a value of units


class Results:
    """Values (group, guide, name) -> {unit: value}, in memory and on disk.

    The file holds JSON lines: a head that identifies the evaluation, then one line for the values
    that were measured together. An incomplete last line is dropped. Under torch.distributed every
    process reads it, and the first one writes it.

    Args:
        path: file to read, if it exists, and to append to; None keeps all values in memory.
        head: values that identify the evaluation: checkpoint, data, seed. A file with another
            head is refused.
        judges: other settings that decide the values of each group, such as the LPIPS network;
            lines measured with other settings are ignored.

    Raises:
        ValueError: the file has another head, or lines that are no values of an evaluation.
    """

    def __init__(self, path: str | Path | None, head: dict, judges: dict[str, str]) -> None:
        self.path, self.judges = Path(path) if path else None, judges
        parallel = dist.is_available() and dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
        self.lines: list[dict] = []  # of this process, which the first one has yet to write
        self.values: dict[Key, dict[int, float]] = defaultdict(dict)
        self.about: dict[Key, About] = {}
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.units: dict[tuple[str, str], set[int]] = defaultdict(set)  # units that were measured
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
            if self.rank == 0:
                write_atomic(self.path, data)
        if (
            self.path
            and self.rank == 0
            and (not self.path.exists() or not self.path.stat().st_size)
        ):
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
        """Adds values of one group and guide, each {unit: value}, measured in `seconds`.

        `units` are the measured units, including units without a value.
        """
        line = dict(group=group, guide=guide, judge=self.judges[group], seconds=round(seconds, 3))
        line["values"] = values
        if about is not None:
            line |= dict(about=about, units=list(units))
        self._take(**line)
        self._write(line)

    def _write(self, line: dict) -> None:
        if self.rank:
            self.lines.append(line)
        elif self.path:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:  # the error of a full disk names no file
                raise OSError(error.errno, error.strerror, str(self.path)) from error

    def take(self, group: str, units: Sequence[int], found: Values, guide: str = "") -> None:
        """Adds the values that a group yields for N units, and the time that they take."""
        began, values, about = time.perf_counter(), {}, {}
        for name, protocol, of_unit, better in found:
            numbers = zip(units, float64(of_unit).tolist(), strict=True)
            values[name] = {u: value for u, value in numbers if value == value}  # not NaN
            about[name] = About(protocol, better)
        self.add(group, guide, time.perf_counter() - began, values, about, units)

    def take_set_values(self, group: str, found: SetValues) -> None:
        """Adds values of whole sets, such as the distance between two sets."""
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
        """Measures the values that are still missing: `values(group, block(some units))`.

        Under torch.distributed the processes share the blocks, and each gets all values.
        """
        starts = range(self.rank * batch_size, len(units), self.world * batch_size)
        for i in tqdm(starts, "evaluate", disable=None):
            some = units[i : i + batch_size]
            if todo := [group for group in groups if not self.done(group).issuperset(some)]:
                made = block(some)
                for group in todo:
                    self.take(group, some, values(group, made))
        self.share()

    def share(self) -> None:
        """Gives every process the values of all processes, and writes them."""
        if self.world == 1:
            return
        parts: list = [None] * self.world
        dist.all_gather_object(parts, self)
        self.lines = []
        for part in parts[: self.rank] + parts[self.rank + 1 :]:
            self.update(part)
            for line in part.lines if self.rank == 0 else ():
                self._write(line)

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
        """Adds the values of another process, and takes the seconds of the slower process."""
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
        conditions: str,
        seed: int,
        groups_of: Callable[[Sequence[int]], np.ndarray | None] = lambda units: None,
        unit_name: str = "",
        **files: str | Path | None,
    ) -> list[dict]:
        """Rows of these groups: means over units, with a bootstrap over units.

        Args:
            groups: groups in the order of the rows.
            units: units that the means are taken over.
            conditions: text at the end of each protocol.
            seed: seed of the bootstrap, which the rows state.
            groups_of: function that gives the group of each unit, if the bootstrap draws groups.
            unit_name: plural name of units without a value, if the protocol states their number.
            files: name and path of each file whose sha256 the rows state, as `NAME_sha256`.
        """
        order, out = list(units), []
        common, wanted = provenance(seed, **files), set(order)
        for group in groups:
            for key in [key for key in self.values if key[0] == group and key in self.about]:
                protocol, better, count = self.about[key]
                of_unit = self.values[key]
                if count is None:
                    # in one order, whichever process measured what: the bootstrap depends on it
                    of_unit = {unit: of_unit[unit] for unit in order if unit in of_unit}
                if not of_unit:
                    continue
                protocol += f", {conditions}" * bool(conditions)
                ci95, values = None, {}
                if count is None:
                    drawn, values, count = groups_of([*of_unit]), of_unit, len(of_unit)
                    value, *ci95 = bootstrap([*of_unit.values()], seed, groups=drawn)
                    missing = len(wanted & self.units[key[:2]]) - count
                    protocol += f", without {missing} {unit_name}" * bool(unit_name and missing)
                    if drawn is not None:
                        protocol += f", {count} images in {len(set(drawn))} groups"
                else:
                    [value] = of_unit.values()
                found = dict(metric=key[2], value=value, ci95=ci95, protocol=protocol, count=count)
                seconds = {"seconds": round(self.seconds[key[:2]], 2)}
                out.append(found | {"better": better, "values": values} | common | seconds)
        return out


def provenance(seed: int, **files: str | Path | None) -> dict:
    """Provenance of rows: the seed, `NAME_sha256` of each file, versions."""
    common = {"seed": seed}
    common |= {f"{name}_sha256": file and sha256(find(file)) for name, file in files.items()}
    return common | {"versions": versions()}


def head(checkpoint: str | Path | None, seed: int, *data) -> dict:
    """Head of a ledger: format, sha256 of the checkpoint, fingerprint of the data sets, seed."""
    digest = sha256(find(checkpoint)) if checkpoint else None
    return dict(format=FORMAT, checkpoint=digest, data=" ".join(map(fingerprint, data)), seed=seed)


def fingerprint(images) -> str:
    """Identifies a data set by its kind, options, size, the name and label of each element, and by
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
    """Identifies the network of a judge by the sum of its weights."""
    if network is None:
        return ""
    return str(sum(float64(p).sum().item() for p in network.parameters()))


def to_json(rows: Sequence[Mapping]) -> str:
    """JSON lines, one per row, without the values of single units."""
    return "".join(
        json.dumps({k: v for k, v in row.items() if k != "values"}) + "\n" for row in rows
    )


def from_json(path: str | Path) -> list[dict]:
    """Rows of a file that holds the lines of `to_json`.

    Raises:
        ValueError: the file holds other lines; the message names the file.
    """
    try:
        rows = [json.loads(line) for line in Path(path).read_bytes().splitlines() if line]
        for row in rows:
            float(row["value"]), row["metric"].strip()
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected JSON lines with `metric` and `value`, as gen evaluate --out writes, "
            f"got {type(error).__name__}: {error!s:.200}"
        ) from error
    return rows


def to_table(rows: Sequence[Mapping]) -> str:
    """Table to print: means, without the values of single pairs of domains."""
    rows = [row for row in rows if ">" not in row["metric"]]
    width = max(len(row["metric"]) for row in rows)
    lines = [f"{'metric':{width}}  {'value':>8}  {'95 % interval':>17}  {'n':>5}  protocol"]
    for r in rows:
        interval = "{:.4f} .. {:.4f}".format(*r["ci95"]) if r["ci95"] else ""
        numbers = f"{r['value']:8.4f}  {interval:>17}  {r['count']:5}"
        lines.append(f"{r['metric']:{width}}  {numbers}  {r['protocol']}")
    return "\n".join(lines)


def versions() -> dict[str, str]:
    """Versions of the software behind a result, and the kind of machine (no names, no paths)."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    found["system"] = f"{platform.system()} {platform.machine()}"
    found["device"] = "MPS" if torch.backends.mps.is_available() else "CPU"
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
    return found
