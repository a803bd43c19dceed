"""The page without a server: what is written, and what a browser computes with it."""

import functools
import gzip
import http.server
import json
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import gen
from gen import tasks, viz
from gen.export import runtimes, site
from gen.files import cache_dir
from gen.verbs.export import main

KEPT = Path(__file__).resolve().parents[2] / "runs" / "demo"
MOST_MB, MOST_S, GREY = 25, 5, 2  # size; s till the first picture, where nothing else runs
LOOPS = """() => [...Array(200)].map(() => {  // ms of the same short work, again and again
    const began = performance.now();
    for (let i = 0, x = 1; i < 4e6; i++) x = (x * 1664525 + 1013904223) | 0;
    return performance.now() - began;
})"""
SELECT = "(tab) => import(`./${tab}.js`).then(({ last }) => JSON.parse(JSON.stringify(last, "
SELECT += "(key, value) => ArrayBuffer.isView(value) ? [...value] : value)))"
PIXELS = """canvas => { const { width: w, height: h } = canvas;
    return [...canvas.getContext("2d").getImageData(0, 0, w, h).data] }"""


def test_weights_are_halved_and_computed_with_in_float32(tmp_path):
    weight = np.random.default_rng(0).normal(size=(32, 16)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = helper.make_opsetid("", runtimes.OPSET)
    made = site.halved(helper.make_model(graph, opset_imports=[opset], ir_version=10))
    onnx.checker.check_model(made)
    onnx.save(made, path := tmp_path / "half.onnx")
    x = np.random.default_rng(1).normal(size=(3, 32)).astype(np.float32)
    (got,) = runtimes.onnx_session(path).run(None, {"x": x})
    assert made.graph.initializer[0].data_type == TensorProto.FLOAT16
    want = x @ weight.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_the_same_bytes_give_the_same_file():
    assert site.squeezed(b"model" * 99) == site.squeezed(b"model" * 99)
    assert gzip.decompress(site.squeezed(b"model" * 99)) == b"model" * 99


def test_every_tab_has_a_module_and_its_models_are_on_the_page():
    for tab in tasks.TABS:
        text = (site.PAGE / f"{tab.module.rpartition('.')[2]}.js").read_text()
        for role, row in tab.roles.items():
            assert (f'"{role}_' in text) == bool(row.checkpoint)


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(SystemExit, match="expected a new folder"):
        main(["--to", "web", str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The written folder."""
    out = tmp_path_factory.mktemp("web") / "page"
    if not (cache_dir() / "npm" / f"{site.RUNTIME}-{site.VERSION}").is_dir():
        pytest.skip(f"no {site.RUNTIME} in the cache: gen export --to web DIR fetches it")
    main(["--to", "web", str(out)])
    return out


@pytest.fixture(scope="module")
def host(folder) -> str:
    """Address of a static host on loopback, which sends no headers of its own."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page(browser, host):
    """The page, all of it loaded; from then on without a network."""
    context = browser.new_context(viewport={"width": 1180, "height": 860})
    opened, asked = context.new_page(), []
    opened.problems = []
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    busy = slowed(opened)
    opened.goto(host)
    opened.wait_for_selector("body[data-ready]", timeout=300_000)
    opened.busy = max(busy, slowed(opened))
    assert all(url.startswith((host, "data:", "blob:")) for url in asked)
    context.set_offline(True)
    yield opened
    assert opened.problems == []
    context.close()


def slowed(page) -> float:
    """How many times as long as alone a script takes beside the other work of this machine."""
    took = page.evaluate(LOOPS)
    return sum(took) / len(took) / min(took)


def shown(page, selector: str) -> np.ndarray:
    """The pixels (H, W, 3) of a canvas."""
    canvas = page.locator(selector)
    height = int(canvas.get_attribute("height") or canvas.evaluate("c => c.height"))
    return np.array(canvas.evaluate(PIXELS), np.int64).reshape(height, -1, 4)[..., :3]


def still(page, selector: str) -> np.ndarray:
    """The pixels once the models are done."""
    page.wait_for_timeout(300)
    page.wait_for_function("!document.querySelector('.stage.busy')", timeout=60_000)
    return shown(page, selector)


def near(got: np.ndarray, want: torch.Tensor, most: int = GREY) -> None:
    off = np.abs(got - viz.to_uint8(want.clamp(-1, 1)).astype(np.int64))
    assert off.max() <= most, f"expected pixels within {most} of 255, got {off.max()}"
    assert (off > GREY).mean() < 0.001


@pytest.mark.slow
def test_the_folder_is_small_and_whole(folder):
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert total < MOST_MB * 1e6
    tabs = json.loads((folder / "site.json").read_text())["tabs"]
    for name in (name for tab in tabs for name in tab["models"]):
        onnx.load_from_string(gzip.decompress((folder / f"models/{name}.onnx.gz").read_bytes()))


@pytest.mark.slow
def test_translate(page, capsys):
    seconds = int(page.evaluate("document.body.dataset.first")) / 1000
    with capsys.disabled():
        print(
            f"first picture after {seconds:.1f} s, of a machine slowed down {page.busy:.1f} times"
        )
    assert seconds < MOST_S * page.busy
    page.get_by_role("tab", name="Translate").click()
    before = still(page, "#translated")
    page.locator("#walk").evaluate("x => { x.value = 0.4; x.dispatchEvent(new Event('input')) }")
    now, last = still(page, "#translated"), page.evaluate(SELECT, "translate")
    assert np.abs(now - before).mean() > 1
    method = gen.load("smooth_i2i_emoji64")
    x = torch.tensor(last["source"]).view(1, 3, 64, 64)
    a, b = method.map_style(torch.tensor(last["z"]).view(2, -1), torch.tensor(last["y"])).split(1)
    near(now, method.decode(method.encode(x), torch.lerp(a, b, last["t"]))[0])


@pytest.mark.slow
def test_translate_a_picture_of_ones_own(page, tmp_path):
    picture = np.zeros((96, 160, 3), np.uint8)
    picture[:, 32:128] = 40, 90, 200  # its middle square
    Image.fromarray(picture).save(tmp_path / "own.png")
    page.get_by_role("tab", name="Translate").click()
    before = still(page, "#translated")
    page.locator("#own").set_input_files(tmp_path / "own.png")
    assert np.abs(still(page, "#translated") - before).mean() > 1
    source = torch.tensor(page.evaluate(SELECT, "translate")["source"]).view(3, 64, 64)
    blue = torch.tensor([40, 90, 200]) / 127.5 - 1
    assert (source - blue[:, None, None]).abs().max() < 0.02


@pytest.mark.slow
def test_edit(page):
    page.get_by_role("tab", name="Edit").click()
    before = still(page, "#edited")
    page.get_by_role("slider", name="dark fur").evaluate(
        "x => { x.value = Number(x.value) ? 0 : 1; x.dispatchEvent(new Event('input')) }"
    )
    now, last = still(page, "#edited"), page.evaluate(SELECT, "edit")
    assert np.abs(now - before).mean() > 2
    method, k = gen.load("style_function_heads64"), 4
    assert last["shares"] == [0, 0, 0, 0, 1, 0] and last["d"][k][k] != last["labels"][k]
    ws = method.map_latents(torch.tensor(last["z"])[None])
    d, z = torch.tensor([last["d"][k]]).float(), torch.tensor(last["noise"])[None]
    near(now, method.synthesize(method.edit(ws, d, z))[0])


@pytest.mark.slow
def test_click_to_move(page):
    from gen.inference import dragging, scenes

    page.get_by_role("tab", name="Click to move").click()
    page.get_by_role("button", name="pause").wait_for(timeout=120_000)
    page.get_by_role("button", name="no drags").click()
    method = gen.load("click_to_move_movers")
    T, H, W = method.shape
    drawn = scenes.drawn(0, (H, W), T + 1)
    bytes_ = torch.from_numpy(viz.to_uint8(drawn.frame).copy())  # what the page has
    frame = bytes_.permute(2, 0, 1) / 127.5 - 1
    one = dragging.scene(frame, drawn.semantic, drawn.instance)
    y, x = (one.instance[0] == 1).nonzero()[0].tolist()
    box = page.locator("#moved").bounding_box()
    size = box["width"] / W, box["height"] / H
    for step, (dx, dy) in enumerate([(0, 0), (6, 2), (12, 3), (18, 8)]):
        page.mouse.move(box["x"] + (x + dx + 0.5) * size[0], box["y"] + (y + dy + 0.5) * size[1])
        if step == 0:
            page.mouse.down()
    page.mouse.up()
    page.get_by_role("button", name="pause").wait_for(timeout=60_000)
    page.screenshot(path=KEPT / "web_move.png")
    page.get_by_role("button", name="pause").click()
    last = page.evaluate(SELECT, "move")
    ((number, path),) = last["drags"]
    assert number == 0 and len(path) >= 3
    ask = dragging.Request((dragging.Drag(int(one.ids[0, 0]), tuple(map(tuple, path))),))
    motion = dragging.motion(ask, one, T)
    theta = torch.tensor(last["theta"]).view(T, -1, 2, 3)
    torch.testing.assert_close(theta[:, 0], motion.theta[0, :, 0], rtol=0, atol=1e-5)
    z, object_z = torch.tensor(last["z"])[None], torch.tensor(last["object_z"])
    want = method.animate(one, motion, z, object_z.view(1, one.present.shape[1], T, -1)).video[0]
    for t in (1, T):
        page.locator("#frame").evaluate(
            f"x => {{ x.value = {t}; x.dispatchEvent(new Event('input')) }}"
        )
        near(shown(page, "#moved"), want[t - 1])
    for left in ([], ["pins"], ["gone"], []):  # after each click on the object
        page.mouse.click(box["x"] + (x + 0.5) * size[0], box["y"] + (y + 0.5) * size[1])
        still(page, "#moved")
        last = page.evaluate(SELECT, "move")
        assert [key for key in ("drags", "pins", "gone") if last[key]] == left
        if left == ["gone"]:
            motion = dragging.motion(dragging.Request(remove=(int(one.ids[0, 0]),)), one, T)
            made = method.animate(one, motion, z, object_z.view(1, one.present.shape[1], T, -1))
            want = made.video[0]
            page.get_by_role("button", name="pause").click()
            page.locator("#frame").evaluate(
                f"x => {{ x.value = {T}; x.dispatchEvent(new Event('input')) }}"
            )
            near(shown(page, "#moved"), want[T - 1], most=6)  # 4 measured, in the hole


@pytest.mark.slow
def test_on_a_phone_nothing_is_cut_off(browser, host):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    page.goto(host)
    page.wait_for_selector("body[data-ready]", timeout=300_000)
    for name in ("Translate", "Edit", "Click to move"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
        page.screenshot(path=KEPT / f"web_phone_{name.lower().replace(' ', '_')}.png")
    context.close()
