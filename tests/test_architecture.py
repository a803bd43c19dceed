"""The shape of the code: who may import whom, how long files are. Read with `ast`, not imported."""

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("gen", "scripts", "data_prep", "tests")
FILES = {p.relative_to(ROOT).as_posix(): p for top in TOPS for p in (ROOT / top).rglob("*.py")}
OURS = {name: path for name, path in FILES.items() if name.startswith("gen/")}
TREES = {name: ast.parse(path.read_text()) for name, path in FILES.items()}
STANDARD = set(sys.stdlib_module_names)


def module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(tree: ast.AST) -> set[str]:
    """Full names of all that is imported, anywhere in the file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "expected absolute imports, got a relative one"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found - {"__future__.annotations"}


def within(name: str, allowed: set[str]) -> bool:
    return any(
        name == a or name.startswith(f"{a}.")
        for a in allowed | STANDARD | {"gen.lazy", "gen.import_name", "gen.lazy_classes"}
    )


RULES = {  # part -> what it may import besides the standard library
    "gen.losses": {"torch", "gen.losses", "gen.ops", "gen.devices"},
    "gen.ops": {"torch", "numpy", "cv2", "gen.ops", "gen.devices"},  # OpenCV labels fast on a CPU
    "gen.interpolation": {"torch", "gen.devices"},
    "gen.devices": {"torch"},
    "gen.networks": {
        "torch", "torchvision", "timm", "numpy", "gen.files", "gen.fetch", "gen.weights",
        "gen.pickles", "gen.networks", "gen.devices", "gen.ops",
    },
    "gen.metrics": {
        "torch", "torchmetrics", "torch_fidelity", "numpy", "scipy", "gen.metrics",
        "gen.networks.backbones", "gen.networks.perceptual", "gen.interpolation", "gen.viz",
        "gen.files", "gen.weights", "gen.ops", "gen.losses", "gen.devices",
    },
    "gen.data": {
        "torch", "torchvision", "lightning", "numpy", "scipy", "cv2", "PIL", "timm", "safetensors",
        "gen.data", "gen.files",
    },
    "gen.viz": {"torch", "numpy", "cv2", "PIL", "scipy", "av", "gen.viz", "gen.files"},
    "gen.files": {"yaml"},
    "gen.fetch": {"gen.files"},
    "gen.hub": {"huggingface_hub", "gen.files"},
    "gen.shipped": {"gen.files", "gen.data.remote", "gen.hub"},
    "gen.weights": {"torch", "safetensors", "gen.files"},
    "gen.pickles": {"torch", "numpy", "gen.pickles", "gen.files", "gen.weights"},
}  # fmt: skip


FLOORS = (  # rooms of gen/; a lower floor never imports a higher one
    "tasks devices files interpolation ops viz data",
    "fetch weights pickles losses hub shipped",
    "networks checkpoint",
    "metrics inference convert",
    "methods evaluation demo export",
    "report callbacks commands runs",
    "bench verbs cli __main__",
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}


def uses() -> dict[str, set[str]]:
    """Module of gen -> the modules of gen that it imports, anywhere in it."""
    known = {module(name) for name in OURS}
    found = {}
    for name in OURS:
        mine = set()
        for full in imports(TREES[name]):
            while full and full not in known:
                full = full.rpartition(".")[0]
            mine.add(full)
        found[module(name)] = mine - {module(name), "gen", ""}
    return found


def test_lower_floors_never_import_higher_ones():
    floors = {m: FLOOR[m.split(".")[1]] for m in uses() if m != "gen"}
    wrong = {
        (m, u) for m, used in uses().items() if m != "gen" for u in used if floors[u] > floors[m]
    }
    assert wrong == set()


def test_imports_go_in_no_circle():
    left = uses()
    while free := {m for m, used in left.items() if not used & left.keys()}:
        left = {m: used for m, used in left.items() if m not in free}
    assert left == {}


@pytest.mark.parametrize("part", RULES)
def test_dependencies_point_one_way(part):
    files = [n for n in OURS if within(module(n), {part}) and module(n).startswith(part)]
    assert files
    wrong = {n: {i for i in imports(TREES[n]) if not within(i, RULES[part])} for n in files}
    assert {n: bad for n, bad in wrong.items() if bad} == {}


def test_no_test_imports_another():
    for name in (n for n in FILES if n.startswith("tests/")):
        assert not [i for i in imports(TREES[name]) if i.startswith("test_")], name


def test_nothing_imports_scripts_or_data_prep_or_tests():
    for top, outside in (
        ("gen/", {"scripts", "data_prep", "tests"}),
        ("scripts/", {"scripts", "data_prep"}),  # benchmark.py times what tests/literal_*.py hold
    ):
        inside = {p.stem for name, p in FILES.items() if name.split("/")[0] in outside}
        for name in (n for n in FILES if n.startswith(top)):
            found = {i.split(".")[0] for i in imports(TREES[name])}
            assert not found & (outside | inside), name


# used by methods, and no methods themselves
SHARED = {
    "base",
    "image_classifier",
    "loading",
    "projector",
    "schedules",
}
METHODS = [
    name
    for name in OURS
    if name.startswith("gen/methods/") and Path(name).stem not in {"__init__", *SHARED}
]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_imports_from_methods_only_base_and_one_baseline(name):
    used = {i.split(".")[2] for i in imports(TREES[name]) if i.startswith("gen.methods.")}
    assert len(used - SHARED) <= 1, used


def test_methods_are_not_known_outside_their_folder():
    """So a method is deleted by removing its file and its config."""
    names = {f"gen.methods.{Path(n).stem}" for n in METHODS}
    for name in set(OURS) - set(METHODS):
        assert not {i for i in imports(TREES[name]) if i.startswith(tuple(names))}, name


def test_files_are_short():
    long = {}
    for name, path in FILES.items():
        count = len(path.read_text().splitlines())
        if count > 500 and not name.startswith("tests/"):
            long[name] = f"expected at most 500 lines, got {count}"
    assert long == {}


def test_lines_are_short():
    long = [
        f"{name}:{i}"
        for name, path in FILES.items()
        for i, line in enumerate(path.read_text().splitlines(), start=1)
        if len(line) > 100
    ]
    assert long == []


def test_the_command_is_short():
    assert len(FILES["gen/cli.py"].read_text().splitlines()) <= 120


def test_no_print_in_the_library_but_in_its_commands():
    for name in (name for name in OURS if not name.startswith("gen/verbs/")):
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.FunctionDef) and node.name != "main":
                inner = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
                assert "print" not in {ast.unparse(n.func) for n in inner}, f"{name}: {node.name}"


@pytest.mark.parametrize("name", METHODS)
def test_methods_take_plain_scalars_and_document_each(name):
    plain = {"int", "float", "bool", "str"}
    for cls in (n for n in TREES[name].body if isinstance(n, ast.ClassDef)):
        for init in (n for n in cls.body if getattr(n, "name", "") == "__init__"):
            arguments = init.args.args[1:]
            kinds = {a.arg: ast.unparse(a.annotation) for a in arguments}
            odd = [v for v in kinds.values() if v not in plain and not v.startswith("Literal[")]
            assert odd == [] and len(init.args.defaults) == len(arguments)
            doc = ast.get_docstring(cls)
            assert not [k for k in kinds if f"\n    {k}: " not in doc], "undocumented"


def test_images_leave_through_viz_alone():
    """No other place turns tensors into bytes."""
    marks = ("torch.uint8", ".byte()", "save_image", "to_pil_image", "make_grid")
    texts = {name: FILES[name].read_text().replace("viz.save_image(", "") for name in OURS}
    assert [n for n, text in texts.items() if any(m in text for m in marks)] == [
        "gen/viz/__init__.py"
    ]


def test_public_functions_and_classes_say_what_they_are():
    parts = ("gen/losses", "gen/methods", "gen/metrics", "gen/interpolation")
    bare = [
        f"{name}: {node.name}"
        for name in OURS
        if name.startswith(parts)
        for node in TREES[name].body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and node.name != "main"
        and not ast.get_docstring(node)
    ]
    assert bare == []


PRIVATE = {  # of Lightning, and the one file that uses it; another minor version may change them
    "_parse_ckpt_path": "gen/cli.py",
    "_trainer": "gen/methods/base.py",
    "_ddp_kwargs": "gen/methods/base.py",
    "_accelerator_connector": "gen/data/base.py",
}


def test_private_names_of_lightning_are_used_in_one_file_each():
    """Private names that no file of ours gives to anything are of other packages."""
    known = {"_replace", "_asdict", "_fields", "_exit", "_buffers", "_unsafe_view"}  # Python, torch
    known |= {"_set_params_and_buffers_to_ignore_for_model", "_actions", "_typehint"}
    nodes = [(name, node) for name in FILES if not name.startswith("tests/")
             for node in ast.walk(TREES[name])]  # fmt: skip
    used = [(n.attr, name, n.ctx) for name, n in nodes if isinstance(n, ast.Attribute)]
    used += [(n.args[1].value, name, None) for name, n in nodes if isinstance(n, ast.Call)
             and getattr(n.func, "id", "") == "getattr"
             and isinstance(n.args[1], ast.Constant)]  # fmt: skip
    defined = [(n.name, name) for name, n in nodes if isinstance(n, ast.FunctionDef)]
    ours = {attr for attr, _, ctx in used if isinstance(ctx, ast.Store)} | {n for n, _ in defined}
    found = {(attr, name) for attr, name, _ in used if re.match("_[^_]", attr)}
    found = {(attr, name) for attr, name in found if attr not in ours | known}
    assert found | ({*defined} & PRIVATE.items()) == {*PRIVATE.items()}


def test_nothing_of_this_machine_is_in_the_tree():
    marks = ("/" + "work/", "/" + "root/")
    texts = [*FILES.values(), *ROOT.glob("configs/**/*.yaml"), *ROOT.glob("*.md")]
    texts += ROOT.glob("scripts/*.sh")
    assert {str(p) for p in texts if any(m in p.read_text() for m in marks)} == set()


def test_the_oldest_versions_that_are_tested_are_those_that_are_allowed():
    """constraints-oldest.txt pins the first release of each range in setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    options = setup["options"], *setup["options.extras_require"].values()
    lines = [options[0]["install_requires"], *options[1:]]
    asked = [Requirement(line) for text in lines for line in text.split("\n") if line]
    pins = (ROOT / "constraints-oldest.txt").read_text().splitlines()[1:]
    oldest = {r.name: Version(next(iter(r.specifier)).version) for r in map(Requirement, pins)}
    assert {r.name for r in asked} == set(oldest)
    for requirement in asked:
        (least,) = (Version(s.version) for s in requirement.specifier if s.operator == ">=")
        pin = oldest[requirement.name]
        assert pin.release[: len(least.release)] == least.release, requirement
        assert not any(pin.release[len(least.release) : 3]), (
            f"{requirement}: {pin} is not the first"
        )
    assert "-c constraints-oldest.txt" in (ROOT / "scripts/test_oldest.sh").read_text()
    assert "\nbash scripts/test_oldest.sh\n" in (ROOT / ".ci/run").read_text()


def test_what_is_imported_is_required():
    """By setup.cfg: nothing comes along by chance, in a version that nobody chose."""
    names = {"PIL": "pillow", "cv2": "opencv-python-headless", "yaml": "pyyaml", "wandb": "wandb"}
    along = {"starlette": "gradio", "packaging": "lightning", "typing_extensions": "torch"}
    tops = {i.split(".")[0] for name in FILES if name.split("/")[0] != "tests"
            for i in imports(TREES[name])}  # fmt: skip
    local = {"gen", *(path.stem for path in FILES.values())}
    text = (ROOT / "setup.cfg").read_text()
    for top in tops - STANDARD - local:
        name = along.get(top, names.get(top, top.replace("_", "-")))
        assert re.search(rf"\b{name}(\[\w+\])?>=", text), f"{top}: expected {name} in setup.cfg"
