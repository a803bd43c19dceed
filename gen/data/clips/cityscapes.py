"""Video clips in the layout of Cityscapes sequences, with labels, tracks and flow precomputed.

For a model size W x H and a split, e.g. train (<stem> = <city>_<seq, 6 digits>_<frame, 6 digits>):

    <split>W_H/<city>/<stem>_leftImg8bit.png                                  RGB
    <split>_semantic_segmaskWxH/<city>/<stem>_ssmask.png                      8 bit, trainIds
    <split>_instanceWxH/<city>/<stem>_gtFine_instanceIds.png                  16 bit
    <split>_bw_optical_flow_HxW/<city>/<stem>_leftImg8bit_flow_backward.flow  Middlebury
    <split>_bw_occlusion_HxW/<city>/<stem>_leftImg8bit_occlusion_bw.png       8 bit, 255 visible
    <split>_instance_tracking_test/<city>/<stem>_<id>.txt                     x,y,w,h,id a frame

Instances of things are class * 1000 + number, and their numbers may change in every frame; a track
says which of them belong together. Its file name has the first frame; its boxes are boxes of the
masks in source pixels, w = max - min. Flow and occlusion have the name of their frame t and lead to
the first frame of the clip. `data_prep/cityscapes_layout.py` writes this layout.
"""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gen.data.clips import ClipData, Clips
from gen.data.images import ImageError, load_image, to_tensor

Start = tuple[str | int, ...]  # city, sequence, first frame (last in every layout)
MAGIC = b"PIEH"  # 202021.25 as float32
FARTHEST = 4  # a flow, and the way to a box, is at most this many sides of the frame long
SMALLEST = 1e-3  # px, shortest side of a visible box: motions are ratios of sides


class Layout:
    """Paths of the files of a split, for frames of a size in px."""

    source = (2048, 1024)  # width and height of the frames that tracks refer to
    missing = 1  # px to add to w and h of their boxes, which are max - min
    names = "<city>/<city>_<seq>_<frame>_<id>.txt"

    def __init__(self, root: Path, split: str, height: int, width: int) -> None:
        wide, high = f"{width}x{height}", f"{height}x{width}"
        self.tracks = root / f"{split}_instance_tracking_test"
        self.kinds = {
            "frame": (root / f"{split}{width}_{height}", "leftImg8bit.png"),
            "semantic": (root / f"{split}_semantic_segmask{wide}", "ssmask.png"),
            "instance": (root / f"{split}_instance{wide}", "gtFine_instanceIds.png"),
            "flow": (root / f"{split}_bw_optical_flow_{high}", "leftImg8bit_flow_backward.flow"),
            "occlusion": (root / f"{split}_bw_occlusion_{high}", "leftImg8bit_occlusion_bw.png"),
        }

    def path(self, kind: str, start: Start, t: int) -> Path:
        """File of a kind for frame t of the clip that begins at `start`."""
        folder, suffix = self.kinds[kind]
        city, seq, frame = start
        return folder / city / f"{city}_{seq}_{frame + t:06d}_{suffix}"

    def track(self, start: Start, number: int) -> Path:
        """File of the track of an instance, by its number in the first frame."""
        city, seq, frame = start
        return self.tracks / city / f"{city}_{seq}_{frame:06d}_{number}.txt"

    def parse(self, track: Path) -> tuple[Start, int] | None:
        """Start of the clip, and number, from the file name of a track; None for another name."""
        if match := re.fullmatch(r"(.+)_(\d{6})_(\d{6})_(\d+)\.txt", track.name):
            city, seq, frame, number = match.groups()
            return (city, seq, int(frame)), int(number)
        return None


class CityscapesClips(Clips):
    """Clips of a split: one for every first frame that has a track. See `gen.data.clips.Clips`.

    theta is computed from boxes: scale size_0 / size_t, and t = c_0 - s c_t. Tracks beyond
    `max_objects` are left out, the smallest first. Things without a track belong to no object.

    Args:
        root: folder of the layout above.
        split: name of the split, such as "train".
        height, width: height and width of a frame, px.
        frames: number of frames per clip.
        max_objects: largest number of tracks in a clip.

    Raises:
        ValueError: no track, or a file that is damaged or does not fit; the message names it.
    """

    of_files = Layout

    def __init__(
        self, root: Path, split: str, height: int, width: int, frames: int, max_objects: int
    ) -> None:
        self.height, self.width, self.frames, self.max_objects = height, width, frames, max_objects
        self.layout = self.of_files(root, split, height, width)
        starts: dict[Start, list[tuple[Path, int]]] = {}
        for path in sorted(self.layout.tracks.glob("[!.]*/[!.]*.txt")):  # no copies of macOS
            if not (parsed := self.layout.parse(path)):
                name = self.layout.names.split("/")[1]
                raise ValueError(f"{path}: expected a name {name}; rename it, or move it away")
            starts.setdefault(parsed[0], []).append((path, parsed[1]))
        if not starts:
            raise ValueError(
                f"{self.layout.tracks}: expected tracks {self.layout.names}, got none; give the "
                "folder that has them as root"
            )
        self.starts = list(starts.items())

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        start, tracks = self.starts[index]
        t, m, size = self.frames, self.max_objects, (self.width, self.height)
        frames = [load_image(self.layout.path("frame", start, i)) for i in range(t)]
        for i, frame in enumerate(frames):
            _expect_size(frame, size, self.layout.path("frame", start, i))
        semantic = np.stack([self._labels("semantic", start, i) for i in range(t)])
        bad = (semantic > 18) & (semantic != 255)
        if bad.any():
            where = self.layout.path("semantic", start, int(bad.any((1, 2)).argmax()))
            raise ValueError(f"{where}: expected trainIds 0 .. 18 or 255, got {semantic[bad][0]}")
        raw = np.stack([self._labels("instance", start, i) for i in range(t)])
        rows = np.stack([self._track(path) for path, _ in tracks])  # (K, T, 5)
        kept = np.sort(np.argsort(-rows[:, 0, 2] * rows[:, 0, 3], kind="stable")[:m])
        ids = np.array([tracks[k][1] for k in kept])
        for k in kept[(ids // 1000 < 11) | (ids // 1000 > 18)]:
            raise ValueError(
                f"{tracks[k][0]}: expected an id trainId * 1000 + number, trainId 11 .. 18, got "
                f"{tracks[k][1]}; a label id, as 26 of cars, is no trainId"
            )
        order = np.argsort(ids, kind="stable")
        rows, ids, n = rows[kept][order], ids[order], len(kept)
        instance = np.zeros(raw.shape, np.int64)
        for k in range(n):
            mask = raw == rows[k, :, 4, None, None]
            instance[mask] = k + 1
            self._agree(tracks[kept[order[k]]][0], rows[k, :, :4], mask, semantic == ids[k] // 1000)
        boxes = np.zeros((t, m, 4))
        boxes[:, :n] = normalised_boxes(rows[..., :4].swapaxes(0, 1), size, self.layout)
        occlusion = np.stack([self._labels("occlusion", start, i) for i in range(1, t)])
        for i, most in enumerate(occlusion.max((1, 2)), start=1):
            if 0 < most < 128:
                raise ValueError(
                    f"{self.layout.path('occlusion', start, i)}: expected 255 where visible and 0 "
                    f"elsewhere, got at most {most}; multiply by {255 // most}"
                )
        flow = np.stack([read_flow(self.layout.path("flow", start, i), size) for i in range(1, t)])
        padded = np.zeros(m, np.int64)
        padded[:n] = ids
        return {
            "video": torch.stack([to_tensor(frame) for frame in frames]),
            "semantic": torch.from_numpy(semantic),
            "instance": torch.from_numpy(instance),
            "flow": torch.from_numpy(flow.transpose(0, 3, 1, 2).copy()),
            "visible": torch.from_numpy((occlusion > 127)[:, None].astype(np.float32)),
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "theta": torch.from_numpy(box_motion(boxes).astype(np.float32)),
            "classes": torch.from_numpy(padded // 1000),
            "ids": torch.from_numpy(padded),
            "present": torch.arange(m) < n,
            "index": index,
        }

    def _labels(self, kind: str, start: Start, t: int) -> np.ndarray:
        return read_labels(self.layout.path(kind, start, t), (self.width, self.height))

    def _track(self, path: Path) -> np.ndarray:
        """The first T rows of a track: x, y, w, h in source pixels, id; (T, 5)."""
        try:
            lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected lines x,y,w,h,id, got no text ({error})") from error
        if len(lines) < self.frames:
            raise ValueError(f"{path}: expected {self.frames} lines or more, got {len(lines)}")
        try:
            rows = np.array([[float(v) for v in line.split(",")] for line in lines[: self.frames]])
        except ValueError as error:
            told = f"expected lines x,y,w,h,id of numbers ({error!s:.200})"
            raise ValueError(f"{path}: {told}") from error
        right = rows.shape == (self.frames, 5) and np.isfinite(rows).all()
        if not right or (rows[:, 2:4] < 0).any():
            got = f"{lines[0]!r:.100}"
            raise ValueError(f"{path}: expected lines x,y,w,h,id with w, h >= 0, got {got}")
        sides = rows[:, 2:4][rows[:, 2:4] > 0]
        most = FARTHEST * max(self.layout.source)
        if np.abs(rows[:, :4]).max() > most or sides.min(initial=most) < SMALLEST:
            raise ValueError(
                f"{path}: expected boxes within {FARTHEST} sides of a frame of "
                f"{self.layout.source} px, whose w, h are 0 or {SMALLEST} px and more"
            )
        return rows

    def _agree(self, path: Path, boxes: np.ndarray, mask: np.ndarray, kind: np.ndarray) -> None:
        """Refuses a track that does not fit the masks: none of its boxes (T, 4), in source px, of
        at least 2 px of the model, contains a px of its instance (T, H, W), or no px of the
        instance has the class of the track (T, H, W)."""
        scale = np.array((self.width, self.height)) / self.layout.source
        low = np.floor(boxes[:, :2] * scale).astype(int).clip(min=1) - 1
        side = (boxes[:, 2:] + self.layout.missing) * scale
        high = np.ceil(boxes[:, :2] * scale + side).astype(int).clip(min=0) + 1
        large = np.flatnonzero((side >= 2).all(1) & boxes.any(1))
        spans = [(t, *(slice(a, b) for a, b in zip(low[t], high[t], strict=True))) for t in large]
        if spans and not any(mask[t, y, x].any() for t, x, y in spans):
            w, h = self.layout.source
            raise ValueError(
                f"{path}: expected px of its instance in its boxes, got none in {len(spans)} frames"
                f"; boxes are px of {w} x {h}, and the last number of a line is that of the "
                "instance in that frame"
            )
        if mask.any() and not (mask & kind).any():
            raise ValueError(
                f"{path}: expected px of its class where its instance is, got none in the semantic "
                "masks"
            )


def read_labels(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A PNG of numbers, of the given width and height: (H, W) int64.

    Raises:
        ValueError: no such file, another size, not a PNG, or not one channel; it names the file.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            _expect_size(image, size, path)
            values = np.asarray(image).astype(np.int64)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: expected this file, got none") from error
    except ImageError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise ImageError(f"{path}: expected a PNG, got a damaged one ({error})") from error
    if values.ndim != 2:
        raise ImageError(f"{path}: expected one channel, got {values.shape[2]}")
    return values


def read_ids(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A PNG that tells what each px belongs to, of the given width and height: (H, W) int64.

    Things are trainId * 1000 + number, 11001 .. 18999; other pixels are their trainId, 0 .. 18; 255
    is unknown. trainIds are 11 person, 12 rider, 13 car, 14 truck, 15 bus, 16 train, 17 motorcycle,
    18 bicycle; 0 road, and so on: `gen.inference.scenes.CLASSES`.

    Raises:
        ValueError: as `read_labels`, or other numbers; it names the file.
    """
    ids = read_labels(path, size)
    wrong = (ids < 0) | ((ids > 18) & (ids != 255) & (ids <= 11000)) | (ids >= 19000)
    if len(got := np.unique(ids[wrong | ((ids > 255) & (ids % 1000 == 0))])):
        raise ValueError(
            f"{path}: expected trainIds 0 .. 18, 255, or trainId * 1000 + number of things, 11001 "
            f".. 18999, got {', '.join(map(str, got[:5]))}; a label id, as 24 of persons or 26 of "
            "cars, is no trainId: persons are 11001 and on, cars 13001 and on"
        )
    return ids


def normalised_boxes(boxes: np.ndarray, size: tuple[int, int], layout: Layout) -> np.ndarray:
    """Boxes (..., 4) x, y, w, h in source pixels -> centre in [-1, 1], then w / W and h / H.

    Boxes 0, 0, 0, 0, of frames without the object, stay 0.
    """
    scale = np.array(size) / layout.source  # model px per source px
    whole = boxes[..., 2:] + layout.missing
    centre = (boxes[..., :2] + whole / 2) * scale - 0.5  # px
    side = whole / layout.source
    found = np.concatenate([2 * centre / (np.array(size) - 1) - 1, side], -1)
    return np.where(boxes.any(-1, keepdims=True), found, 0)


def box_motion(boxes: np.ndarray) -> np.ndarray:
    """Boxes (T, M, 4) -> theta (T - 1, M, 2, 3). A box without size keeps the motion before it, at
    first the identity."""
    boxes = boxes.copy()
    for t in range(1, len(boxes)):
        unseen = ~(boxes[t, :, 2:] > 0).all(1)  # (M,)
        boxes[t, unseen] = boxes[t - 1, unseen]
    there = (boxes[:1, :, 2:] > 0) & (boxes[1:, :, 2:] > 0)  # (T - 1, M, 2)
    scale = np.where(there, boxes[:1, :, 2:] / np.where(there, boxes[1:, :, 2:], 1), 1)
    shift = np.where(there, boxes[:1, :, :2] - scale * boxes[1:, :, :2], 0)
    return np.concatenate([scale[..., None] * np.eye(2), shift[..., None]], -1)


def read_flow(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A Middlebury file of the given width and height as (H, W, 2) float32 px, x first."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: expected this file, got none") from error
    if data[:4] != MAGIC:
        raise ValueError(f"{path}: expected the first bytes {MAGIC!r}, got {data[:4]!r}")
    shape = tuple(np.frombuffer(data[4:12], "<i4").tolist()) if len(data) >= 12 else ()
    if shape != size:
        raise ValueError(f"{path}: expected width and height {size}, got {shape}")
    if len(data) != 12 + 8 * size[0] * size[1]:
        raise ValueError(f"{path}: expected {12 + 8 * size[0] * size[1]} bytes, got {len(data)}")
    flow = np.frombuffer(data, "<f4", offset=12).reshape(size[1], size[0], 2)
    if not np.isfinite(flow).all():
        raise ValueError(f"{path}: expected finite flow, got NaN or infinite")
    if (most := np.abs(flow).max()) > FARTHEST * max(size):
        raise ValueError(
            f"{path}: expected flow of at most {FARTHEST} sides of the frame, got {most:g} px; 1e9 "
            "marks what is unknown: write 0, and 0 into the occlusion, too"
        )
    return flow


def _expect_size(image: Image.Image, size: tuple[int, int], path: Path) -> None:
    if image.size != size:
        raise ImageError(f"{path}: expected width and height {size}, got {image.size}")


class Cityscapes(ClipData):
    """Clips in the layout of Cityscapes sequences; see `gen.data.clips.cityscapes`. Not augmented.

    Args:
        root: folder with the layout of Cityscapes.
        height: height of the frames, px; part of the folder names.
        width: width of the frames, px; part of the folder names.
        frames: number of frames per clip, the first included.
        max_objects: largest number of tracks in a clip; also the length M of lists of objects.
        batch_size: clips per step on one device.
        val_batch_size: clips per validation batch.
        num_workers: processes that decode; 0 decodes in the training process.
        seed: seed of the order of training clips.
    """

    reader = CityscapesClips

    def __init__(
        self,
        root: str,
        height: int = 128,
        width: int = 256,
        frames: int = 6,
        max_objects: int = 16,
        batch_size: int = 8,
        val_batch_size: int = 8,
        num_workers: int = 2,
        seed: int = 777,
    ) -> None:
        super().__init__(height, batch_size, val_batch_size, num_workers, seed)
        lowest = {"height": 16, "width": 16, "frames": 2, "max_objects": 1}
        for name, low in lowest.items():
            if (value := locals()[name]) < low:
                raise ValueError(f"expected {name} >= {low}, got {value}")
        self.root, self.options = Path(root), (height, width, frames, max_objects)

    @property
    def domains(self) -> list[str]:
        return []

    def clips(self, split: str) -> CityscapesClips:
        """A split; "test" is val, since the test split has no tracks."""
        if split == "test" and not (self.root / "test_instance_tracking_test").exists():
            split = "val"
        return self.reader(self.root, split, *self.options)
