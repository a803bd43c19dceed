"""Dynamics of `gen.data.movers`: how things on a street move and interact.

The ground is a plane: x to the right and z towards the viewer, both in image heights; z is shown
`DEPTH` times shorter. Time is in frames of a clip of up to 6; longer clips are sampled finer,
or go on at that pace (`step`).
"""

from dataclasses import dataclass, field, replace

import numpy as np

from gen.data.movers.sprites import KINDS

INTERACTIONS = ("free", "collide", "follow", "avoid", "yield", "push", "tether")
SUBSTEPS = 8
DEPTH = 3.0
DURATION = 5.0
CELLS = 64  # per image height
SADDLE = 0.01  # distance by which a rider is nearer than the bicycle


@dataclass(frozen=True)
class Mover:
    """One thing on the street; velocities are per frame."""

    kind: str
    x: np.ndarray  # (2,) x and z at frame 0
    v: np.ndarray  # (2,)
    facing: int  # 1 to the right, -1 to the left
    wish: np.ndarray | None = None  # (2,) wished velocity, None: its own
    drive: float = 0.0  # rate of approach to the wished velocity, per frame; 0: it rolls
    friction: float = 0.0  # deceleration
    size: float = 1.0
    hitch: float = 0.0  # length of a tow bar, in cells
    look: np.ndarray = field(default_factory=lambda: np.zeros(6))

    @property
    def scale(self) -> float:
        return self.size * perspective(self.x[1])

    @property
    def half(self) -> float:
        """Half the length in image heights."""
        return self.scale * KINDS[self.kind].half / CELLS


@dataclass(frozen=True)
class Camera:
    """Constant velocity and a slow swing; zoom per frame; roll in rad. All are 0 at frame 0."""

    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    swing: np.ndarray = field(default_factory=lambda: np.zeros(2))
    zoom: float = 0.0
    roll: float = 0.0
    phase: float = 0.0


@dataclass(frozen=True)
class Scene:
    """The start of a clip, for all its branches.

    Attributes:
        interaction: index into `INTERACTIONS`.
        movers: movers, sorted by id.
        pairs: (cause, responder) indices of movers, bound by the law of the interaction.
        target: the mover that branches change.
        other: (2,) velocity of the target in the branch do(velocity).
        bounce: restitution of collisions.
        rest: rest length of the spring of a tether.
        crossing: (2,) place where the paths cross in a yield.
        phase: phase of the gait.
    """

    interaction: int
    movers: tuple[Mover, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    target: int = 0
    other: np.ndarray = field(default_factory=lambda: np.zeros(2))
    bounce: float = 0.8
    rest: float = 0.0
    crossing: np.ndarray = field(default_factory=lambda: np.zeros(2))
    camera: Camera = Camera()
    phase: float = 0.0


@dataclass(frozen=True)
class Course:
    """The course of a scene: time (T,) in frames, x (T, K, 2) on the ground, angle (T, K) in rad
    clockwise, impact (frame of the first interaction, or 0), present (K,)."""

    time: np.ndarray
    x: np.ndarray
    angle: np.ndarray
    impact: int
    present: np.ndarray


def perspective(z: np.ndarray | float) -> np.ndarray | float:
    """Scale at which things at z appear."""
    return 1 + 0.9 * (z / DEPTH - 0.25)


def frame_time(frames: int) -> float:
    return min(1.0, DURATION / max(frames - 1, 1))


def with_velocity(scene: Scene, k: int, v: np.ndarray) -> Scene:
    """do(velocity of mover k := v): the mover starts with v and strives to keep it."""
    movers = list(scene.movers)
    movers[k] = replace(movers[k], v=v, wish=v)
    return replace(scene, movers=tuple(movers))


class World:
    """The state of a scene between frames; `step` advances it."""

    def __init__(self, scene: Scene, present: np.ndarray) -> None:
        self.scene, self.present = scene, present
        movers = scene.movers
        self.x = np.array([m.x for m in movers])  # (K, 2)
        self.v = np.array([m.v for m in movers])  # (K, 2)
        self.wish = np.array([m.v if m.wish is None else m.wish for m in movers])
        self.drive = np.array([m.drive for m in movers])[:, None]
        self.friction = np.array([m.friction for m in movers])[:, None]
        self.half = np.array([m.half for m in movers])
        self.width = np.array([KINDS[m.kind].width * m.scale for m in movers])
        self.mass = np.array([m.half * KINDS[m.kind].height * m.scale for m in movers])
        self.angle, self.spin = np.zeros(len(movers)), np.zeros(len(movers))
        core = np.maximum(self.half - self.width, 0)  # footprint: a disc drawn along x
        self.core, self.reach = core[:, None] + core, self.width[:, None] + self.width
        self.solid = np.triu(present[:, None] & present, 1)
        if INTERACTIONS[scene.interaction] == "tether":
            for i, j in scene.pairs:
                self.solid[i, j] = self.solid[j, i] = False
        self.pairs = [p for p in scene.pairs if present[list(p)].all()]
        law = INTERACTIONS[scene.interaction]
        self.law = {"follow": self._follow, "avoid": self._avoid, "yield": self._yield,
                    "tether": self._tether}.get(law)  # fmt: skip
        self.bounce = 0.0 if law == "push" else scene.bounce

    def step(self, h: float) -> bool:
        """Advances by h frames; True if something interacted."""
        before = self.v.copy()
        a = self.drive * (self.wish - self.v)
        acted = self.law(a, h) if self.law else False
        self.v += h * a
        speed = np.hypot(*self.v.T)[:, None]
        self.v *= 1 - np.minimum(1, h * self.friction / np.maximum(speed, 1e-9))
        acted |= self._contacts()
        self.x += h * self.v
        self.spin += -6 * (self.v - before)[:, 0] - h * (4 * self.angle + 1.6 * self.spin)
        self.angle += h * self.spin
        return acted

    def _contacts(self) -> bool:
        """Applies impulses between footprints that touch and approach, and moves them apart."""
        dx, dz = (self.x[None] - self.x[:, None]).transpose(2, 0, 1)  # (K, K)
        dx = np.sign(dx) * np.maximum(np.abs(dx) - self.core, 0)
        gap = np.hypot(dx, dz) - self.reach
        touch, acted = (gap < 0) & self.solid, False
        if not touch.any():  # as in most steps
            return False
        for i, j in zip(*touch.nonzero(), strict=True):
            n = np.array([dx[i, j], dz[i, j]])
            norm = np.hypot(*n)
            n = n / norm if norm > 1e-9 else np.array([0.0, 1.0])
            closing = (self.v[i] - self.v[j]) @ n
            share = self.mass[[j, i]] / (self.mass[i] + self.mass[j])
            self.x[i] += n * gap[i, j] * share[0]
            self.x[j] -= n * gap[i, j] * share[1]
            if closing > 0:
                self.v[i] -= (1 + self.bounce) * closing * share[0] * n
                self.v[j] += (1 + self.bounce) * closing * share[1] * n
                acted = True
        return acted

    def _follow(self, a: np.ndarray, h: float) -> bool:
        """Intelligent driver model behind the next mover: a0 (1 - (v / v0)^4 - (s* / gap)^2)."""
        a0, comfort, headway, s0 = 0.012, 0.02, 1.2, 0.05
        chain = sorted({k for pair in self.scene.pairs for k in pair})
        acted = False
        for i in (i for _, i in self.scene.pairs if self.present[i]):
            s = np.sign(self.wish[i, 0])
            v, free = s * self.v[i, 0], abs(self.wish[i, 0])
            gaps = [
                (s * (self.x[j, 0] - self.x[i, 0]) - self.half[i] - self.half[j], j)
                for j in chain
                if j != i and self.present[j] and s * (self.x[j, 0] - self.x[i, 0]) > 0
            ]
            need = 0.0
            if gaps:
                gap, j = min(gaps)
                closing = v - s * self.v[j, 0]
                wanted = s0 + max(0, v * headway + v * closing / (2 * (a0 * comfort) ** 0.5))
                need = (wanted / max(gap, 0.01)) ** 2
            push = a0 * (1 - (max(v, 0) / free) ** 4 - need)
            a[i, 0] += s * max(push, -0.06, -max(v, 0) / h)
            acted |= need > 1
        return acted

    def _avoid(self, a: np.ndarray, h: float) -> bool:
        """Social force A exp((r - distance) / B), turned to the right, so that both give way."""
        acted = False
        for i, j in [*self.pairs, *(p[::-1] for p in self.pairs)]:
            away = self.x[i] - self.x[j]
            distance = np.hypot(*away)
            if self.v[i] @ away > 0 and self.v[j] @ away < 0:
                continue  # they have passed
            n = away / max(distance, 1e-6)
            ahead = np.array([-self.wish[i, 1], self.wish[i, 0]]) / np.hypot(*self.wish[i])
            side = ahead if abs(ahead @ n) < 0.15 else np.sign(ahead @ n) * ahead
            force = 0.1 * np.exp((self.width[i] + self.width[j] + 0.15 - distance) / 0.2)
            force = min(force, 0.25)
            a[i] += force * (0.25 * n + side)
            acted |= force > 0.03
        return acted

    def _yield(self, a: np.ndarray, h: float) -> bool:
        """Brakes a mover before the crossing if another comes from the right, then lets it go."""
        acted = False
        for p, q in self.pairs:
            axis = int(abs(self.wish[q, 1]) > abs(self.wish[q, 0]))  # of q: 0 x, 1 z
            reach = (self.width if axis else self.half)[[p, q]].sum()  # along q's path
            clear = (self.half if axis else self.width)[[p, q]].sum() + 0.05  # along p's
            left = self.scene.crossing - self.x
            s = np.sign(self.wish[q, axis])
            stop = s * left[q, axis] - reach - 0.06
            v, free = s * self.v[q, axis], abs(self.wish[q, axis])
            toward = self.v[p, 1 - axis]
            if abs(toward) < 1e-3 or stop < -0.05:
                continue
            enter, leave = sorted((left[p, 1 - axis] + d) / toward for d in (-clear, clear))
            first = (stop + 2 * (reach + 0.06)) / free < enter - 0.5  # q passes in time
            if leave < 0 or enter > 6 or stop / free > leave or first:
                continue
            need = v * v / (2 * max(stop, 0.01))
            if v > 0 and need > 0.003:
                a[q, axis] = -s * min(need, 0.12, v / h)
                acted = True
        return acted

    def _tether(self, a: np.ndarray, h: float) -> bool:
        """Damped spring between two movers."""
        acted = False
        stiff, damp = (6.0, 3.0) if self.scene.rest == 0 else (2.6, 0.6)
        for i, j in self.pairs:
            link = self.x[j] - self.x[i]
            if self.scene.rest == 0:
                seat = np.array([0, SADDLE])
                pull = stiff * (link - seat) + damp * (self.v[j] - self.v[i])
            else:
                length = np.hypot(*link)
                n = link / max(length, 1e-6)
                pull = n * (stiff * (length - self.scene.rest))
                pull += n * (damp * ((self.v[j] - self.v[i]) @ n))
            share = self.mass[[j, i]] / (self.mass[i] + self.mass[j])
            a[i] += pull * share[0]
            a[j] -= pull * share[1]
            acted |= np.hypot(*pull) > 0.006
        return acted


def simulate(scene: Scene, frames: int, removed: int = -1, step: float | None = None) -> Course:
    """The course of a scene over `frames` frames, `step` apart, without mover `removed`."""
    present = np.arange(len(scene.movers)) != removed
    world, h = World(scene, present), (step or frame_time(frames)) / SUBSTEPS
    impact, xs, angles = 0, [world.x.copy()], [world.angle.copy()]
    for frame in range(1, frames):
        for _ in range(SUBSTEPS):
            if world.step(h) and not impact:
                impact = frame
        xs.append(world.x.copy())
        angles.append(np.clip(world.angle, -0.3, 0.3))
    x, time = np.array(xs), h * SUBSTEPS * np.arange(frames)
    return Course(time, x, np.array(angles) + _sway(scene, x, time), impact, present)


def before(scene: Scene, course: Course) -> Course:
    """The first frame of a course, and the frame before it, when nothing had interacted yet."""
    time = np.array([0, -course.time[1]])
    x = course.x[0] + time[:, None, None] * [m.v for m in scene.movers]  # (2, K, 2)
    return Course(time, x, _sway(scene, course.x, time), 0, course.present)


def _sway(scene: Scene, x: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Angles (T, K) at times (T,) of the gait of those who walk along x."""
    walk = np.array([m.kind in ("person", "rider") for m in scene.movers])
    moving = np.hypot(*(x[-1] - x[0]).T) > 0.02
    steps = np.sin(2.4 * time[:, None] + scene.phase + 2.1 * np.arange(len(scene.movers)))
    return 0.09 * steps * (moving & walk)
