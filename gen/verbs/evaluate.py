"""Evaluates a checkpoint: one JSON line per metric, and a table.

The checkpoint is that of a translator, a classifier, a generator, an editor of codes or an
animator. Under torchrun the processes share the work.
"""

import argparse
import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import gen
from gen import tasks
from gen.commands import METHOD, best_device, is_first, join_processes, load_any, plain_errors
from gen.evaluation import read_names
from gen.files import keep_inputs, only_writer, without_suffix, write_atomic


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen evaluate`; `words` default to those of the command line."""
    rows = measure(words)
    if not is_first():
        return
    from gen.evaluation.results import to_json, to_table
    from gen.metrics.doubts import doubts

    print(to_json(rows))
    print(to_table(rows))
    for doubt in doubts(rows):
        print(f"careful: {doubt}")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the options."""
    parser = argparse.ArgumentParser("gen evaluate", description=__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--checkpoint", help="a .safetensors or .ckpt file")
    model.add_argument(
        "--function",
        metavar="PKG.NAME",
        help="instead: a function of your own that animates, see docs/movers.md",
    )
    parser.add_argument("--data", help="a folder, a zip, `heads`, `movers`; an editor needs none")
    groups = {task: read_names(row.evaluator) for task, row in tasks.TASKS.items()}
    basic = read_names(tasks.TASKS["translator"].evaluator, "BASIC")
    lists = "; ".join(f"{task}: {' '.join(names)}" for task, names in groups.items())
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=[*dict.fromkeys(("all", *itertools.chain(*groups.values())))],
        help=f"groups to measure; default all, but of a translator {' '.join(basic)}. {lists}",
    )
    parser.add_argument(
        "--classifier",
        help="checkpoint of a DomainClassifier, for accuracy; an editor needs an "
        "AttributeClassifier",
    )
    parser.add_argument(
        "--examiner", help="another AttributeClassifier, which judges an editor apart: examined"
    )
    parser.add_argument("--arcface", help="IR-SE50 weights of your own, for identity")
    parser.add_argument("--i3d", help="I3D weights of your own, for fvd of an animator")
    parser.add_argument("--no-edges", help="an animator trained without, for rows of its motion")
    parser.add_argument(
        "--backbone",
        choices=("effnetlite0", "mobilenetv2", "inception2048", "tvinception_stargan"),
        nargs="+",
        default=["effnetlite0", "mobilenetv2"],
        help="of fidelity; a translator's kernel distance is given by the second one, too",
    )
    parser.add_argument(
        "--net",
        choices=("alex", "vgg"),
        nargs="+",
        default=["alex"],
        help="LPIPS network; a second one sees a translator's paths as well",
    )
    parser.add_argument(
        "--grid",
        choices=("released", "strict", "uniform"),
        default="released",
        help="frames of a translator's paths: uniform spaces them evenly as seen",
    )
    parser.add_argument(
        "--split", nargs="+", help="of data: val, test, ..; default val, but test of movers"
    )
    parser.add_argument(
        "--crop-pct", type=float, default=1.0, help="centre crop of a classifier's data: Classes"
    )
    parser.add_argument(
        "--voc",
        help="folder with VOCdevkit, for a classifier's segmentation; alone, for --metrics",
    )
    parser.add_argument("--voc-size", type=int, default=480, help="px, in whole patches")
    parser.add_argument(
        "--keep-void", action="store_true", help="count VOC's void pixels, as the release of SAR"
    )
    parser.add_argument(
        "--max-sources", "--max-images", type=int, help="default: every validation image"
    )
    parser.add_argument(
        "--count",
        type=int,
        help="images of a generator, default 5000; sources of an editor, 500; clips, all",
    )
    parser.add_argument(
        "--frames",
        type=int,
        help="length of an animator's videos, the first frame not counted; longer ones of movers "
        "go on at the pace of 6 frames",
    )
    parser.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="of an animator's frames, px"
    )
    parser.add_argument("--psi", type=float, help="truncation of an editor; default: its own")
    parser.add_argument("--batch-size", type=int, default=16, help="sources at once")
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ..; default: a GPU, if there is one")
    parser.add_argument(
        "--out", type=Path, help="also write the JSON lines here; what was cut goes on"
    )
    parser.add_argument("--method", **METHOD)
    return parser


def measure(words: Sequence[str] | None = None) -> list[dict]:
    """Rows of the evaluation that the words of a command line ask for; writes `--out`, if given.

    Raises:
        BlockingIOError: another process writes to `--out`.
    """
    parser = make_parser()
    args = parser.parse_args(words)
    if args.out and args.out.is_dir():
        parser.error(f"--out: expected a file to write, got the folder {args.out}")
    if args.voc_size < 1:
        parser.error(f"--voc-size: expected at least 1 px, got {args.voc_size}")
    if args.data == "heads" and args.split not in (None, ["val"]):
        parser.error(f"--split: expected val, which heads are measured on, got {args.split}")
    from gen.checkpoint import check_device

    args.device = join_processes(args.device or best_device())
    check_device(args.device)
    if args.out:  # before all other work
        reads = (args.checkpoint, args.data, args.classifier, args.examiner, args.arcface, args.i3d)
        splits = (*(args.split or ["val"]), "voc")  # a classifier has one file per split
        writes = (args.out, values_of(args.out), *(values_of(args.out, s) for s in splits))
        keep_inputs((*reads, args.no_edges, args.voc), writes)
    with only_writer(values_of(args.out)) if args.out and is_first() else nullcontext():
        return find_rows(args, parser)


def find_rows(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[dict]:
    """Rows of the method that the options name."""
    from gen.evaluation.results import to_json

    if args.function:
        method = tasks.adapted(args.function).to(args.device)
        args.checkpoint = method.source  # whose sha256 the rows state
    else:
        method = gen.load(args.checkpoint, args.device, args.method)
    args.load = lambda path: load_any(path, args.device, args.method)
    if args.psi is not None and tasks.of(method) != "editor":
        parser.error(f"--psi: expected an editor of codes, got {type(method).__name__}")
    evaluator = tasks.evaluator(method, args.checkpoint or args.function)
    rows = evaluator.from_options(method, args, values_of(args.out) if args.out else None)
    rows = [row | {"data": name_data(args, row["metric"])} for row in rows]
    if args.out and is_first():
        write_atomic(args.out, to_json(rows).encode())
    return rows


def name_data(args: argparse.Namespace, metric: str) -> str:
    """Name of what a metric was measured on, without its folder."""
    place = args.voc if metric.startswith("voc/") else args.data
    return Path(place).resolve().name if place else "images of its generator"


def values_of(out: Path, split: str = "") -> Path:
    """File of the values of single units, from which the means in `out` are computed."""
    return Path(f"{without_suffix(out)}.values{split and '.' + split}.jsonl")
