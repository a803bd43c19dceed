"""The documentation: every link, section, command and name leads somewhere; the site builds.

The site itself, with its notebooks, is built by the slow tests.
"""

import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

import gen.data
import gen.methods
from conftest import ROOT
from gen import verbs
from gen.files import packaged

DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.py"))
PAGES = sorted(DOCS.rglob("*.md"))
BESIDE = [*ROOT.glob("*.md"), ROOT / "data_prep/README.md", *ROOT.glob("checkpoints/*.md")]
FENCE = re.compile(r"^```.*?^```$", re.S | re.M)
YOURS = ("owner/", "photos", "runs/", "data/", "100000_nets_ema", "ffhq", "mine.py", "FILE", "OUT")
NOT_A_METHOD = {"attribute_classifier", "domain_classifier"}  # judges, in the cards and reference


@pytest.fixture(scope="module")
def hooks():
    """The module docs/hooks.py."""
    sys.path.insert(0, str(DOCS))
    try:
        import hooks

        yield hooks
    finally:
        sys.path.remove(str(DOCS))
        sys.modules.pop("hooks", None)


def entries(nav: list | dict | str) -> list[str]:
    """Paths of all pages of a navigation, in its order."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [name for part in parts for name in entries(part)]


NAV = entries(SITE["nav"])


def commands(text: str) -> list[list[str]]:
    """Words of each command in the fences of bash of a page."""
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.S | re.M)).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in blocks.splitlines() if line.strip()]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ---- links and names ----------------------------------------------------------------------------


def test_every_page_is_in_the_navigation_once():
    here = {path.relative_to(DOCS).as_posix() for path in PAGES}
    made = {f"notebooks/{path.stem}.md" for path in NOTEBOOKS}
    beside = {name(path) for path in BESIDE if path.name != "README.md" or path.parent != ROOT}
    assert len(NAV) == len(set(NAV))
    assert set(NAV) == here | made | beside


@pytest.mark.parametrize("page", [*PAGES, *BESIDE, *NOTEBOOKS], ids=name)
def test_links_and_pictures_exist(page):
    for target, anchor in re.findall(r"\]\(([^)\s#]*)(#[^)\s]+)?\)", FENCE.sub("", read(page))):
        if re.match(r"\w+:", target):
            continue
        path = page.parent / unquote(target) if target else page
        assert path.exists(), f"{target}: expected a file beside {name(page)}"
        if anchor and path.suffix == ".md":
            slugs = {slug(head) for head in re.findall(r"^#+ (.+)$", path.read_text(), re.M)}
            assert anchor[1:] in slugs, f"{target}{anchor}: expected one of {sorted(slugs)}"


def read(page: Path) -> str:
    """Text of a page; of a notebook, its cells of text."""
    text = page.read_text("utf-8")
    return re.sub(r"^# ?", "", text, flags=re.M) if page.suffix == ".py" else text


def slug(heading: str) -> str:
    """Anchor of a heading, as GitHub and Python-Markdown make it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_sections_that_it_includes_exist(page, hooks):
    text = page.read_text()
    place = page.relative_to(DOCS).as_posix()
    whole = hooks.included(hooks.relink(text, page, place), page, place)
    assert "<!-- include" not in whole
    assert whole.count("\n") >= text.count("\n")
    for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)\s]+)?\)", FENCE.sub("", whole)):
        if not re.match(r"\w+:", target):
            found = os.path.normpath(Path(place).parent / target)
            assert found in NAV or (DOCS / found).exists() or (ROOT / found).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_it_names_exist(page):
    text = page.read_text()
    for path in re.findall(r"(?:scripts|configs|data_prep|checkpoints|tests)/[\w/.]+\.\w+", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_exist(page):
    known = {*verbs.FILES, *verbs.TRAINING}
    for words in commands(page.read_text()):
        if "gen" not in words or "-m" in words:  # torchrun, see tests/commands/test_scale.py
            continue
        verb, *rest = words[words.index("gen") + 1 :]
        assert verb in known, f"expected a command of gen, got {verb}"
        given = [word for word in rest if word.startswith("--")]
        if verb in verbs.FILES:
            text = verbs.FILES[verb].read_text()
            if verb == "prepare":
                text = (ROOT / "data_prep" / f"{rest[0]}.py").read_text()
            for option in given:
                assert f'"{option}"' in text, f"{verb} {option}"
        for word in rest:
            if word.endswith(".yaml"):
                assert packaged(word).exists(), word
            elif "/" in word and not word.startswith(("-", "http", *YOURS)) and "{" not in word:
                assert (ROOT / word).exists(), word


def test_every_method_has_a_page_with_all_its_parts():
    stems = {
        getattr(gen.methods, found).__module__.rpartition(".")[2] for found in dir(gen.methods)
    }
    pages = {path.stem: path.read_text() for path in DOCS.glob("methods/*.md")}
    assert stems - NOT_A_METHOD == set(pages)
    for stem, text in pages.items():
        scripts = re.findall(r"\(\.\./notebooks/(\w+\.py)\)", text)
        code = "".join((DOCS / "notebooks" / script).read_text() for script in scripts)
        method = text.partition("\n")[0].removeprefix("# ")
        assert f"`{method}`" in code, f"methods/{stem}.md: expected a notebook about {method}"
    parts = (
        "## Idea",
        "## Equation",
        "## Train",
        "## Results",
        "## Limits",
        "```math",
        "../configs/",
    )
    for stem, text in pages.items():
        for part in (*parts, "![", "../notebooks/", "gen fit -c configs/"):
            assert part in text, f"methods/{stem}.md: expected {part}"


@pytest.mark.parametrize("room", ["losses", "metrics"])
def test_the_reference_has_every_module(room):
    text = (DOCS / f"reference/{room}.md").read_text()
    listed = set(re.findall(rf"^::: gen\.{room}\.(\w+)$", text, re.M))
    assert listed == {p.stem for p in (ROOT / "gen" / room).glob("*.py") if p.stem != "__init__"}


def test_the_reference_has_every_class_of_methods_and_data():
    text = "".join((DOCS / f"reference/{page}.md").read_text() for page in ("api", "data"))
    for room in (gen.methods, gen.data):
        for found in dir(room):
            assert re.search(rf"^::: {room.__name__}\.[\w.]+\.{found}$", text, re.M), found


def test_the_reference_has_every_function_of_inference():
    text = (DOCS / "reference/api.md").read_text()
    shown = dict(
        re.findall(r"^::: gen\.methods\.(\w+)\.\w+\n.*?members: \[(.*?)\]", text, re.M | re.S)
    )
    for path in (ROOT / "gen/methods").glob("*.py"):
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        marked = {
            node.name
            for node in functions
            if any(isinstance(d, ast.Name) and d.id == "inference" for d in node.decorator_list)
        }
        listed = {*filter(None, shown.get(path.stem, "").split(", "))}
        if path.stem != "image_classifier":  # what two classifiers share
            assert marked <= listed <= {node.name for node in functions}, path.stem


def test_numbers_of_results_are_not_copied_by_hand():
    """Tables of results come from cards and RESULTS.md; docs/movers.md is tested with its card."""
    for page in DOCS.glob("methods/*.md"):
        text = FENCE.sub("", page.read_text())
        assert not re.search(r"(?<!\d)\d\.\d\d", text), f"{name(page)}: expected no measured number"


# ---- hooks --------------------------------------------------------------------------------------


def test_links_become_those_of_the_site(hooks):
    page, card = DOCS / "methods/smooth_i2i.md", ROOT / "checkpoints/smooth_i2i_emoji64.md"

    def link(text, origin=page, place="methods/smooth_i2i.md"):
        return hooks.relink(text, origin, place)

    assert link("[c](../../checkpoints/smooth_i2i_emoji64.md#x)") == (
        "[c](../checkpoints/smooth_i2i_emoji64.md#x)"
    )
    assert link("[n](../notebooks/translate.py)") == "[n](../notebooks/translate.md)"
    assert link("![g](smooth_i2i_emoji64_grid.png)", card) == (
        "![g](../checkpoints/smooth_i2i_emoji64_grid.png)"
    )
    assert link("[code](../../gen/metrics/gradual.py)") == "code (`gen/metrics/gradual.py`)"
    for same in ("[w](https://example.org)", "```\n[c](../../README.md)\n```", "[made](x_1.png)"):
        assert link(same) == same


def test_a_section_ends_before_the_next_heading_of_its_level(hooks, tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# A\n\n## B\n\nb\n\n```bash\n# no heading\n```\n\n### C\n\nc\n\n## D\n\nd\n")
    assert hooks.section(page, "B") == "b\n\n```bash\n# no heading\n```\n\n### C\n\nc\n"
    assert hooks.section(page, "D") == "d\n"
    with pytest.raises(ValueError, match="expected a heading 'E', got none"):
        hooks.section(page, "E")


def test_docstrings_keep_lines_that_end_early(hooks):
    full = "word " * 18
    text = f"<p>a = <code>b</code> &lt; c\n{full.strip()}\nthe rest</p>"
    assert hooks.keep_lines(text) == text.replace("c\nword", "c<br>\nword")
    for same in ("<pre>a\nb</pre>", '<div class="doc-md-description">\n<p>a\nb</p>'):
        assert hooks.keep_lines(same) == same


# ---- notebooks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_percent_scripts(script):
    text = script.read_text()
    assert text.startswith("# %% [markdown]\n# # "), "expected a cell of text with a heading first"
    ast.parse(text)
    assert f"notebooks/{script.name})" in "".join(page.read_text() for page in PAGES)


def test_a_script_becomes_a_page(tmp_path):
    script = tmp_path / "one.py"
    script.write_text(
        "# %% [markdown]\n# # One\n#\n# Text.\n\n# %%\nfrom PIL import Image\n\nprint(1 + 1)\n\n"
        '# %%\nImage.new("RGB", (2, 2)).save("dot.png")\n'
    )
    command = [sys.executable, DOCS / "render.py", script, tmp_path / "out"]
    subprocess.run(command, check=True)
    page = (tmp_path / "out/one.md").read_text()
    assert page.startswith("# One\n") and "\nText.\n" in page
    assert "print(1 + 1)\n```\n\n```text" in page and "\n2\n```" in page
    assert page.endswith("![dot](one_dot.png)\n") and (tmp_path / "out/one_dot.png").exists()
    script.write_text("# %%\nx = 1\n\n# %%\nraise ValueError('here')\n")
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode and "line 5" in failed.stderr and "here" in failed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("script", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_as_plain_python(script, tmp_path, monkeypatch):
    """Within this process; the site runs each in one of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    assert [*tmp_path.rglob("*.png")], "expected a picture"


# ---- the site -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built strictly."""
    pytest.importorskip("mkdocs", reason='no mkdocs: pip install -e ".[docs]"')
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", out]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return out


LOADED = re.compile(
    r"""<(?:script|img|iframe|source|audio|video)\b[^>]*?\bsrc=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|<link\b[^>]*?\bhref=["']?(?:https?:)?//[^"'\s>]+"""
    r"""|(?:@import|url\()\s*["']?(?:https?:)?//[^"'\s)]+"""
)


def test_what_comes_from_the_web_is_found():
    for text in (
        '<script src="https://example.org/a.js">',
        '<link rel=preconnect href="//example.org" crossorigin>',
        '@import "http://example.org/a.css"',
        "src: url(https://example.org/a.woff2)",
    ):
        assert LOADED.search(text)
    for text in ('<a href="https://example.org">', '<script src="../a.js">', "url(data:image/x)"):
        assert not LOADED.search(text)


@pytest.mark.slow
def test_the_site_loads_nothing_from_the_web(site):
    texts = [path for kind in ("html", "css") for path in site.rglob(f"*.{kind}")]
    assert len(texts) > len(NAV)
    found = {path.name: LOADED.findall(path.read_text("utf-8")) for path in texts}
    assert {page: links for page, links in found.items() if links} == {}


@pytest.mark.slow
def test_the_site_has_every_page_with_equations_and_outputs(site):
    for page in NAV:
        place = page.replace("README.md", "index.md").replace(".md", ".html")
        assert (site / place).exists(), place
    for path in DOCS.glob("methods/*.md"):
        text = (site / f"methods/{path.stem}.html").read_text()
        assert text.count("<math") >= path.read_text().count("```math") and "```" not in text
        assert "<!-- include" not in text
    for script in NOTEBOOKS:
        text = (site / f"notebooks/{script.stem}.html").read_text()
        assert "prints" in text and f'src="{script.stem}_' in text
    losses = (site / "reference/losses.html").read_text()
    assert "gen.losses.style.shrinkage" in losses and "<em>" not in losses.partition("<article")[2]


@pytest.mark.slow
def test_the_site_works_from_a_file_without_errors(site, browser):
    """In Chromium, from file://: pictures, equations and the search; no request leaves."""
    page = browser.new_page()
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"file://{site}/methods/smooth_i2i.html")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth)")
    assert page.evaluate("document.querySelector('math').getBoundingClientRect().height > 10")
    page.click("input[name=query]")
    page.keyboard.type("shrinkage")
    page.wait_for_selector(".md-search-result__item a", timeout=20_000)
    page.close()
    assert not errors
    assert not [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))]
