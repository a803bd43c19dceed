"""Compares checkpoints on the same sources and styles: a table, and a page.

A run is a folder with a last.ckpt, or a .safetensors or .ckpt file; the last.ckpt or best.ckpt of a
run has the name of its folder. All other runs are compared with the first. Differences are paired,
source by source. With the group psi, values of paths are also compared at equal distance, since a
model's value at its own distance says little.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import gen
from gen import tasks
from gen.commands import METHOD, best_device, load_any, plain_errors
from gen.evaluation import read_names
from gen.files import checkpoint_names, keep_inputs, only_writer, write_atomic

TRANSLATORS = tasks.TASKS["translator"].evaluator


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen compare`; `words` default to those of the command line."""
    parser = make_parser()
    args = parser.parse_args(words)
    found = [run / "last.ckpt" if run.is_dir() else run for run in args.runs]
    files = dict(zip(checkpoint_names(args.runs), found, strict=True))
    if args.max_sources < 2:
        parser.error(f"--max-sources: expected 2 or more to compare by, got {args.max_sources}")
    if len(files) < max(2, len(args.runs)):
        parser.error(
            f"expected at least 2 runs with different names, got {[*map(str, args.runs)]}; "
            "give others, or copy or link one under another name"
        )
    written = [args.out / f"{n}{end}.jsonl" for n in files for end in ("", ".values")]
    keep_inputs((*args.runs, args.data, args.classifier), [*written, args.out / "compare.html"])
    with only_writer(args.out / "compare.html"):
        for line in measure(files, args, parser):
            print(line)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the options."""
    groups, basic = read_names(TRANSLATORS), read_names(TRANSLATORS, "BASIC")
    parser = argparse.ArgumentParser("gen compare", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", required=True, help="a folder, a zip, or `heads`")
    parser.add_argument("--metrics", nargs="+", choices=groups, default=[*basic, "psi"])
    parser.add_argument("--classifier", help="checkpoint of a DomainClassifier, for accuracy")
    parser.add_argument("--max-sources", type=int, default=64)
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ..; default: a GPU, if there is one")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"), help="folder")
    parser.add_argument("--method", **METHOD)
    return parser


def measure(
    files: dict[str, Path], args: argparse.Namespace, parser: argparse.ArgumentParser
) -> tuple[str, Path]:
    """Evaluates the checkpoints and writes the page; returns the table, as text, and its path."""
    from gen.evaluation.compare import compare
    from gen.evaluation.results import to_json, versions
    from gen.evaluation.translators import Scorers, check, evaluate
    from gen.metrics.doubts import standing
    from gen.networks.perceptual import LPIPS
    from gen.report import paths, samples
    from gen.report.comparison import to_table, to_text
    from gen.report.page import write_report

    device = args.device or best_device()
    methods = {name: load_any(file, device, args.method) for name, file in files.items()}
    for name, method in methods.items():
        tasks.expect(method, "translator", source=str(files[name]))
    size = next(iter(methods.values())).img_size
    data = gen.data.open(args.data, img_size=size)
    classifier = args.classifier and load_any(args.classifier, device, args.method)
    if classifier and not hasattr(classifier, "classify"):
        name = type(classifier).__name__
        raise ValueError(f"{args.classifier}: expected a classifier of domains, got {name}")
    found, judges = [], Scorers(data.train, classifier=classifier)
    for name, method in methods.items():  # checks all before the long work on the first
        try:
            check(method, data.val, args.metrics, judges, max_sources=args.max_sources)
        except ValueError as error:
            parser.error(f"{files[name]}: {error}")
    for name, method in methods.items():
        rows = evaluate(
            method,
            data.val,
            args.metrics,
            judges,
            max_sources=args.max_sources,
            checkpoint=files[name],
            ledger=args.out / f"{name}.values.jsonl",
        )
        write_atomic(args.out / f"{name}.jsonl", to_json(rows).encode())
        found.append(rows)
    table = to_table(compare(found), list(methods))
    lpips = LPIPS("alex").to(device)
    page = write_report(
        args.out / "compare.html",
        title=" and ".join(methods),
        subtitle=f"{', '.join(data.domains)}, {size} × {size} px",
        abstract=[
            f"Differences are to {next(iter(methods))}, on the same validation images, seeds and "
            "references: mean over sources, bootstrap interval, and p of a two-sided Wilcoxon "
            "signed-rank test, which is not corrected for the number of metrics. Values of paths "
            "depend on how far they lead: compare models by the rows at equal distance."
        ],
        sections=samples(methods, data.val) | paths(methods, data.val, lpips),
        metrics=table,
        verdict=[
            ("worse", f"{name}: {text}")
            for name, rows in zip(methods, found, strict=True)
            for text in standing(rows)
        ],
        versions=versions(),
    )
    return to_text(table), page
