"""Uploads a checkpoint to the Hugging Face Hub, with its config, metrics and pictures.

gen push runs/mine owner/name              last.ckpt of a run, as averaged weights, and what gen
                                           wrote beside it
gen push mine.safetensors owner/name       a file, with mine.jsonl, mine.md and mine_*.png beside it
gen push runs/mine owner/name --dry-run    shows what would be sent, without a network

gen.load("hf://owner/name") loads it, and commands take it: --checkpoint hf://owner/name@REVISION.
Needs a login by `hf auth login`, or HF_TOKEN, and the extra `hub`: pip install -e ".[hub]".
"""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gen import hub, tasks
from gen.commands import METHOD, plain_errors
from gen.files import WeightsError, sha256


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen push`; `words` default to those of the command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("gen push", description=__doc__, formatter_class=raw)
    parser.add_argument("checkpoint", help="the folder of a run, a file, or a name")
    parser.add_argument("repo", help="OWNER/NAME; made if there is none")
    parser.add_argument(
        "--metrics", type=Path, help="what gen evaluate --out wrote; default: RUN/metrics.jsonl"
    )
    parser.add_argument("--data", help="name of what the metrics were measured on; default: theirs")
    parser.add_argument("--license", default="", help="of the weights, such as apache-2.0")
    parser.add_argument("--private", action="store_true", help="make a private repository")
    parser.add_argument("--dry-run", action="store_true", help="show what would be sent, no more")
    parser.add_argument("--method", **METHOD)
    push(parser.parse_args(words))


def push(args: argparse.Namespace) -> None:
    """Gathers the files, and uploads them in one commit, or shows them."""
    hub.library()  # what lacks is told before the work
    args.repo, revision = hub.parse(f"hf://{args.repo.removeprefix('hf://')}")
    if revision != "main":
        raise ValueError(f"gen push: expected OWNER/NAME, got a revision, {revision}; leave it out")
    with tempfile.TemporaryDirectory(prefix="gen-") as scratch:
        files = gather(args, Path(scratch))
        print(f"{hub.url(args.repo)}{', private' if args.private else ''}:")
        for name, content in files.items():
            size = len(content) if isinstance(content, bytes) else content.stat().st_size
            print(f"{name:32} {size / 2**20:8.2f} MiB  {'' if name == 'README.md' else content}")
        if args.dry_run:
            print(f"\n{files['README.md'].decode()}\nnothing was sent to {hub.url(args.repo)}")
            return
        commit = hub.push(args.repo, files, f"{args.checkpoint}, by gen push", args.private)
    print(f"{hub.url(args.repo)}  commit {commit}")
    print(f'gen.load("hf://{args.repo}@{commit}")')


def gather(args: argparse.Namespace, scratch: Path) -> dict[str, Path | bytes]:
    """Files to send: name in the repository -> path, or bytes; weights are written to `scratch`.

    Raises:
        ValueError: the metrics are of another checkpoint, or it is not said what they measured.
        WeightsError: the checkpoint cannot be loaded.
    """
    import gen
    from gen.checkpoint import export, find, read

    path = find(args.checkpoint)
    method = gen.load(path, "cpu", args.method)
    tasks.expect(method, *tasks.TASKS, source=args.checkpoint)
    files: dict[str, Any] = {hub.FILE: path}
    if path.suffix != ".safetensors":
        files[hub.FILE] = scratch / hub.FILE
        export(path, files[hub.FILE])
    of_run = is_of_run(path, method)
    if of_run:
        files["config.yaml"] = path.with_name("config.yaml")
    metrics = path.parent / ("metrics.jsonl" if of_run else f"{path.stem}.jsonl")
    metrics = args.metrics or (metrics if metrics.is_file() else None)
    if metrics:
        files[metrics.name] = metrics
    files |= {picture.name: picture for picture in pictures(path, of_run)}
    own = path.parent / f"{path.stem}.md"
    text = card(args, path, method, read(path).iteration, files, metrics, own)
    return files | {"README.md": text.encode()}


def is_of_run(path: Path, method: Any) -> bool:
    """True for a .ckpt beside the config that `gen fit` wrote for this method."""
    from gen.runs import read_saved

    config = path.with_name("config.yaml")
    if path.suffix != ".ckpt" or not config.is_file():
        return False
    try:
        saved = read_saved(config)
    except WeightsError:  # of another program
        return False
    return bool(saved.out) and saved.model.rpartition(".")[2] == type(method).__name__


def pictures(path: Path, of_run: bool) -> list[Path]:
    """Pictures of a checkpoint: those named after it; beside a .ckpt only what gen wrote there."""
    if path.suffix != ".ckpt":
        return sorted(p for end in ("png", "gif") for p in path.parent.glob(f"{path.stem}_*.{end}"))
    named = [path.with_name(f"{path.stem}_{kind}.png") for kind in ("grid", "strips")]
    samples = sorted(path.parent.glob("samples/" + "[0-9]" * 6 + ".png"))[-1:] if of_run else []
    return [*filter(Path.is_file, named), *samples]


def card(
    args: argparse.Namespace,
    path: Path,
    method: Any,
    iteration: int,
    files: dict,
    metrics: Path | None,
    own: Path,
) -> str:
    """Text of README.md; that of a card beside the file, `own`, goes on under the metrics."""
    from gen.evaluation.results import from_json
    from gen.report import card

    rows = from_json(metrics) if metrics else []
    wanted = {sha256(path), sha256(files[hub.FILE])}
    if other := {row.get("checkpoint_sha256") for row in rows} - wanted:
        raise ValueError(
            f"{metrics}: expected metrics of {path}, with sha256 {sha256(path)}, got those of "
            f"{', '.join(map(str, other))}; measure again: gen evaluate --checkpoint {path} --out"
        )
    text = own.read_text("utf-8") if own.is_file() else ""
    data = args.data or measured(rows, metrics) if rows else ""
    about = card.About(args.repo, method, iteration, data, args.license, [*files], text)
    return card.write(about, rows)


def measured(rows: Sequence[Mapping], metrics: Path) -> str:
    """Name of the data that all rows state.

    Raises:
        ValueError: they state none, or several.
    """
    names = {str(row.get("data") or "nothing") for row in rows}
    if len(names) > 1 or "nothing" in names:
        got = ", ".join(sorted(names))
        raise ValueError(
            f"--data: expected the name of what {metrics} was measured on, as it states {got}"
        )
    return names.pop()
