"""Tab: drag objects of a scene, see at once how the others will move, then make the video."""

import json
from typing import NamedTuple

import gradio as gr
from PIL import Image
from torch import Tensor

from gen import viz
from gen.demo import busy, cut, downloads
from gen.demo.player import STALE, component, frames
from gen.demo.stage import paths, scene
from gen.demo.validation import QUIETLY, SEEDS, number, photo, uploaded, whole
from gen.inference import dragging, scenes
from gen.viz import motion as motion_viz

SCENES = 199  # index of the last scene of the test split
SPEEDS, ZOOMS = (0.25, 2.0), (0.8, 1.25)
FARTHER = 1.5  # factor of a suggested drag over the motion that the model predicts
MOST_FRAMES = 24  # of a clip, if the model makes clips of any length
FPS = 8
RESULT, STAGE, CUTTER = "clips", "scenes", "cutting"  # ids of columns: video, scene, photo


class Clip(NamedTuple):
    """A video: its frames, and the request in px of the image as given."""

    pictures: list
    request: dragging.Request


class Handlers:
    """Event handlers of the tab: they take values of its fields and return values of its parts.

    Args:
        method: a `ClickToMove` in eval mode.
    """

    def __init__(self, method):
        self.method = method
        self.steps, *size = method.shape
        self.size = tuple(size)
        self.most = MOST_FRAMES if method.takes_size((MOST_FRAMES, *size)) else self.steps
        self.device = next(method.parameters()).device

    def drawn(self, number: int) -> scenes.Still:
        """The first frame of a scene of the test split."""
        return scenes.drawn(number, self.size, self.steps + 1)

    def shown(self, still: scenes.Still) -> tuple[scenes.Still, gr.HTML]:
        """A still that can be edited, and the stage that shows it without a request."""
        dragging.scene(*self.parts(still))  # refuses a still that no drag can be applied to
        still = still._replace(given=still.given.new_zeros(1).expand(still.given.shape))  # its size
        return still, gr.HTML(value=None, scene=scene(still), paths={})

    def of_number(self, k: float):
        """Opens a drawn scene by its number."""
        return self.shown(self.drawn(whole(k, "scene", 0, SCENES)))

    def of_files(self, image: dict | None, masks: dict | None, previous: dict | None = None):
        """Opens an uploaded image with its masks, and perhaps the frame before it."""
        files_ = photo(image), uploaded(masks, "its masks")
        before = None if previous is None else photo(previous)
        still = scenes.read(*files_, self.size, self.method.hparams.fit, before)
        if not scenes.objects(still):
            raise ValueError(f"masks: expected objects to drag, got {scenes.NOTHING}")
        if still.note:
            gr.Info(f"Your image: {still.note}")
        return self.shown(still)

    def parts(self, still: scenes.Still | None) -> list[Tensor]:
        """Frame, semantic map and instance ids, on the model's device."""
        still = downloads.kept(still)
        return [part.to(self.device) for part in (still.frame, still.semantic, still.instance)]

    def wanted(self, request, seed, speed, steady, zoom) -> dragging.Request:
        """Request of the fields, in px of the model."""
        wanted = dragging.parse(request or {})._replace(seed=whole(seed, "seed", 0, SEEDS))
        if not isinstance(steady, bool):
            raise ValueError(f"steady camera: expected true or false, got {steady!r:.40}")
        if steady and wanted.camera is None:
            wanted = wanted._replace(camera=(0.0, 0.0, 1.0))
        if wanted.camera:
            wanted = wanted._replace(camera=(*wanted.camera[:2], number(zoom, "zoom", *ZOOMS)))
        return dragging.faster(wanted, number(speed, "speed", *SPEEDS))

    def ways(self, still: scenes.Still, theta: Tensor) -> tuple[list[int], Tensor]:
        """Ids of the objects, and their boxes (T + 1, M, 4) px."""
        where = dragging.scene(*self.parts(still))
        ids = where.ids[where.present].tolist()
        return ids, dragging.positions(where, theta)[:, : len(ids)]

    def predicted(
        self, still: scenes.Still, wanted: dragging.Request, frames: int | None = None
    ) -> Tensor:
        """Motion (1, T, M, 2, 3) of the objects."""
        return dragging.predict(self.method, *self.parts(still), wanted, still.previous, frames)

    def length(self, count) -> tuple[int, int]:
        """The number of frames to show, and to make: at least those of the model."""
        shown = whole(count, "frames", 1, self.most)
        return shown, max(shown, self.steps)

    def predict(self, still, count, *fields):
        """The stage with the paths that the objects will take."""
        shown, made = self.length(count)
        theta = self.predicted(still, self.wanted(*fields), made)
        ids, boxes = self.ways(still, theta)
        return gr.HTML(paths=paths(ids, boxes[: 1 + shown]))

    def suggest(self, still, request, seed, speed, *fields):
        """Adds a drag of the free object that moves farthest, along its predicted motion."""
        wanted = self.wanted(request, seed, speed, *fields)
        ids, boxes = self.ways(still, self.predicted(still, wanted))
        taken = {*wanted.moved, *wanted.pins, *wanted.remove}
        far = (boxes[-1] - boxes[0])[:, :2]  # (M, 2) px
        free = [k for k, id_ in enumerate(ids) if id_ not in taken]
        if not free:
            raise ValueError("expected an object that is free, got none; undo a drag")
        best = max(free, key=lambda k: far[k].norm().item())
        H, W = self.size
        end = boxes[0, best, :2] + FARTHER * far[best]
        end = end.clamp(min=0).minimum(end.new_tensor([W - 1, H - 1]))  # stays partly inside
        way = tuple(round(v / speed, 1) for v in (end - boxes[0, best, :2]).tolist())
        request = dragging.parse(request or {})
        request = request._replace(drags=(*request.drags, dragging.Drag(ids[best], ((0, 0), way))))
        return gr.HTML(value=json.loads(dragging.dump(request)))

    def render(self, still, count, *fields):
        """Makes the video and its downloads, and switches to the view that shows it."""
        wanted, (T, made) = self.wanted(*fields), self.length(count)
        where = self.parts(still)
        clip = dragging.animate(self.method, *where, wanted, still.previous, made)
        clip = clip._replace(**{name: getattr(clip, name)[:, :T] for name in clip._fields})
        pictures = [viz.to_uint8(x) for x in (still.frame, *clip.video[0])]
        ids, boxes = self.ways(still, clip.theta)
        by = scenes.moved_by(wanted, dragging.scene(*where))
        numbered = dragging.scene(*where).instance[0]
        sheets = (
            _saved("ways.png", motion_viz.arrows(still.frame, numbered, boxes, by, ids)),
            _saved("flow.png", motion_viz.flow_sheet(clip.flow)),
            _saved("hidden.png", motion_viz.hidden_sheet(clip.video.cpu(), clip.visible.sigmoid())),
        )
        large, ends = [_large(x) for x in pictures], ("given", f"frame {T}")
        value = frames(large, ends, fps=FPS, wide=True, autoplay=True, at=0)
        results = value, *sheets, Clip(pictures, scenes.to_given(wanted, still))
        return *results, gr.Column(visible=False), gr.Column(visible=True)


def tab(page: gr.Blocks, method, about: str) -> None:
    """Fills the tab with a `ClickToMove`; `about` is a text on it."""
    handlers = Handlers(method)
    start = handlers.drawn(0)
    still, clip = gr.State(), gr.State()
    gr.Markdown(about)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=320, elem_id=STAGE, elem_classes="stage-of"):
            pick = gr.Slider(0, SCENES, 0, step=1, label="Scene")
            stage = component("stage", elem_id="stage", scene=scene(start), paths={})
            go = gr.Button("Make the video", variant="primary", elem_classes=busy.starts(RESULT))
            with gr.Row():
                wide = dict(min_width=200)  # narrower sliders are clipped
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=SEEDS, **wide)
                speed = gr.Slider(*SPEEDS, 1, step=0.05, label="Speed", **wide)
                zoom = gr.Slider(*ZOOMS, 1, step=0.01, label="Camera's zoom", **wide)
                count = gr.Slider(1, handlers.most, handlers.steps, step=1, label="Frames", **wide)
            steady = gr.Checkbox(True, label="Steady camera, unless it is moved")
            with gr.Accordion("or your image and its masks", open=False):
                image = gr.File(
                    label="Image", file_types=["image"], height=110, elem_id="own-image"
                )
                with gr.Column(elem_id=CUTTER, elem_classes="stage-of"):
                    cutter = component("cut", elem_id="cut", visible=False)
                masks = gr.File(
                    label="Masks: cut out above, or a PNG of 16 bits, trainId * 1000 + number",
                    file_types=[".png"], height=110, elem_id="own-masks",
                )  # fmt: skip
                files = [image, masks]
                if "past" in method.takes:
                    files.append(gr.File(
                        label="Previous frame (optional): shows how fast objects move",
                        file_types=["image"], height=110, elem_id="own-previous",
                    ))  # fmt: skip
                load = gr.Button("take them", size="sm", elem_classes=busy.starts(STAGE))
        with gr.Column(scale=3, min_width=320, elem_id=RESULT, elem_classes="result"):
            with gr.Column() as before:
                gr.Markdown("The video comes here: drag something, then make it.")
            with gr.Column(visible=False) as after:
                player = component("player", elem_id="moved")
                with gr.Row(elem_classes="downloads"):
                    downloads.button(
                        "clip.gif", lambda p, c: viz.save_gif(_loop(c), p, FPS), [clip]
                    )
                    downloads.button(
                        "clip.mp4", lambda p, c: viz.save_mp4(_loop(c), p, FPS), [clip]
                    )
                    downloads.button(
                        "request.json", lambda p, c: p.write_text(_json(c), "utf-8"), [clip]
                    )
                pictures = dict(
                    interactive=False, buttons=["download", "fullscreen"], elem_classes="besides"
                )
                arrows = gr.Image(label="Who moves where", elem_id="ways", **pictures)
                pictures |= dict(show_label=False)
                with gr.Accordion("Flow to the first frame", open=False):
                    flow = gr.Image(label="Flow", elem_id="flow", **pictures)
                with gr.Accordion("What the first frame does not show", open=False):
                    hidden = gr.Image(
                        label="Not seen in the first frame", elem_id="hidden", **pictures
                    )
    fields = [stage, seed, speed, steady, zoom]
    opened = [still, stage]  # the last video and its files stay, pale, until the next video
    page.load(lambda: (start, None), None, [still, clip], **QUIETLY)
    changes = [part.change for part in (stage, count, *fields[1:])]
    last = dict(trigger_mode="always_last", **QUIETLY)
    stale = dict(fn=None, js=STALE.format("moved"), **QUIETLY)
    gr.on([pick.change, *changes], **stale)
    busy.on(STAGE, pick.change, handlers.of_number, pick, opened, **last)
    busy.on(CUTTER, image.change, cut.opened, image, cutter, **last)
    busy.on(CUTTER, cutter.change, cut.cut, [image, cutter, masks], [cutter, masks], **last)
    busy.on(STAGE, load.click, handlers.of_files, files, opened, **QUIETLY).success(**stale)
    busy.on(STAGE, changes, handlers.predict, [still, count, *fields], stage, **last)
    busy.on(STAGE, stage.select, handlers.suggest, [still, *fields], stage, **QUIETLY)
    made = [player, arrows, flow, hidden, clip, before, after]
    full = QUIETLY | {"show_progress": "full"}
    busy.on(RESULT, go.click, handlers.render, [still, count, *fields], made, **full)


def _saved(name: str, sheet: Image.Image) -> str:
    """Saves a picture; returns the path of the new file."""
    path = downloads.place(name)
    sheet.save(path)
    return str(path)


def _large(picture: viz.Picture) -> Image.Image:
    return viz.enlarge(picture, motion_viz.ARROWS_PX)


def _loop(clip: Clip | None) -> list:
    return motion_viz.looped([_large(picture) for picture in _made(clip).pictures])


def _json(clip: Clip | None) -> str:
    return dragging.dump(_made(clip).request) + "\n"


def _made(clip: Clip | None) -> Clip:
    if clip is None:
        raise ValueError("expected a video to save, got none yet; make it first")
    return clip
