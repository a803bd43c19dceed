"""Hooks of MkDocs: pages of the repository beside docs/, included sections, equations, notebooks.

Pages have links that work in the repository; here they become links of the site. A comment
`<!-- include PATH#Heading -->` becomes that section of another file, so that no table and no config
is copied. A fence of `math` becomes MathML, which browsers show without a script.
"""

import itertools
import os
import re
import subprocess
import sys
import tempfile
from functools import cache
from html import unescape
from pathlib import Path
from types import SimpleNamespace

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PAGES = ("RESULTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "data_prep/README.md", "checkpoints/*.md")
ASSETS = ("checkpoints/*.png", "checkpoints/*.gif", "checkpoints/*.jsonl")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
INCLUDE = re.compile(r"<!-- include (\S+?)(?:#(.+?))? -->")
MATH = re.compile(r"```math\n(.*?)```", re.S)
FULL = 88  # a line of a docstring of this length, with the next word, is full
FENCED = re.compile(r"(^```.*?^```$)", re.S | re.M)


def listed(patterns: tuple[str, ...]) -> list[str]:
    """Files of the repository by patterns, relative to it."""
    found = (path for pattern in patterns for path in sorted(ROOT.glob(pattern)))
    return [path.relative_to(ROOT).as_posix() for path in found]


def uri(path: Path) -> str:
    """Place in the site of a file of the repository; empty if the site does not have it."""
    if path.is_relative_to(DOCS):
        name = path.relative_to(DOCS).as_posix()
        return name.removesuffix(".py") + ".md" if name.endswith(".py") else name
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
    return name if name in listed(PAGES + ASSETS) else ""


def relink(text: str, origin: Path, page: str) -> str:
    """Links of the file `origin` as links of the page; those to files beside the site as names."""

    def link(found: re.Match) -> str:
        mark, words, target, anchor = found.groups()
        path = Path(os.path.normpath(origin.parent / target))
        if re.match(r"\w+:", target) or not path.exists():
            return found[0]  # of the web, or made by the build; `--strict` finds all others
        if place := uri(path):
            to = os.path.relpath(place, Path(page).parent).replace(os.sep, "/")
            return f"{mark}[{words}]({to}{anchor or ''})"
        name = path.relative_to(ROOT).as_posix()
        return f"`{name}`" if words.strip("`") == name else f"{words} (`{name}`)"

    parts = FENCED.split(text)
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def section(path: Path, heading: str = "") -> str:
    """Text under a heading of a Markdown file, or a whole file of another kind as a fence.

    Raises:
        ValueError: the file has no such heading.
    """
    text = path.read_text("utf-8")
    if not heading:
        language = {".yaml": "yaml", ".cff": "yaml", ".py": "python"}[path.suffix]
        name = path.relative_to(ROOT).as_posix()
        return f'```{language} title="{name}"\n{text}```\n'
    level = re.search(rf"^(#+) {re.escape(heading)}$", text, re.M)
    if not level:
        raise ValueError(f"{path}: expected a heading {heading!r}, got none")
    fences = FENCED.sub(lambda code: re.sub(r"^#", "\0", code[0], flags=re.M), text[level.end() :])
    rest = re.split(rf"^#{{1,{len(level[1])}}} ", fences, maxsplit=1, flags=re.M)[0]
    return rest.replace("\0", "#").strip("\n") + "\n"


def included(text: str, origin: Path, page: str) -> str:
    """Text with the sections that its comments ask for."""

    def insert(found: re.Match) -> str:
        path = Path(os.path.normpath(origin.parent / found[1]))
        return relink(section(path, found[2] or ""), path, page)

    return INCLUDE.sub(insert, text)


def equations(text: str) -> str:
    """Text whose fences of `math` are MathML."""
    from latex2mathml.converter import convert

    def show(found: re.Match) -> str:
        lines = [convert(line, display="block") for line in found[1].strip().split("\n\n")]
        return '<div class="equation">' + "".join(lines) + "</div>"

    return MATH.sub(show, text)


@cache
def notebooks() -> dict[str, bytes]:
    """Pages and pictures of all notebooks, by their place in the site: each one runs."""
    with tempfile.TemporaryDirectory() as folder:
        for script in sorted(DOCS.glob("notebooks/*.py")):
            command = [sys.executable, DOCS / "render.py", script, folder]
            subprocess.run(command, cwd=ROOT, check=True)
        return {f"notebooks/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}


def keep_lines(html: str) -> str:
    """Paragraphs of docstrings that keep lines that end early, as equations do; not arguments."""

    def length(line: str) -> int:
        return len(unescape(re.sub(r"<[^>]+>", "", line)))

    def keep(paragraph: re.Match) -> str:
        before, text = paragraph.groups()
        lines = text.split("\n")
        for k, (line, after) in enumerate(itertools.pairwise(lines)):
            if length(line) + 1 + length(after.partition(" ")[0]) < FULL:
                lines[k] += "<br>"
        return paragraph[0] if before else "<p>" + "\n".join(lines) + "</p>"

    return re.sub(r'(<div class="doc-md-description">\s*)?<p>(.*?)</p>', keep, html, flags=re.S)


def on_files(files, config):
    from mkdocs.structure.files import File

    for name in listed(PAGES + ASSETS):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for name, content in notebooks().items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: SimpleNamespace, **_) -> str:
    name = page.file.src_uri
    origin = DOCS / name if (DOCS / name).exists() else ROOT / name
    if name.startswith("notebooks/"):
        origin = (DOCS / name).with_suffix(".py")
    return equations(included(relink(markdown, origin, name), origin, name))


def on_page_content(html: str, page: SimpleNamespace, **_) -> str:
    return keep_lines(html) if page.file.src_uri.startswith("reference/") else html
