"""Tables of docs/export.md: those of docs/export.jsonl, which is of the shipped checkpoints."""

import json

import export_page


def test_the_tables_are_those_of_the_results():
    assert export_page.PAGE.read_text("utf-8") == export_page.page(export_page.read())


def test_the_results_are_those_of_the_shipped_checkpoints():
    manifest = json.loads((export_page.DOCS.parent / "checkpoints/manifest.json").read_text())
    lines = export_page.read()
    assert len(lines) == len({line["checkpoint"] for line in lines}) >= 4
    for line in lines:
        name = line["checkpoint"]
        assert line["sha256"] == manifest[name]["sha256"], (
            f"{name}: expected times of the shipped file, got those of another one; run "
            f"python scripts/benchmark.py export {name} --publish"
        )


def test_a_line_takes_the_place_of_that_of_the_same_checkpoint(tmp_path, monkeypatch):
    page = "a\n<!-- {0} of export.jsonl -->\nold\n<!-- end of {0} -->\nb\n"
    for name, text in {"PAGE": page.format("int8") + page.format("time"), "LINES": ""}.items():
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(export_page, name, tmp_path / name)

    def add(checkpoint, ms, ratio):
        row = {"graph": "draw", "threads": 1, "eager ms": ms, "compiled x": ratio, "onnx x": 2}
        small = {"graph": "draw", "LPIPS": 0.01234, "size": 0.5, "kept": False}
        export_page.add({"checkpoint": checkpoint, "rows": [row, row], "int8": [small]})

    add("one", 9.0, 1.0)
    add("two", 3.0, None)
    add("one", 1.25, 1.5)
    lines = (tmp_path / "PAGE").read_text().splitlines()
    assert "old" not in lines and lines.count("a") == lines.count("b") == 2
    assert [line for line in lines if "draw" in line] == [
        "| one | draw | 0.0123 | 0.50 x | left out |",
        "| two | draw | 0.0123 | 0.50 x | left out |",
        "| one | draw | 1 | 1.2 | 1.5 x | 2.0 x |",
        "|  | draw | 1 | 1.2 | 1.5 x | 2.0 x |",
        "| two | draw | 1 | 3.0 | fails | 2.0 x |",
        "|  | draw | 1 | 3.0 | fails | 2.0 x |",
    ]
    assert [line["checkpoint"] for line in export_page.read()] == ["one", "two"]
