"""Finds the images of a data set by split and domain, and refuses ambiguous layouts.

A data set is a folder, a zip, or shards (`gen.data.shards`).

These layouts are recognised, with any letter case, also inside one more folder:

    {train,val,test}/<domain>/**    also training, valid, validation, dev, testing; without val/,
                                    test/ is used for validation; another folder beside them with
                                    some of the same domains is a further split
    {train,val,test}{A,B}/**        CycleGAN's two domains
    <domain>/**                     split here, by a hash of the names; refused if all domains hold
                                    folders of the same two names, which may be the domains
    dataset.json, 00000/**          NVIDIA's for StyleGAN: classes are its labels; split here

Hidden files and __MACOSX are ignored.
"""

import hashlib
import json
import logging
import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath

from gen.data.archives import read_zip, zip_has, zip_names
from gen.data.images import SUFFIXES
from gen.data.remote import is_url
from gen.data.shards import Shards

Root = Path | Shards  # a folder or a zip, or shards
Files = dict[str, list[tuple[str, str]]]  # domain -> (key, path relative to the root)
Parts = list[list[str]]  # paths below the folder of the data set; a folder ends with ""
log = logging.getLogger(__name__)
SPLITS = ("train", "val")
SYNONYMS = {"training": "train", "valid": "val", "validation": "val", "dev": "val"}
SYNONYMS |= {"testing": "test"} | {name: name for name in (*SPLITS, "test")}
CYCLEGAN = re.compile(f"({'|'.join(SYNONYMS)})[_-]?([ab])", re.IGNORECASE)
COUNTER = re.compile(r"[\d._-]+")  # name of a folder for a year, a day, or a thousand images
WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")
VAL_SHARE = 0.1  # for a folder without train/ and val/
FEWEST_VAL = 3  # images per domain that an evaluation needs: a source and two references


def find_images(root: Root) -> dict[str, Files]:
    """Lists the images of a data set as {split: {domain: [(key, path)]}}, sorted.

    A key is the path without split, domain and suffix. The first splits are train and val.

    Raises:
        FileNotFoundError: no such folder or zip.
        ValueError: no domains, an empty domain, splits with different domains, an ambiguous
            layout, labels that do not fit, or an unsafe zip.
    """
    if isinstance(root, Path) and not root.exists():
        raise FileNotFoundError(
            f"{root}: expected a folder or zip with {{train,val}}/<domain>/*.png, found nothing; "
            "check --data.root, or make the emoji set: `gen prepare emoji --out data/emoji`"
        )
    names = file_names(root)
    top = _wrapping(names)
    parts = sorted(n[len(top) :].split("/") for n in names if n.startswith(top) and n != top)
    folders = sorted({p[0] for p in parts if len(p) > 1})
    if pairs := {f: m for f in folders if (m := CYCLEGAN.fullmatch(f))}:
        splits = _cyclegan(root, top, parts, pairs, folders)
    elif any(f.lower() in SYNONYMS for f in folders):
        splits = _splits(root, top, parts, folders)
    elif (labels := _labels(root, top, parts)) is not None:
        splits = split_by_hash(root, labels)
    else:
        _refuse_doubt(root, parts, folders)
        splits = split_by_hash(root, _by_domain(root, top, "", parts))
    train, val = (list(splits[s]) for s in SPLITS)
    if train != val:
        raise ValueError(
            f"{root}: expected the same domains in train/ and val/, got {train} and {val}"
        )
    for name, domains in splits.items():
        if strange := sorted(set(domains) - set(train)):
            raise ValueError(
                f"{root}: expected in {name}/ some of the domains of train/, got also {strange}; "
                "rename them, or move the folder elsewhere"
            )
    return splits


def of_split(root: Root, splits: dict[str, Files], split: str) -> Files:
    """Images of a split for all domains of train/; the split may lack some of them.

    Raises:
        ValueError: no such split.
    """
    if split not in splits:
        raise ValueError(
            f"split: expected one of {', '.join(splits)}, got {split!r}; each is a folder of "
            f"folders of images in {root}"
        )
    return {domain: splits[split].get(domain, []) for domain in splits["train"]}


def images_below(folder: Path) -> list[Path]:
    """The images of a folder, at any depth and sorted; logs the other files that it has."""
    names = [PurePosixPath(name) for name in file_names(folder) if name[-1] != "/"]
    _say_skipped(str(folder), [n.suffix.lower() for n in names if not is_image(n.name)])
    return [folder / name for name in sorted(names) if is_image(name.name)]


def is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def read_beside(root: Root, name: str, paths: list[str]) -> tuple[str, bytes | None]:
    """Folder and content of the file `name` of a data set with images at `paths`."""
    for top in ("", paths[0].split("/")[0] + "/"):
        if has_file(root, f"{top}{name}"):
            return top, read_file(root, f"{top}{name}")
    return "", None


def mask_of(root: Root, path: str) -> str | None:
    """Path of the mask of the image at `path`, `masks/<path>.png` beside the splits; or None."""
    for top in ("", path.split("/")[0] + "/"):
        name = str(PurePosixPath(top, "masks", path.removeprefix(top)).with_suffix(".png"))
        if has_file(root, name):
            return name
    return None


def is_paired(root: Root, paths: list[str]) -> bool | None:
    """Value of `paired` in manifest.json: images of one name are pairs; None without this value."""
    try:
        paired = json.loads(read_beside(root, "manifest.json", paths)[1] or "{}").get("paired")
    except (ValueError, AttributeError, RecursionError):
        return None  # the manifest of another program
    return paired if isinstance(paired, bool) else None


# ---- recognised layouts -------------------------------------------------------------------------


def _wrapping(names: list[str]) -> str:
    """The one folder that holds all others, with a slash, unless it may be a domain or a split."""
    tops = {n.split("/")[0] for n in names if "/" in n}
    if len(tops) != 1 or any(is_image(n) for n in names if n.count("/") < 2):
        return ""
    (top,) = tops
    split = top.lower() in SYNONYMS or CYCLEGAN.fullmatch(top)
    return "" if split or not any(is_image(n) for n in names) else f"{top}/"


def _splits(root: Root, top: str, parts: Parts, folders: list[str]) -> dict[str, Files]:
    of = {f: SYNONYMS[f.lower()] for f in folders if f.lower() in SYNONYMS}
    if twice := [f for f in of if list(of.values()).count(of[f]) > 1]:
        raise ValueError(
            f"{root}: expected one folder a split, got {' and '.join(twice)}; join them"
        )
    known = _with_val(root, {split: f for f, split in of.items()}, parts)
    inside = {f: [p[1:] for p in parts if p[0] == f and len(p) > 1] for f in folders}
    splits = {s: _by_domain(root, top, f"{known[s]}/", inside[known[s]]) for s in SPLITS}
    for name in folders:
        domains = {p[0] for p in inside[name] if len(p) > 1} & set(splits["train"])
        if domains and name not in (known["train"], known["val"]):
            splits[of.get(name, name)] = _by_domain(root, top, f"{name}/", inside[name])
    return splits


def _cyclegan(
    root: Root, top: str, parts: Parts, pairs: dict[str, re.Match], folders: list[str]
) -> dict[str, Files]:
    of: dict[str, dict[str, str]] = {}  # split -> domain -> folder
    for name, match in pairs.items():
        of.setdefault(SYNONYMS[match[1].lower()], {}).setdefault(match[2].upper(), name)
    count = sum(map(len, of.values()))
    if count < len(folders) or count < 2 * len(of):
        raise ValueError(
            f"{root}: expected trainA/, trainB/, testA/ and testB/, got {_found(parts)}; rename, "
            "add or move what differs"
        )
    splits = {}
    for split, names in _with_val(root, of, parts).items():
        splits[split] = {}
        for domain, name in sorted(names.items()):
            inside = [[domain, *p[1:]] for p in parts if p[0] == name]
            found = _by_domain(root, top, "", inside)[domain]
            splits[split][domain] = [
                (key, f"{top}{name}/{path.removeprefix(f'{top}{domain}/')}") for key, path in found
            ]
    return splits


def _with_val(root: Root, splits: dict, parts: Parts) -> dict:
    """The splits, train and val first; a test split replaces a missing validation split."""
    if "val" not in splits and "test" in splits and "train" in splits:
        log.warning("%s: no split for validation: its test split is taken for it", root)
        splits["val"] = splits.pop("test")
    if missing := [split for split in SPLITS if split not in splits]:
        raise ValueError(
            f"{root}: expected both train/ and val/, {missing[0]}/ is missing; rename or "
            "add it, or put the domains directly below the root to have them split; got "
            f"{_found(parts)}"
        )
    return {split: splits[split] for split in (*SPLITS, *sorted(set(splits) - set(SPLITS)))}


def _labels(root: Root, top: str, parts: Parts) -> Files | None:
    """Images by the labels of NVIDIA's dataset.json; all in `all` where it has no labels."""
    if ["dataset.json"] not in parts:
        return None
    name = f"{top}dataset.json"
    try:
        labels = json.loads(read_file(root, name))["labels"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # the file of another program
    paths = ["/".join(p) for p in parts if is_image(p[-1])]
    try:
        of = dict.fromkeys(paths, 0) if labels is None else dict(labels)
        used = sorted(set(of.values()))
        whole = set(map(type, of.values())) == {int}  # -0.0 and False are equal to 0
        if not paths or used != list(range(len(used))) or not whole:
            raise ValueError(f"labels {used[:8]} of {len(paths)} images")
        if odd := sorted(set(paths) ^ set(of))[:1]:
            raise ValueError(f"{odd[0]} in {'it' if odd[0] in of else 'the data set'} alone")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{root}: expected in dataset.json `labels`, null or a [path, label] for each image, "
            f"with the labels 0, 1, 2 .. all in use, got {error!s:.200}"
        ) from error
    width = len(str(used[-1]))  # so that names are sorted as numbers
    domains: Files = {f"{y:0{width}}" if labels else "all": [] for y in used}
    for path in paths:
        key = str(PurePosixPath(path).with_suffix(""))
        domains[f"{of[path]:0{width}}" if labels else "all"].append((key, top + path))
    return domains


def _by_domain(root: Root, top: str, split: str, parts: Parts) -> Files:
    domains: Files = {p[0]: [] for p in parts if len(p) > 1}
    skipped, beside = [], 0
    for domain, *rest in parts:
        name = PurePosixPath(*rest)
        if rest and is_image(name.name):
            path = f"{top}{split}{domain}/{name}"
            domains[domain].append((str(name.with_suffix("")), path))
        elif not rest and is_image(domain):
            beside += 1
        elif name := [domain, *rest][-1]:  # otherwise it is a folder
            skipped.append(PurePosixPath(name).suffix.lower())
    _say_skipped(f"{root}/{split}", skipped)
    if beside and domains:
        log.warning("%s/%s: left out %d images that lie in no domain's folder", root, split, beside)
    if not domains:
        raise ValueError(
            f"{root}: expected {split}<domain>/ folders with images, got {_found(parts)}"
        )
    if "00000" in domains and all(re.fullmatch(r"\d{5}", name) for name in domains):
        raise ValueError(
            f"{root}: expected {split}<domain>/ folders, got {_found(parts)}, which look like "
            "parts of one set; bring its dataset.json, or put them into a folder a domain"
        )
    for domain, images in domains.items():
        if not images:
            raise ValueError(
                f"{root}: expected images ({', '.join(SUFFIXES)}) in {split}{domain}/, got none; "
                "add some or remove the folder"
            )
    return domains


def split_by_hash(root: Root, domains: Files) -> dict[str, Files]:
    """Splits by a hash of the keys: the lowest tenth, and at least a few, are for validation.

    A key is in the same split in all domains; at most half of a small domain is for validation.
    """
    splits: dict[str, Files] = {s: {} for s in SPLITS}
    val_keys, most = set(), {}
    for domain, images in domains.items():
        if len(images) < 2:
            raise ValueError(f"{root}: expected at least 2 images in {domain}/, got {len(images)}")
        images.sort(key=lambda image: _rank(image[0]))
        count = sum(_rank(key) < VAL_SHARE * 2**256 for key, _ in images)
        most[domain] = min(max(count, len(images) // 2), len(images) - 1)
        val_keys |= {key for key, _ in images[: max(count, FEWEST_VAL)]}
    for domain, images in domains.items():
        val = [image for image in images if image[0] in val_keys][: most[domain]]
        splits["train"][domain] = sorted(set(images) - set(val))
        splits["val"][domain] = sorted(val)
    return splits


def _rank(key: str) -> int:
    return int(hashlib.sha256(os.fsencode(key)).hexdigest(), 16)


# ---- refused layouts ----------------------------------------------------------------------------


def _refuse_doubt(root: Root, parts: Parts, folders: list[str]) -> None:
    """Raises if folders in the place of domains look like splits, or like data sets."""
    words = {f: {SYNONYMS.get(w.lower()) for w in WORD.findall(f)} for f in folders}
    kinds = set().union(*words.values()) - {None}
    below: dict[str, set[str]] = {f: set() for f in folders}  # folders in the folders
    for p in parts:
        if len(p) > 2:
            below[p[0]].add(p[1])
    direct = {p[0] for p in parts if len(p) == 2 and is_image(p[1])}
    inner = sorted({f"{f}/{b}/" for f in folders for b in below[f] if _is_split(b)})
    problem = (
        f"{', '.join(inner[:4])}: is the root too high, or are splits inside of domains?"
        if inner
        else "which look like splits" if "train" in kinds and len(kinds) > 1
        else "which look like StarGAN v2's sources and references" if {*folders} == {"src", "ref"}
        else "which holds folders alone: is the root too high?"
        if len(folders) == 1 and not direct and below[folders[0]]
        else ""
    )  # fmt: skip
    if problem:
        raise ValueError(
            f"{root}: expected {{train,val}}/<domain>/ or <domain>/ folders, got {_found(parts)}"
            f"{': ' if inner else ', '}{problem}; rename or move them"
        )
    if len(folders) < 2 or direct or min(map(len, below.values())) < 2:
        return
    shared = sorted(n for n in set.intersection(*below.values()) if not COUNTER.fullmatch(n))
    if len(shared) > 1:
        raise ValueError(
            f"{root}: expected <domain>/ folders, got {_found(parts)}, each with the folders "
            f"{', '.join(f'{name}/' for name in shared[:8])}: is the root too high? Give one of "
            f"them, such as {root / folders[0]}; or if they are the domains, move their images "
            "directly into them"
        )
    log.warning(
        "%s: all images of %s lie in folders of these, as %s; each is taken for one domain",
        root, ", ".join(f"{f}/" for f in folders), f"{folders[0]}/{min(below[folders[0]])}/",
    )  # fmt: skip


def _is_split(name: str) -> bool:
    return name.lower() in SYNONYMS or bool(CYCLEGAN.fullmatch(name))


def _found(parts: Parts) -> str:
    """Describes the folders with their numbers of images, and the images beside them."""
    counts = Counter(p[0] for p in parts if len(p) > 1 and is_image(p[-1]))
    counts |= {p[0]: 0 for p in parts if len(p) > 1 and p[0] not in counts}
    beside = sum(len(p) == 1 and is_image(p[0]) for p in parts)
    names = [f"{name}/ ({n} images)" for name, n in sorted(counts.items())]
    more = [f"{len(names) - 8} more folders"] if len(names) > 8 else []
    names = names[:8] + more + ([f"{beside} images in no folder"] if beside else [])
    return ", ".join(names) or "none"


def _say_skipped(where: str, suffixes: list[str]) -> None:
    if suffixes:
        log.warning(
            "%s: skipped files that are not images: %s", where, dict(Counter(sorted(suffixes)))
        )


# ---- folders, zips and shards -------------------------------------------------------------------


def as_root(source: str | Path) -> Root:
    """The data set at a path: `Shards` for tar files and addresses, otherwise the path."""
    text = str(source)
    path = Path(source)
    tars = not path.is_dir() if text.endswith(".tar") else "{" in text and not path.exists()
    return Shards(text) if tars or is_url(text) else path


def file_names(root: Root) -> list[str]:
    """Relative paths of a data set, without hidden ones; folders end with a slash."""
    if isinstance(root, Shards):
        names = root.names()
    else:
        names = (zip_names if root.is_file() else _folder_names)(root)
    return [n for n in names if not _hidden(n)]


def source(root: Root, name: str) -> Path | bytes:
    """A file of a data set: its path in a folder, its bytes in a zip or in shards.

    Raises:
        ImageError: the zip or the shard is damaged.
    """
    if isinstance(root, Shards):
        return root.read(name)
    return read_zip(root, name) if root.is_file() else root / name


def has_file(root: Root, name: str) -> bool:
    """True if a data set has this file."""
    if isinstance(root, Shards):
        return root.has(name)
    return zip_has(root, name) if root.is_file() else (root / name).is_file()


def read_file(root: Root, name: str) -> bytes:
    """Bytes of a file of a data set; raises as `source`."""
    return found if isinstance(found := source(root, name), bytes) else found.read_bytes()


def _hidden(name: str) -> bool:
    return any(p.startswith((".", "__MACOSX")) for p in name.split("/"))


def _folder_names(root: Path) -> list[str]:
    names, seen = [], set()
    for here, folders, files in os.walk(root, followlinks=True):
        folders[:] = [f for f in folders if not _hidden(f)]
        if (real := os.path.realpath(here)) in seen:
            raise ValueError(
                f"{here}: a link to {real}, which is already part of {root}; remove it"
            )
        seen.add(real)
        base = Path(here).relative_to(root)
        names += [f"{(base / f).as_posix()}/" for f in folders]
        names += [(base / f).as_posix() for f in files]
    return names
