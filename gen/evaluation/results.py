"""Rows of an evaluation: means and intervals of values, as JSON lines and as a table."""

import json
import platform
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from gen.checkpoint import find
from gen.devices import float64
from gen.files import sha256
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

Values = Iterator[tuple[str, str, Tensor]]  # name, protocol, (N,) with NaN where it has no meaning


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
        """Adds what a group finds of the N sources `numbers`, and how long that takes."""
        began = time.perf_counter()
        for name, protocol, of_block in values:
            self.protocols[name] = protocol
            found = zip(numbers, float64(of_block).tolist(), strict=True)
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
        common |= {f"{name}_sha256": file and sha256(find(file)) for name, file in files.items()}
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
