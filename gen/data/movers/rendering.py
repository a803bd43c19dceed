"""Rendering of `gen.data.movers`: owner and colour of a point, exact flow and visibility.

An image is a stack of rigid sheets: the movers, nearest feet first, then the layers of the
scenery. In each frame a similarity maps the coordinates of a sheet to pixels, and the colour of a
sheet is a function of its coordinates alone. So two frames show a point in the same colour, and
its place in frame 0 is known exactly.
"""

import numpy as np

from gen.data.movers.dynamics import (
    CELLS,
    DEPTH,
    INTERACTIONS,
    Course,
    Scene,
    perspective,
)
from gen.data.movers.scenery import GROUND, LAYERS, PARALLAX, ROAD_BOTTOM, ROAD_TOP, Scenery
from gen.data.movers.sprites import KINDS, Sprite

LAYER_IDS = np.array([1, 8, 2, 2, 10])  # trainIds; of the ground: pavement
ROAD_ID = 0
SOFT_PX = 1.5  # width of edges within a sheet, so that frames can be sampled between pixels


def inverse(m: np.ndarray) -> np.ndarray:
    """The inverse of affine maps (..., 2, 3)."""
    a = np.linalg.inv(m[..., :2])
    return np.concatenate([a, -a @ m[..., 2:]], -1)


def compose(m: np.ndarray, n: np.ndarray) -> np.ndarray:
    """m after n, both affine maps (..., 2, 3)."""
    out = m[..., :2] @ n
    out[..., 2] += m[..., 2]
    return out


def normalised(m: np.ndarray, height: int, width: int) -> np.ndarray:
    """Affine maps (..., 2, 3) of pixels as maps of [-1, 1] x [-1, 1], align_corners=True."""
    half = np.array([width - 1, height - 1]) / 2
    to_px = np.concatenate([np.diag(half), half[:, None]], 1)  # (2, 3)
    return compose(inverse(to_px), compose(m, to_px))


def placement(scene: Scene, course: Course, height: int, width: int) -> np.ndarray:
    """Maps from sheet coordinates to px, (T, LAYERS + K, 2, 3); the unit of a mover is a cell."""
    camera, frames, t = scene.camera, len(course.x), course.time
    swing = np.sin(0.9 * t + camera.phase) - np.sin(camera.phase)
    centre = camera.velocity * t[:, None] + camera.swing * swing[:, None]  # (T, 2)
    roll = camera.roll * swing
    zoom = height * np.exp(camera.zoom * t)
    turn = zoom[:, None, None] * _rotation(roll)  # (T, 2, 2)
    middle = np.array([width - 1, height - 1]) / 2
    out = np.empty((frames, LAYERS + len(scene.movers), 2, 3))
    out[:, :LAYERS, :, :2] = turn[:, None]
    offset = -PARALLAX[:, None] * centre[:, None]  # (T, LAYERS, 2)
    out[:, :LAYERS, :, 2] = np.einsum("tij,tlj->tli", turn, offset) + middle
    z = course.x[..., 1]
    scale = perspective(z) * np.array([m.size for m in scene.movers]) / CELLS  # (T, K)
    mirror = np.array([(m.facing, -1) for m in scene.movers])  # b is up
    body = _rotation(course.angle) * scale[..., None, None] * mirror[:, None]
    feet = np.stack([course.x[..., 0], z / DEPTH], -1) - centre[:, None]  # (T, K, 2)
    out[:, LAYERS:, :, :2] = turn[:, None] @ body
    out[:, LAYERS:, :, 2] = np.einsum("tij,tkj->tki", turn, feet) + middle
    return out


def _rotation(angle: np.ndarray) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def to_first(place: np.ndarray) -> np.ndarray:
    """Maps (T, P, 2, 3) of `placement` -> px of each frame to px of frame 0."""
    return compose(place[:1], inverse(place))


class Stage:
    """One branch of a scene, ready to be rendered in T frames.

    Args:
        scene, course: scene with K movers, and their course.
        looks: random generator of the background.
        size: height and width, px.
    """

    def __init__(
        self, scene: Scene, course: Course, looks: np.random.Generator, size: tuple[int, int]
    ) -> None:
        self.size, movers, soft = size, scene.movers, SOFT_PX / size[0]
        crossing = INTERACTIONS[scene.interaction] == "yield"
        self.scenery = Scenery(looks, soft, scene.crossing[0] if crossing else None)
        self.sprites = [Sprite(m.kind, m.look, CELLS * soft, m.hitch) for m in movers]
        self.present = np.flatnonzero(course.present)
        self.ids = np.array([*LAYER_IDS, *(KINDS[m.kind].train_id for m in movers)])
        self.order = np.argsort(-course.x[..., 1], axis=1, kind="stable")  # nearest first
        place = placement(scene, course, *size)
        self.back = inverse(place)
        self.to_first = compose(place[:1], self.back)  # as the function
        self.px_per_unit = np.sqrt(np.abs(np.linalg.det(place[..., :2])))  # (T, P)
        bounds = np.array([sprite.bounds for sprite in self.sprites])  # (K, 4)
        corners = bounds[:, [[0, 2], [0, 3], [1, 2], [1, 3]]]  # (K, 4, 2)
        local = place[:, LAYERS:]  # (T, K, 2, 3)
        corners = np.einsum("tkij,kcj->tkci", local[..., :2], corners) + local[:, :, None, :, 2]
        self.low, self.high = corners.min(2) - 1, corners.max(2) + 1  # (T, K, 2)

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of every pixel of every frame, (T, H W) each."""
        y, x = np.indices(self.size, float).reshape(2, -1)[:, None]
        shape = (len(self.order), x.size)
        return np.broadcast_to(x, shape), np.broadcast_to(y, shape)

    def trace(
        self,
        x: np.ndarray,
        y: np.ndarray,
        antialias: bool = False,
        paint: bool = True,
        movers: bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Looks at any points (F, n), in px of the first F frames, with or without movers.

        Returns:
            owner (F, n): the visible sheet, LAYERS + k for mover k; and the colours (F, 3, n) in
            [0, 1] of the owner at the point; with `antialias`, mixed within half a px of an edge.
            Colours are zeros without `paint`.
        """
        frames, n = x.shape
        x, y = x.ravel(), y.ravel()
        owner = np.full(x.size, -1, np.int8)
        clear = np.ones(x.size)  # share of the pixel that is not covered yet
        rgb = np.zeros((3, x.size))

        def cover(distance: np.ndarray, scale: np.ndarray) -> np.ndarray:
            return np.clip(0.5 - distance * scale, 0, 1) if antialias else (distance < 0) * 1.0

        hits = {k: self._near(k, x, y, n) for k in (self.present if movers else ())}
        shares = {}
        for k, (at, a, b, d) in hits.items():
            share = cover(d, self.px_per_unit[:frames, LAYERS + k][at // n])
            some = share > 0
            hits[k], shares[k] = [v[some] for v in (at, a, b, d)], share[some]
        cuts = {k: np.searchsorted(hits[k][0], n * np.arange(frames + 1)) for k in hits}
        for f in range(frames):
            for k in self.order[f]:
                if k in hits and cuts[k][f] < cuts[k][f + 1]:
                    part = slice(cuts[k][f], cuts[k][f + 1])
                    at, share = hits[k][0][part], shares[k][part]
                    owner[at[(share > 0.5) & (owner[at] < 0)]] = LAYERS + k
                    shares[k][part] = share * clear[at]
                    clear[at] *= 1 - share
        for k, (at, a, b, d) in hits.items() if paint else ():
            seen = shares[k] > 0
            at, share = at[seen], shares[k][seen]
            rgb[:, at] += share * self.sprites[k].colour(a[seen], b[seen], d[seen])

        rest = np.flatnonzero(clear > 0)
        for layer in range(LAYERS):
            cut = np.searchsorted(rest, n * np.arange(frames + 1))
            u, v = np.empty((2, len(rest)))
            for m, first, last in zip(self.back[:, layer], cut[:-1], cut[1:], strict=False):
                at, part = rest[first:last], slice(first, last)
                u[part], v[part] = (row[0] * x[at] + row[1] * y[at] + row[2] for row in m)
            scale = np.repeat(self.px_per_unit[:frames, layer], np.diff(cut))
            share = cover(self.scenery.outline(layer, u, v), scale)
            some = np.flatnonzero(share)
            at, share = rest[some], share[some]
            owner[at[(share > 0.5) & (owner[at] < 0)]] = layer
            if paint:
                rgb[:, at] += share * clear[at] * self.scenery.colour(layer, u[some], v[some])
            clear[at] *= 1 - share
            rest = rest[clear[rest] > 0]
        return owner.reshape(frames, n), rgb.reshape(3, frames, n).swapaxes(0, 1)

    def ground(self, x: np.ndarray, y: np.ndarray, rgb: np.ndarray, antialias: bool) -> np.ndarray:
        """Colours (1, 3, n) of points (1, n) of frame 0 without movers, from `rgb`, those with."""
        low, high = self.low[0, self.present, :, None], self.high[0, self.present, :, None]
        at = np.concatenate([x, y])  # (2, n)
        hidden = ((at > low) & (at < high)).all(1).any(0)  # (n,)
        out = rgb.copy()
        out[..., hidden] = self.trace(x[:, hidden], y[:, hidden], antialias, movers=False)[1]
        return out

    def flow(self, owner: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Flow to frame 0 at points (F, n) of the first F frames, (F, 2, n) px."""
        m = self.to_first[np.arange(len(x))[:, None], owner]  # (F, n, 2, 3)
        u = m[..., 0, 0] * x + m[..., 0, 1] * y + m[..., 0, 2] - x
        v = m[..., 1, 0] * x + m[..., 1, 1] * y + m[..., 1, 2] - y
        return np.stack([u, v], 1)

    def visible(self, owner: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """True where points (F, n) lie inside frame 0 and frame 0 shows the given owner there."""
        height, width = self.size
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        seen, _ = self.trace(x.reshape(1, -1), y.reshape(1, -1), paint=False)
        return inside & (seen.reshape(owner.shape) == owner)

    def semantic(self, owner: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Cityscapes trainIds of points (F, n) of the first F frames."""
        ids = self.ids[owner]
        _, height = self._local(GROUND, x, y)
        ids[(owner == GROUND) & (height > ROAD_TOP) & (height < ROAD_BOTTOM)] = ROAD_ID
        return ids

    def boxes(self, instance: np.ndarray, count: int) -> np.ndarray:
        """Tight boxes of masks: instance (T, H, W) -> (T, count, 4) normalised, 0 where unseen."""
        height, width = self.size
        out = np.zeros((len(instance), count, 4), np.float32)
        for k in self.present:
            mask = instance == k + 1
            for axis, side, n in ((1, 0, width), (2, 1, height)):
                line = mask.any(axis)  # (T, n)
                first, last = line.argmax(1), n - 1 - line[:, ::-1].argmax(1)
                some = line.any(1)
                out[:, k, side] = np.where(some, (first + last) / (n - 1) - 1, 0)
                out[:, k, 2 + side] = np.where(some, (last - first + 1) / n, 0)
        return out

    def _local(self, sheet: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        m = self.back[: len(x), sheet, :, :, None]  # (F, 2, 3, 1)
        return tuple(m[:, i, 0] * x + m[:, i, 1] * y + m[:, i, 2] for i in (0, 1))

    def _near(self, k: int, x: np.ndarray, y: np.ndarray, n: int) -> list[np.ndarray]:
        """Points in the box of mover k, of (F n,): index, coordinates a and b, distance."""
        (x0, y0), (x1, y1) = (v[: len(x) // n, k].T[..., None] for v in (self.low, self.high))
        u, v = x.reshape(-1, n), y.reshape(-1, n)
        at = np.flatnonzero((u > x0) & (u < x1) & (v > y0) & (v < y1))
        m = self.back[at // n, LAYERS + k]  # (n, 2, 3)
        px, py = x[at], y[at]
        a, b = (m[:, i, 0] * px + m[:, i, 1] * py + m[:, i, 2] for i in (0, 1))
        return [at, a, b, self.sprites[k].outline(a, b)]
