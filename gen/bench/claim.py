"""A claim is a question that several arms answer, each trained with several seeds.

`configs/claims/NAME.yaml` holds one claim:

    question    text; what the claim asks
    data        optional command that makes the data, a script or a command of `gen`, such as
                "gen prepare emoji --out data/emoji"
    judge       optional {config, options}: a network trained first, `{judge}` in `evaluate`
    config      configuration of `gen fit` that all arms share
    cost        core-hours of one run
    seeds       list of whole numbers
    arms        name -> {options, config, against}: options of `gen fit` in which the arm differs,
                its own config, and the arm that it is compared with
    evaluate    options of `gen evaluate`, such as {metrics: [motion], count: 200}
    means       optional: name of a value -> the values whose mean it is
    metrics     names of the values in the tables; * stands for any text
    goals       list of {arm, metric, measure, at_least or at_most}; see `Goal`
    frontiers   optional list of pairs of metrics, drawn against each other
    picture     optional command that draws an arm's pictures: {checkpoint} is the file, {out} a
                folder or the name of a file without .png
    smoke       {options, evaluate, judge}: what replaces the above in a short trial of all arms

Runs are compared with the runs of `against` that have the same seed.
"""

import glob
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from gen.files import packaged, read_yaml

FOLDER = Path("configs/claims")
MEASURES = ("value", "difference", "share")
NEEDED = ("question", "config", "cost", "seeds", "arms", "evaluate", "metrics", "goals", "smoke")


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Args:
        config: configuration file of `gen fit`.
        options: options of `gen fit` and their values.
        against: name of the arm that this one is compared with; empty for a baseline.
    """

    config: str
    options: Mapping[str, Any] = field(default_factory=dict)
    against: str = ""


@dataclass(frozen=True)
class Goal:
    """A number that a claim hopes for.

    Args:
        arm: arm that should reach the goal.
        metric: name of the value.
        measure: `value` of the arm, its `difference` to the arm it is compared with, or its
            `share`, the ratio of both.
        at_least: lower bound; None if `at_most` is given.
        at_most: upper bound; None if `at_least` is given.
    """

    arm: str
    metric: str
    measure: str
    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        bound = f"at least {self.at_least}" if self.at_most is None else f"at most {self.at_most}"
        return f"{self.arm}: {self.measure} of {self.metric} {bound}"


@dataclass(frozen=True)
class Claim:
    """A claim, as its file says it; see the first lines of this module."""

    path: Path
    question: str
    config: str
    cost: float
    seeds: list[int]
    arms: dict[str, Arm]
    evaluate: dict[str, Any]
    metrics: list[str]
    goals: list[Goal]
    smoke: dict[str, dict]
    data: str = ""
    judge: Arm | None = None
    means: dict[str, list[str]] = field(default_factory=dict)
    frontiers: list[list[str]] = field(default_factory=list)
    picture: str = ""

    @property
    def name(self) -> str:
        return self.path.stem


def find(name: str) -> Path:
    """File of a claim: a path, or a name with or without `claims/` and `.yaml`.

    Raises:
        ValueError: no such claim; names all of `configs/claims`.
    """
    stem = name.removesuffix(".yaml").removeprefix("configs/").removeprefix("claims/")
    for path in map(packaged, (name, FOLDER / f"{stem}.yaml")):
        if path.is_file():
            return path
    known = " ".join(path.stem for path in sorted(packaged(FOLDER).glob("*.yaml")))
    where = known or f"none in {FOLDER}; run it in a clone of the repository"
    raise ValueError(f"gen bench: expected a claim ({where}), got {name}")


def read(path: Path) -> Claim:
    """Reads the file of a claim.

    Raises:
        WeightsError: not YAML.
        ValueError: something is missing, unknown or contradicts itself.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected keys and values, got {type(raw).__name__}")
    known = set(Claim.__dataclass_fields__) - {"path"}
    if wrong := sorted(map(str, {*raw} - known)):
        raise ValueError(f"{path}: expected keys of {sorted(known)}, got {', '.join(wrong)}")
    if missing := [key for key in NEEDED if raw.get(key) in (None, "", [], {})]:
        raise ValueError(f"{path}: expected {', '.join(NEEDED)}, got none of {', '.join(missing)}")
    try:
        arms = {
            str(k): Arm(**{"config": raw["config"]} | (v or {})) for k, v in raw["arms"].items()
        }
        judge = Arm(**raw["judge"]) if raw.get("judge") else None
        goals = [Goal(**goal) for goal in raw["goals"]]
        numbers = dict(cost=float(raw["cost"]), seeds=[*map(int, raw["seeds"])])
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected a claim as gen.bench.claim says, got {error}"
        ) from error
    claim = Claim(path, **raw | numbers | dict(arms=arms, judge=judge, goals=goals))
    _check(claim)
    return claim


def _check(claim: Claim) -> None:
    for name, arm in claim.arms.items():
        if seeds := {"model.seed", "data.seed"} & {*arm.options}:
            raise ValueError(f"{claim.path}: {name}: expected `seeds`, got {min(seeds)}")
        if not name.replace("_", "a").isalnum():
            raise ValueError(f"{claim.path}: expected letters, digits and _ in an arm, got {name}")
        if arm.against and claim.arms.get(arm.against, arm).against:
            raise ValueError(
                f"{claim.path}: {name}: expected `against` an arm that is compared with no other, "
                f"got {arm.against}"
            )
    for goal in claim.goals:
        if goal.arm not in claim.arms or goal.measure not in MEASURES:
            raise ValueError(
                f"{claim.path}: expected goals for {' '.join(claim.arms)} in {' '.join(MEASURES)}, "
                f"got {goal}"
            )
        if (goal.at_least is None) == (goal.at_most is None):
            raise ValueError(f"{claim.path}: expected at_least or at_most, got {goal}")
        if not any(fnmatchcase(goal.metric, pattern) for pattern in claim.metrics):
            raise ValueError(f"{claim.path}: {goal}: expected a metric of `metrics`")
        if goal.measure != "value" and not claim.arms[goal.arm].against:
            raise ValueError(f"{claim.path}: {goal}: expected an arm with `against`")


def shorten(claim: Claim) -> Claim:
    """The claim for a trial: its first seed, and the values that `smoke` replaces."""
    smoke, change = claim.smoke, {}
    change["seeds"] = claim.seeds[:1]
    change["evaluate"] = claim.evaluate | smoke.get("evaluate", {})
    change["arms"] = {
        name: Arm(arm.config, {**arm.options, **smoke.get("options", {})}, arm.against)
        for name, arm in claim.arms.items()
    }
    if claim.judge:
        options = {**claim.judge.options, **smoke.get("judge", {})}
        change["judge"] = Arm(claim.judge.config, options)
    return Claim(**{**vars(claim), **change})


def words(options: Mapping[str, Any]) -> list[str]:
    """Words of a command line: {max_sources: 3, net: [a, b]} -> --max-sources 3 --net a b.

    Options with a dot are those of `gen fit` and keep their underscores. Of the others, True is a
    bare option, and False is none.
    """
    found: list[str] = []
    for key, value in options.items():
        of_fit = "." in key
        if value is False and not of_fit:
            continue
        found.append(f"--{key if of_fit else key.replace('_', '-')}")
        if (isinstance(value, bool) or value is None) and of_fit:
            value = "null" if value is None else str(value).lower()
        if isinstance(value, list | tuple):
            found += map(str, value)
        elif value is not True:
            found.append(str(value))
    return found


def command(text: str, **values: str | Path) -> list[str]:
    """Words for Python of a command in a claim's file, which begins with `gen` or a script.

    `{name}` becomes its value, `*` all files that fit.

    Raises:
        ValueError: another name in braces, or no file that fits.
    """
    found: list[str] = []
    for word in shlex.split(text):
        word = fill(word, **values)
        if re.search(r"\{\w+\}", word):
            known = ", ".join(f"{{{name}}}" for name in values)
            raise ValueError(f"expected a command with {known}, got {text!r}")
        files = sorted(glob.glob(word)) if "*" in word else [word]
        if not files:
            raise ValueError(f"expected files that fit {word}, got none, in the command {text!r}")
        found += files
    return ["-m", *found] if found[:1] == ["gen"] else found


def fill(word: str, **values: str | Path) -> str:
    """A word with each `{name}` replaced by its value; other braces stay."""
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", str(value))
    return word
