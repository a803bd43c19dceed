"""Values of an evaluation one by one, on disk as they come: what resumes it, and what pairs it."""

import hashlib
import json
from collections import defaultdict
from pathlib import Path

from gen.files import write_atomic

Key = tuple[str, str, str]  # group, guide, value


class Ledger:
    """(group, guide, value) -> {unit: value}; a unit is a source image, or a pair of domains.

    On disk it is JSON lines: a head that says what is evaluated, then one line for what was
    measured together. A line that an interruption cut short is dropped.

    Args:
        path: file that is read if it exists, and grows; None keeps all in memory.
        head: values that must be equal for others to be compared or continued: checkpoint, data,
            seed.
        judges: name of the judge of each group; lines of another judge are left aside.

    Raises:
        ValueError: the file has another head, or other lines than these.
    """

    def __init__(self, path: str | Path | None, head: dict, judges: dict[str, str]) -> None:
        self.path, self.judges = Path(path) if path else None, judges
        self.values: dict[Key, dict[int, float]] = defaultdict(dict)
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
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

    def add(self, group: str, guide: str, seconds: float, values: dict[str, dict[int, float]]):
        """Values of one group and guide, each {unit: value}, measured in `seconds`."""
        line = dict(group=group, guide=guide, judge=self.judges[group], seconds=round(seconds, 3))
        line["values"] = values
        self._take(**line)
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _take(self, group: str, guide: str, judge: str, seconds: float, values: dict) -> None:
        if self.judges.get(group) == judge:
            self.seconds[group, guide] += seconds
            for name, of_unit in values.items():
                self.values[group, guide, name] |= {int(u): v for u, v in of_unit.items()}

    def done(self, group: str, guide: str) -> set[int]:
        """Units of which something is known."""
        return {
            unit
            for (g, how, _), of_unit in self.values.items()
            if (g, how) == (group, guide)
            for unit in of_unit
        }

    def update(self, other: "Ledger") -> None:
        """Takes another process's values; of the seconds, the slower process's."""
        for key, of_unit in other.values.items():
            self.values[key] |= of_unit
        for key, seconds in other.seconds.items():
            self.seconds[key] = max(self.seconds[key], seconds)


def fingerprint(images) -> str:
    """Identifies a set of images by its domains, size, the name and label of each image, and
    whether images of one name are pairs."""
    labels = images.labels.tolist()
    names = list(getattr(images, "keys", range(len(labels))))
    what = [images.domains, images.img_size, names, labels]
    if len(set(names)) < len(names) and not any(
        images.twin(i, y) is not None
        for i, own in enumerate(labels)
        for y in range(len(images.domains))
        if y != own
    ):
        what.append("no pairs")
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
