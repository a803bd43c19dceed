"""Evaluates a checkpoint, of a translator, a classifier, a generator, an editor of codes or an
animator of frames: one JSON line a metric, and a table."""

import argparse
from functools import partial
from pathlib import Path

import torch

import gen
from gen.checkpoint import check_device
from gen.commands import METHOD, plain_errors
from gen.data import KITTI360, Cityscapes, Classes, Domains, Heads, Movers
from gen.data.clips.kitti360 import is_kitti360
from gen.data.voc import VOC
from gen.evaluation import animators, classifiers, editors, generators
from gen.evaluation.results import to_json, to_table
from gen.evaluation.translators import BASIC, GROUPS, Scorers, evaluate
from gen.files import keep_inputs, without_suffix, write_atomic
from gen.inference.dragging import MOST
from gen.metrics.doubts import doubts


@plain_errors()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="a .safetensors or .ckpt file")
    parser.add_argument("--data", help="a folder, a zip, `heads`, `movers`; an editor needs none")
    others = classifiers.GROUPS, generators.GROUPS, editors.GROUPS, animators.GROUPS
    groups = dict.fromkeys(("all", *GROUPS, *sum(others, ())))
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=list(groups),
        help=f"default of translators: {' '.join(BASIC)}; classifiers have "
        f"{' '.join(classifiers.GROUPS)}, generators {' '.join(generators.GROUPS)}, "
        f"editors {' '.join(editors.GROUPS)}, animators {' '.join(animators.GROUPS)}, default all",
    )
    parser.add_argument(
        "--classifier",
        help="checkpoint of a DomainClassifier, for accuracy; an editor needs an "
        "AttributeClassifier",
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
    parser.add_argument("--psi", type=float, help="truncation of an editor; default: its own")
    parser.add_argument("--batch-size", type=int, default=16, help="sources at once")
    parser.add_argument("--seed", type=int, default=777)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="cpu, cuda, cuda:1, ..")
    parser.add_argument(
        "--out", type=Path, help="also write the JSON lines here; a translator's then goes on"
    )
    parser.add_argument("--method", **METHOD)
    args = parser.parse_args()

    if args.out and args.out.is_dir():
        parser.error(f"--out: expected a file to write, got the folder {args.out}")
    if args.voc_size < 1:
        parser.error(f"--voc-size: expected at least 1 px, got {args.voc_size}")
    if args.data == "heads" and args.split not in (None, ["val"]):
        parser.error(f"--split: expected val, which heads are measured on, got {args.split}")
    check_device(args.device)
    if args.out:  # before all the work
        reads = (args.checkpoint, args.data, args.classifier, args.arcface, args.i3d)
        writes = (args.out, values_of(args.out))
        keep_inputs((*reads, args.no_edges, args.voc), writes)
        args.out.parent.mkdir(parents=True, exist_ok=True)
    method = gen.load(args.checkpoint, args.device, args.method)
    classifier, editor = hasattr(method, "classify"), hasattr(method, "edit")
    if not (args.data or editor or (classifier and args.voc)):
        parser.error("--data: expected a folder, a zip, `heads` or `movers`, got nothing")
    if editor and not args.classifier:
        parser.error(
            "--classifier: expected the checkpoint of an AttributeClassifier that reads the "
            "editor's attributes, got nothing; `gen fit --model=AttributeClassifier` makes one"
        )
    if args.psi is not None and not editor:
        parser.error(f"--psi: expected an editor of codes, got {type(method).__name__}")
    if editor:
        rows = of_editor(args, method)
    elif hasattr(method, "animate"):
        rows = of_animator(args, method)
    elif hasattr(method, "generate"):
        rows = of_generator(args, method)
    else:
        rows = of_classifier(args, method) if classifier else of_translator(args, method)
    if args.out:
        write_atomic(args.out, to_json(rows).encode())
    print(to_json(rows))
    print(to_table(rows))
    for doubt in doubts(rows):
        print(f"careful: {doubt}")


def values_of(out: Path) -> Path:
    """Where the values of single sources are kept, that the means in `out` are of."""
    return Path(f"{without_suffix(out)}.values.jsonl")


def of_translator(args: argparse.Namespace, method) -> list[dict]:
    size = method.img_size
    data = Heads(img_size=size) if args.data == "heads" else Domains(args.data, img_size=size)
    classifier = gen.load(args.classifier, args.device) if args.classifier else None
    arcface = None
    if args.arcface:
        from gen.networks import arcface as network

        arcface = network.load(args.arcface).to(args.device)
    second = args.backbone[1] if len(args.backbone) > 1 else None
    judges = Scorers(data.train, args.backbone[0], classifier, arcface, second)
    groups = args.metrics or BASIC
    if "all" in groups:
        groups = [group for group in GROUPS if group not in judges.missing()]
        for group in judges.missing():
            option = {"accuracy": "--classifier", "identity": "--arcface"}[group]
            print(f"left out: {group}, which needs {option} FILE")
    return evaluate(
        method,
        data.val,
        metrics=groups,
        judges=judges,
        net=args.net,
        grid=args.grid,
        seed=args.seed,
        batch_size=args.batch_size,
        max_sources=args.max_sources,
        checkpoint=args.checkpoint,
        ledger=values_of(args.out) if args.out else None,
    )


def of_classifier(args: argparse.Namespace, method) -> list[dict]:
    size, sets = method.img_size, {}
    if args.voc and hasattr(method, "attention"):  # a wrong size is told before all else is done
        method.attention(torch.zeros(1, 3, args.voc_size, args.voc_size, device=args.device))
    if args.data == "heads":
        sets = {"val": Heads(img_size=size).val}
    elif args.data:
        maps = hasattr(method, "attention")
        crop = {"crop_pct": args.crop_pct} if maps else {}
        data = (Classes if maps else Domains)(args.data, img_size=size, **crop)
        sets = {split: data.images(split) for split in args.split or ["val"]}
    rows = []
    for split, images in sets.items():
        groups = args.metrics or ["all"]
        if "all" in groups:
            groups = classifiers.possible(method, images)
            if missing := [group for group in classifiers.GROUPS if group not in groups]:
                print(f"{split}: left out {', '.join(missing)}: no attention maps, or no masks")
        rows += measure(args, method, images, split, groups)
    if args.voc:
        alone = not args.data and args.metrics and "all" not in args.metrics
        groups = args.metrics if alone else ["segmentation"]
        images = VOC(args.voc, args.voc_size)
        rows += measure(args, method, images, "voc", groups, not args.keep_void)
    return rows


def of_generator(args: argparse.Namespace, method) -> list[dict]:
    kind = Heads if args.data == "heads" else partial(Classes, args.data, crop_pct=args.crop_pct)
    data = kind(img_size=method.img_size)
    groups = args.metrics or ["all"]
    return generators.evaluate_generator(
        method,
        data.train,
        data.val,
        metrics=generators.GROUPS if "all" in groups else groups,
        count=5000 if args.count is None else args.count,
        paths=200 if args.max_sources is None else args.max_sources,
        backbone=args.backbone[0],
        net=args.net[0],
        seed=args.seed,
        batch_size=args.batch_size,
        checkpoint=args.checkpoint,
    )


def of_editor(args: argparse.Namespace, method) -> list[dict]:
    count = 500 if args.count is None else args.count
    groups = args.metrics or ["all"]
    return editors.evaluate_editor(
        method,
        gen.load(args.classifier, args.device),
        metrics=editors.GROUPS if "all" in groups else groups,
        count=count if args.max_sources is None else min(count, args.max_sources),
        net=args.net[0],
        seed=args.seed,
        batch_size=args.batch_size,
        checkpoint=args.checkpoint,
        psi=args.psi,
        judge_checkpoint=args.classifier,
    )


def of_animator(args: argparse.Namespace, method) -> list[dict]:
    steps, height, width = method.shape
    size = dict(height=height, width=width, frames=steps + 1)
    if args.data == "movers":
        data = Movers(**size)
    else:
        kind = KITTI360 if is_kitti360(Path(args.data)) else Cityscapes
        data = kind(args.data, **size, max_objects=MOST)
    split = args.split or ["test" if args.data == "movers" else "val"]
    if len(split) > 1:
        raise ValueError(f"--split: expected one for an animator, got {split}")
    groups = args.metrics or ["all"]
    return animators.evaluate_animator(
        method,
        data.clips(split[0]),
        metrics=None if "all" in groups else groups,
        count=args.max_sources if args.count is None else args.count,
        net=args.net[0],
        seed=args.seed,
        batch_size=args.batch_size,
        checkpoint=args.checkpoint,
        i3d=args.i3d,
        no_edges=gen.load(args.no_edges, args.device) if args.no_edges else None,
        no_edges_checkpoint=args.no_edges,
    )


def measure(args, method, images, split: str, groups, ignore_void: bool = True) -> list[dict]:
    return classifiers.evaluate_classifier(
        method,
        images,
        split,
        metrics=groups,
        net=args.net[0],
        seed=args.seed,
        batch_size=args.batch_size,
        max_images=args.max_sources,
        checkpoint=args.checkpoint,
        ignore_void=ignore_void,
    )


if __name__ == "__main__":
    main()
