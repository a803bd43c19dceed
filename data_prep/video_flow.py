"""Optical flow and visibility of a clip, from its frames and maps of its objects.

Frames are uint8 RGB (H, W, 3), flow (H, W, 2) float32 px, x first. A flow from a to b means
a(p) = b(p + flow(p)). Maps of objects are uint16 (H, W), 0: none, with the same number in all
frames. Everything is at twice the size of the model, `DOUBLED`.

DIS mixes the motions of an object and its surroundings, the more the further the object moves.
Maps avoid this: objects are matched on their own, and the surroundings near them take the motion
of the surroundings further away.
"""

import cv2
import numpy as np
from video_tracks import look_up

DOUBLED = 2  # factor over the size of the model
HALO = 24  # px around objects in which DIS is unreliable
MARGIN = 16  # px of surroundings that an object is matched with; DIS needs them
STRAY = 40  # of 255: cost of a flow that leads to another object, as difference of pixels


def dis(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """DIS flow (preset medium) from frame a to frame b."""
    grey = (cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (a, b))
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)


def flow_to_first(frames: np.ndarray, maps: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(flow from frame t to frame 0, flow from frame 0 to t) for t = 1 .. T - 1.

    Combines the direct flow and the sum over the frames between; objects have a flow of their own.
    """
    first, pairs, summed = frames[0], [], ()
    for t in range(1, len(frames)):
        before, frame = frames[t - 1], frames[t]
        back, forth = dis(frame, before), dis(before, frame)
        backs, forths = [back], [forth]
        if summed:
            backs = [dis(frame, first), back + look_up(summed[0], back)]
            forths = [dis(first, frame), summed[1] + look_up(forth, summed[1])]
        summed = better(frame, first, backs), better(first, frame, forths)
        there = layered(frame, first, maps[t], maps[0], [summed[0], *backs])
        pairs.append((there, layered(first, frame, maps[0], maps[t], [summed[1], *forths])))
    return pairs


def better(
    a: np.ndarray,
    b: np.ndarray,
    flows: list[np.ndarray],
    of_a: np.ndarray | None = None,
    of_b: np.ndarray | None = None,
) -> np.ndarray:
    """Selects at each pixel the flow from a to b that leads to the more similar pixels in b.

    With maps of both frames, a flow that leads to the same object is preferred.
    """
    costs = []
    for flow in flows:
        cost = cv2.blur(cv2.absdiff(a, look_up(b, flow)).mean(-1, dtype=np.float32), (5, 5))
        if of_a is not None:
            cost += STRAY * (look_up(of_b, flow, cv2.INTER_NEAREST) != of_a)
        costs.append(cost)
    return np.choose(np.argmin(costs, 0)[..., None], flows)


def layered(
    a: np.ndarray, b: np.ndarray, of_a: np.ndarray, of_b: np.ndarray, flows: list[np.ndarray]
) -> np.ndarray:
    """Best flow from a to b for each object in a map, and flow of the background around them.

    Args:
        a, b: frames.
        of_a, of_b: maps of the frames.
        flows: flows of the whole frame; the background takes the first, objects try all.
    """
    own = flows[0].copy()
    for number in np.setdiff1d(np.intersect1d(of_a, of_b), 0):
        mask = of_a == number
        rows, columns, flow = matched(a, b, mask, of_b == number)
        inside = mask[rows, columns]
        own[rows, columns][inside] = flow[inside]
    things = better(a, b, [*flows, own], of_a, of_b)
    around = background(flows[0], (of_a > 0) | (of_b > 0))
    return np.where(of_a[..., None] > 0, things, around)


def matched(
    a: np.ndarray, b: np.ndarray, in_a: np.ndarray, in_b: np.ndarray
) -> tuple[slice, slice, np.ndarray]:
    """Rows and columns around an object in a, and its flow to b there.

    b is shifted so that the object has its place in a: the object then hardly moves, and its
    surroundings move instead.
    """
    x, y, wide, high = cv2.boundingRect(in_a.astype(np.uint8))
    left, top = max(0, x - MARGIN), max(0, y - MARGIN)
    rows, columns = slice(top, y + high + MARGIN), slice(left, x + wide + MARGIN)
    move = [at.mean() - of.mean() for at, of in zip(in_b.nonzero(), in_a.nonzero(), strict=True)]
    move = np.round(move[::-1]).astype(np.float32)  # x first
    at = np.broadcast_to(move + np.float32([left, top]), (*a[rows, columns].shape[:2], 2))
    return rows, columns, dis(a[rows, columns], look_up(b, at)) + move


def background(flow: np.ndarray, things: np.ndarray) -> np.ndarray:
    """The flow, with the values of the nearest free pixels in things and their halo.

    Without free pixels the flow is unchanged.
    """
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * HALO + 1, 2 * HALO + 1))
    near = cv2.dilate(things.astype(np.uint8), disc)
    if near.all():
        return flow
    kind = {"labelType": cv2.DIST_LABEL_PIXEL}
    _, nearest = cv2.distanceTransformWithLabels(near, cv2.DIST_L2, 5, **kind)
    pixel = np.zeros(nearest.max() + 1, int)
    pixel[nearest[near == 0]] = np.flatnonzero(near == 0)
    filled = cv2.blur(flow.reshape(-1, 2)[pixel[nearest]], (2 * HALO + 1, 2 * HALO + 1))
    return np.where(near[..., None] > 0, filled, flow)


def visible(back: np.ndarray, forth: np.ndarray) -> np.ndarray:
    """Where a pixel of frame t is visible in frame 0: inside it, and the flow back returns to p.

    |back + forth(p + back)|^2 < 0.01 (|back|^2 + |forth|^2) + 0.5 in px of the model; bool (H, W).
    """
    h, w = back.shape[:2]
    there = look_up(forth, back)
    size = np.square(back).sum(-1) + np.square(there).sum(-1)
    same = np.square(back + there).sum(-1) < 0.01 * size + 0.5 * DOUBLED**2
    x, y = back[..., 0] + np.arange(w), back[..., 1] + np.arange(h)[:, None]
    return same & (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
