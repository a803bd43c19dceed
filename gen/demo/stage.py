"""State of the component in which objects are dragged; its other parts are in stage.js."""

from torch import Tensor

from gen import viz
from gen.demo.player import data_url
from gen.inference.scenes import CLASSES, Still

SIDE_PX = 512  # least side of the picture


def scene(still: Still) -> dict:
    """The visible state of a still; `ids` has a letter per px: 0 for none, 1 + k for object k."""
    numbers = still.instance[still.instance >= 1000].unique()  # (M,), at most 40
    letters = [chr(49 + k) for k in range(len(numbers))]
    flat, text = still.instance.flatten(), ["0"] * still.instance.numel()
    for letter, id_ in zip(letters, numbers.tolist(), strict=True):
        for k in (flat == id_).nonzero()[:, 0].tolist():
            text[k] = letter
    H, W = still.instance.shape
    picture = data_url(viz.enlarge(still.frame, SIDE_PX))
    numbers = numbers.tolist()
    names = [CLASSES[id_ // 1000] for id_ in numbers]
    return dict(image=picture, width=W, height=H, ids="".join(text), numbers=numbers, names=names)


def paths(ids: list[int], boxes: Tensor) -> dict[str, list]:
    """{id: path}, centres in px, from the boxes (T + 1, M, 4) of M objects."""
    ways = (boxes[..., :2] + 0.5).transpose(0, 1).cpu().numpy().round(2).tolist()
    return {str(id_): way for id_, way in zip(ids, ways, strict=True)}
