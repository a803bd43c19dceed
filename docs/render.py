"""Runs a percent script cell by cell; prints and saved pictures become a Markdown page.

    python docs/render.py docs/notebooks/translate.py OUT/

A cell begins with `# %%`; one of `# %% [markdown]` is text. The script runs in an empty folder, and
pictures (.png, .gif) that a cell saves there are shown below it.
"""

import argparse
import io
import os
import re
import shutil
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

CELL = re.compile(r"^# %%(.*)\n", re.M)
PICTURES = {".png", ".gif"}


def cells(text: str) -> list[tuple[bool, int, str]]:
    """(is it text, lines before it, source) of each cell; text is without its comment signs."""
    marks = [*CELL.finditer(text)]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    found = []
    for mark, end in zip(marks, ends, strict=True):
        source = text[mark.end() : end]
        is_text = "[markdown]" in mark[1]
        if is_text:
            source = re.sub(r"^# ?", "", source, flags=re.M)
        found.append((is_text, text[: mark.end()].count("\n"), source.strip("\n")))
    return found


def new_pictures(seen: set[Path]) -> list[Path]:
    """Pictures in the working folder that are not in `seen`, which gets them, in order of time."""
    found = {path for path in Path().rglob("*") if path.suffix in PICTURES} - seen
    seen |= found
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def render(script: Path, out: Path) -> str:
    """The page of a script, whose pictures it puts into `out`."""
    names, seen, page = {"__name__": "__main__"}, set(), []
    for is_text, line, source in cells(script.read_text("utf-8")):
        if is_text:
            page.append(source)
            continue
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile("\n" * line + source, str(script), "exec"), names)
        page.append(f"```python\n{source}\n```")
        if text := printed.getvalue().strip("\n"):
            page.append(f'```text title="prints"\n{text}\n```')
        for picture in new_pictures(seen):
            name = f"{script.stem}_{picture.name}"
            shutil.copy(picture, out / name)
            page.append(f"![{picture.stem}]({name})")
    return "\n\n".join(page) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("script", type=Path)
    parser.add_argument("out", type=Path, help="folder")
    args = parser.parse_args()
    script, out = args.script.resolve(), args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        text = render(script, out)
        os.chdir(out)
    run = f"*This page is `docs/notebooks/{script.name}`, run when the site was built.*\n\n"
    head, _, rest = text.partition("\n")
    (out / f"{script.stem}.md").write_text(f"{head}\n\n{run}{rest}", "utf-8")
