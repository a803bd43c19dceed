"""Checks checkpoints, or every image of a data set, once, and says what they are.

    gen verify                               all checkpoints that come with this package
    gen verify smooth_i2i_emoji64 runs/mine  some, by name, file or folder of a run
    gen verify hf://owner/name               one on the Hugging Face Hub, and its commit
    gen verify photos                        a data set: lists all that is unusable or doubtful

Exit codes: 0 all is well; 1 something is damaged, missing or unusable.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gen import shipped, tasks
from gen.commands import METHOD, load_any, plain_errors
from gen.files import WeightsError, sha256
from gen.verbs import prepare


@plain_errors()
def main(words: Sequence[str] | None = None) -> None:
    """Runs `gen verify`; `words` default to those of the command line."""
    parser = argparse.ArgumentParser(
        "gen verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", help="checkpoints, or one folder, zip or shards")
    parser.add_argument("--method", **METHOD)
    args, more = parser.parse_known_args(words)
    data = [path for path in args.paths if not is_checkpoint(path)]
    if data and len(args.paths) == 1:
        prepare.run("verify", [*data, *more])  # ends the process
    if data or more:
        parser.error(f"expected checkpoints, or one data set, got {' '.join([*data, *more])}")
    wrong = 0
    for path in args.paths or shipped.manifest():
        try:
            print(describe(path, args.method))
        except (WeightsError, ValueError) as error:
            print(f"wrong: {error}", file=sys.stderr)
            wrong += 1
    sys.exit(min(wrong, 1))


def is_checkpoint(path: str) -> bool:
    """True for a file or the name of a checkpoint, or the folder of a run."""
    file = Path(path)
    named = shipped.is_name(path) or file.suffix in (".safetensors", ".ckpt")
    return named or (file / "last.ckpt").is_file()


def describe(path: str, method: str) -> str:
    """A line about a checkpoint, which is loaded for it.

    Raises:
        WeightsError: it is damaged, or it is not the shipped checkpoint of its name.
    """
    from gen.checkpoint import find, read

    file = find(path)
    digest = sha256(file)
    entry = shipped.manifest().get(shipped.name_of(path))
    if entry and digest != entry.sha256:
        raise WeightsError(
            f"{file}: expected sha256 {entry.sha256} of checkpoints/manifest.json, got {digest}; "
            "take the file of the release"
        )
    loaded = load_any(file, "cpu", method)
    row, count = tasks.TASKS.get(tasks.of(loaded)), sum(p.numel() for p in loaded.parameters())
    kind = [type(loaded).__name__, *([row.what] if row else [])]
    known = f" ({', '.join(loaded.domains)})" if loaded.domains else ""
    return (
        f"{file}: {', '.join(kind)}{known}, iteration {read(file).iteration}, "
        f"{count / 1e6:.1f} million parameters, {file.stat().st_size / 2**20:.1f} MiB, "
        f"sha256 {digest}{' as in the manifest' if entry else ''}"
    )
