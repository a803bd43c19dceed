"""Background of `gen.data.movers`: a street in five layers, from the ground to the sky.

Each layer is a rigid sheet, measured in image heights from the middle of the image at frame 0,
x right, y down. Outlines and colours are functions of these coordinates, defined everywhere.
"""

import numpy as np

from gen.data.movers.sprites import rgb

GROUND, TREES, BUILDINGS, SKYLINE, SKY = range(5)
LAYERS = 5
PARALLAX = np.array([1.0, 0.85, 0.6, 0.3, 0.1])
HORIZON, ROAD_TOP, ROAD_BOTTOM = -0.05, 0.06, 0.425
MOODS = tuple(  # sky above and below, skyline, asphalt, pavement, windows with and without light
    rgb(codes)
    for codes in (
        "6fa8d6 d3e8f2 a9bfd2 6d7480 c9bfae f7e6b0 6f8aa3",
        "8fb7d9 fbe3cf c5b7c4 75737d d3c3ae ffe9b5 7d87a0",
        "7c86c6 f6c6a8 a99ac0 63637a b9a9a6 ffdf94 5f6690",
        "a5cbd8 eef3ee b9cccb 7b8184 cfcabb fff0c4 7f99a0",
        "5a76b5 e8b9b9 8e8fbf 5c6078 ada4ad ffd98a 545f8f",
    )
)
WALLS = rgb("d9b99b c98b74 e6d3b8 a7b3bd c9c2b5 b9786a d8c58f 9aa88f e3b6a1 8f9bb3")
CROWNS = rgb("6f9a5c 86ac62 5f8d6b a7b562 d99a5b dc9fae")
NOISE = np.random.default_rng(0).random((64, 64)).ravel()  # one lattice for all noise


def noise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Smooth value noise in [0, 1] at any point; cells of side 1, period 64."""
    i, j = np.floor(x), np.floor(y)
    x, y = x - i, y - j
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    i, j = i.astype(np.int64) & 63, j.astype(np.int64) & 63
    right, below = (i + 1) & 63, ((j + 1) & 63) * 64
    j *= 64
    top = NOISE[j + i] * (1 - x) + NOISE[j + right] * x
    return top * (1 - y) + (NOISE[below + i] * (1 - x) + NOISE[below + right] * x) * y


def mix(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Mixes a and b, each (3,), (3, 1) or (3, n), by t (n,) -> (3, n)."""
    a, b = (c[:, None] if c.ndim == 1 else c for c in (a, b))
    return a + (b - a) * t


def centred(x: np.ndarray, period: float) -> np.ndarray:
    """Distance to the nearest multiple of `period`."""
    return np.abs(x - period * np.rint(x / period))


class Scenery:
    """The fixed things of one scene.

    Args:
        rng: generator of all random numbers of the scenery.
        soft: width of the edges within a layer, in image heights.
        zebra: position of a zebra crossing; None: no crossing.
    """

    def __init__(self, rng: np.random.Generator, soft: float, zebra: float | None) -> None:
        self.soft, self.zebra = soft, zebra
        self.mood = MOODS[rng.integers(len(MOODS))]
        self.shift = rng.uniform(0, 50, 2)
        self.sun = rng.uniform((-0.8, -0.42), (0.8, -0.25))
        self.lit = rng.uniform(0.1, 0.45)
        self.near = self._street(rng, 22, (0.22, 0.5), (0.1, 0.36), WALLS)
        far = mix(self.mood[2], self.mood[1], np.array([0.0, 0.12, 0.24])).T  # (3, 3)
        self.far = self._street(rng, 40, (0.1, 0.26), (0.1, 0.32), far)
        self.tree = rng.random((16, 4))

    def _street(self, rng, count, widths, heights, colours) -> dict[str, np.ndarray]:
        """A repeating row of `count` buildings."""
        edge = np.concatenate([[0], np.cumsum(rng.uniform(*widths, count))])
        height = rng.uniform(*heights, count)
        height[rng.random(count) < 0.12] = 0.03  # a wall, with the view behind it
        width = np.diff(edge)
        hut = np.stack([rng.uniform(0.3, 0.7, count) * width, rng.uniform(0.1, 0.22, count) * width,
                        rng.uniform(0.01, 0.05, count) * (rng.random(count) < 0.6)])  # fmt: skip
        columns = np.maximum(np.floor(width / rng.uniform(0.062, 0.085, count)), 1)
        colour = colours[rng.integers(len(colours), size=count)]
        awning = WALLS[rng.integers(len(WALLS), size=count)] * (0.9, 0.75, 0.75)
        return {
            "edge": edge, "top": HORIZON - height, "hut": hut, "pane": width / columns,
            "colour": colour.T, "awning": awning.T,
        }  # fmt: skip

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """Share of a soft edge that lies inside."""
        return np.clip(0.5 - distance / self.soft, 0, 1)

    def outline(self, layer: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Signed distance to the part of a layer that hides the further layers, < 0 inside."""
        if layer == GROUND:
            return HORIZON - y
        if layer == TREES:
            return self._crown(x, y)[0]
        if layer == SKY:
            return np.full(len(x), -1.0)
        street = self.near if layer == BUILDINGS else self.far
        i, u = self._house(street, x)
        width = np.diff(street["edge"])[i]
        aside = np.minimum(u, width - u)
        other = (i + np.where(u < width - u, -1, 1)) % len(street["top"])
        at, half, rise = street["hut"][:, i]
        top = street["top"]
        own = np.maximum(-aside, top[i] - y)
        beside = np.maximum(aside, top[other] - y)
        hut = np.maximum(np.abs(u - at) - half, top[i] - rise - y)
        return np.minimum(np.minimum(own, beside), hut)

    def colour(self, layer: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Colours (3, n) in [0, 1]."""
        paint = (self._ground, self._trees, self._buildings, self._skyline, self._sky)[layer]
        return np.clip(paint(x, y), 0, 1)

    def _house(self, street: dict, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index of the building at x, and the distance to its left wall."""
        x = (x + self.shift[0]) % street["edge"][-1]
        i = np.searchsorted(street["edge"], x, side="right") - 1
        i = np.minimum(i, len(street["top"]) - 1)
        return i, x - street["edge"][i]

    def _crown(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """Distance to the nearest tree and to its trunk, its number, and the place in its crown."""
        cell = np.floor(x / 0.42)
        k = cell.astype(np.int64) & 15
        there, where, size, _ = self.tree[k].T
        r = 0.05 + 0.035 * size
        u, v = x - (cell + 0.35 + 0.3 * where) * 0.42, y - HORIZON + 0.06 + 1.1 * r
        crown = np.minimum.reduce(
            [np.hypot(u, v + 0.35 * r) - r, np.hypot(np.abs(u) - 0.6 * r, v - 0.3 * r) - 0.75 * r]
        )
        trunk = np.maximum(np.abs(u) - 0.011, -v)
        absent = there > 0.55
        return np.where(absent, 1.0, np.minimum(crown, trunk)), crown, k, u / r, v / r

    def _ground(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        asphalt, pavement = self.mood[3], self.mood[4]
        grain = noise(x * 14 + self.shift[0], y * 30) - 0.5
        out = asphalt[:, None] * (1.06 - 0.25 * (y - 0.2) + 0.14 * grain)  # (3, n)
        for lane in (0.185, 0.3):
            dash = np.maximum(np.abs(y - lane) - 0.006, centred(x - 2 * y, 0.44) - 0.11)
            out += (0.95 - out) * (0.8 * self.cover(dash))
        for border in (ROAD_TOP + 0.03, ROAD_BOTTOM - 0.022):
            out += (0.9 - out) * (0.5 * self.cover(np.abs(y - border) - 0.004))
        if self.zebra is not None:
            bars = np.maximum(centred(y - 0.1, 0.08) - 0.022, np.abs(x - self.zebra) - 0.13)
            out += (0.96 - out) * (0.85 * self.cover(bars))
        walk = self.cover(np.minimum(ROAD_BOTTOM - y, y - ROAD_TOP))
        on = walk.nonzero()[0]
        u, v = x[on], y[on]
        joint = np.minimum(centred(u - 1.2 * v, 0.13), centred(v - HORIZON, 0.055)) - 0.002
        slab = mix(pavement, 0.86 * pavement, 0.7 * self.cover(joint)) * (1.03 + 0.1 * grain[on])
        kerb = np.minimum(np.abs(v - ROAD_TOP + 0.012), np.abs(v - ROAD_BOTTOM - 0.012)) - 0.009
        slab += (0.93 - slab) * (0.75 * self.cover(kerb))
        slab *= 1 - 0.25 * np.exp(-(v - HORIZON) / 0.03)  # shade along the houses
        out[:, on] += (slab - out[:, on]) * walk[on]
        return out

    def _trees(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        _, crown, k, u, v = self._crown(x, y)
        leaf = CROWNS[(self.tree[:, 3] * len(CROWNS)).astype(int)][k].T
        light = 1 - 0.13 * (v + 0.5 * u) + 0.3 * (noise(x * 34, y * 34) - 0.5)
        light *= 1 - 0.2 * self.cover(-crown - 0.012)
        return mix(rgb("7a5a48")[0], leaf * light, self.cover(crown))

    def _buildings(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        street = self.near
        i, u = self._house(street, x)
        pane, v = street["pane"][i], y - street["top"][i]
        haze = 0.5 * self.mood[1] + 0.5
        wall = street["colour"][:, i] * haze[:, None] * (1.02 - 0.35 * u)
        column, floor = np.floor(u / pane), np.floor((v - 0.02) / 0.078)
        inside = np.maximum(
            np.abs(u - (column + 0.5) * pane) - 0.27 * pane,
            np.abs(v - 0.02 - (floor + 0.5) * 0.078) - 0.024,
        )
        inside[(v < 0.02) | (y > HORIZON - 0.085)] = 1
        key = (i * 7919 + column * 131 + floor * 31).astype(np.int64) & 4095
        lit = (NOISE[key] < self.lit)[None]
        window = np.where(lit, self.mood[5][:, None], self.mood[6][:, None])
        out = wall + (window - wall) * (0.85 * self.cover(inside))
        out *= 1 - 0.22 * self.cover(np.abs(v - 0.004) - 0.006)  # the eaves
        shop = y - (HORIZON - 0.075)
        low = (shop > -self.soft).nonzero()[0]
        stripe = self.cover(centred(u[low], 0.05) - 0.0125)
        awning = mix(street["awning"][:, i[low]], rgb("f3ede2").T, 0.8 * stripe)
        front = mix(self.mood[6] * 0.8, self.mood[5], 0.35 * lit[0, low])
        front = mix(awning, front, self.cover(0.026 - shop[low]))
        out[:, low] += (front - out[:, low]) * self.cover(-shop[low])
        return out

    def _skyline(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        i, u = self._house(self.far, x)
        fade = np.clip((y - HORIZON + 0.3) / 0.3, 0, 1)
        out = mix(self.far["colour"][:, i], self.mood[1], 0.45 * fade)
        return out * (1 - 0.05 * self.cover(centred(y - 0.03 * i, 0.06) - 0.012))

    def _sky(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        out = mix(self.mood[0], self.mood[1], np.clip((y + 0.55) / 0.5, 0, 1) ** 0.8)
        far = np.hypot(x - self.sun[0], y - self.sun[1])
        glow = 0.35 * np.exp(-far / 0.12) + 0.55 * self.cover(far - 0.05)
        out += (rgb("fff3d0").T - out) * glow
        u, v = x * 2.2 + self.shift[1], y * 7 + self.shift[0]
        cloud = 0.65 * noise(u, v) + 0.35 * noise(2.3 * u, 2.3 * v)
        cloud = np.clip((cloud - 0.5) / 0.22, 0, 1)
        return out + (0.99 - out) * (0.75 * cloud * cloud * (3 - 2 * cloud))
