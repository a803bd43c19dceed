"""Objects cut out of photos: words, GrabCut at clicks and in boxes, ids, the picture of them."""

import cv2
import numpy as np
import pytest

from gen.data.movers import Movers
from gen.inference import cutting
from gen.inference.cutting import SHAPES, Wanted, grabcut, masks, overlay, parse
from gen.viz import to_uint8

H, W = 90, 160
CAR, PERSON = (40, 30, 90, 54), (110, 20, 124, 56)  # left, top, right, bottom


@pytest.fixture(scope="module")
def street() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A grey street with some noise, a car and a person of two colours; their exact masks."""
    image = np.full((H, W, 3), (120, 122, 125), np.uint8)
    exact = {name: np.zeros((H, W), np.uint8) for name in ("car", "person")}
    for name, colour, (left, top, right, bottom) in (
        ("car", (190, 40, 40), CAR),
        ("person", (40, 90, 190), PERSON),
    ):
        box = ((left + right) / 2 - 0.5, (top + bottom) / 2 - 0.5), (right - left, bottom - top), 0
        cv2.ellipse(exact[name], box, 1, -1)
        image[exact[name] > 0] = colour
    legs = exact["person"] * (np.arange(H)[:, None] > 38)
    image[legs > 0] = (30, 30, 50)
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    image = (image + noise).clip(0, 255).astype(np.uint8)
    return image, {name: mask > 0 for name, mask in exact.items()}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def at(*values: float) -> np.ndarray:
    return np.array(values, float)


def given(words: str) -> Wanted:
    return parse(words, (W, H))


# ---- words --------------------------------------------------------------------------------------


def test_words_are_read():
    assert given("car:12,8.5").place.tolist() == [[12, 8.5]]
    assert given("person:1,2+3,4").place.tolist() == [[1, 2], [3, 4]]
    assert given("bus:0,0,160,90").place.tolist() == [0, 0, W, H]
    assert [*SHAPES] == [*cutting.CLASSES[11:19]]


@pytest.mark.parametrize(
    "words, told",
    [
        ("cat:1,2", "object: expected a class of person, .*, got 'cat'"),
        ("road:1,2", "object: expected a class of person, .*, got 'road'"),
        ("", "got ''"),
        ("car", "expected CLASS:X,Y for a click, .*, got 'car'"),
        ("car:", "got 'car:'"),
        ("car:1", "got 'car:1'"),
        ("car:1,2,3", "got 'car:1,2,3'"),
        ("car:1,b", "got 'car:1,b'"),
        ("car:1,2+3,4,5,6", "for more"),
        ("car:1,2,9,9+1,2,9,9", "for more"),
        ("car:160,2", "car:160,2: expected clicks in the photo of 160 x 90 px; it is not"),
        ("car:1,-1", "expected clicks in the photo"),
        ("car:nan,1", "expected clicks in the photo"),
        ("car:5,5,200,50", "expected LEFT,TOP,RIGHT,BOTTOM in the photo of 160 x 90 px"),
        ("car:50,5,40,50", "expected LEFT,TOP,RIGHT,BOTTOM"),
        ("car:5,5,inf,50", "expected LEFT,TOP,RIGHT,BOTTOM"),
    ],
)
def test_other_words_are_told(words, told):
    with pytest.raises(ValueError, match=told):
        given(words)


# ---- GrabCut ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, box", [("car", CAR), ("person", PERSON)])
def test_a_box_is_filled_to_the_outline(street, name, box):
    image, exact = street
    loose = at(box[0] - 3, box[1] - 2, box[2] + 2, box[3] + 3)
    assert iou(grabcut(image, at(*box)), exact[name]) > 0.93
    assert iou(grabcut(image, loose), exact[name]) > 0.93


def test_a_click_finds_the_size(street):
    image, exact = street
    assert iou(grabcut(image, at(65, 42)[None], SHAPES["car"]), exact["car"]) > 0.93
    both = at(116, 30, 117, 48).reshape(2, 2)  # shirt and trousers
    assert iou(grabcut(image, both, SHAPES["person"]), exact["person"]) > 0.93


def test_it_is_the_same_each_time_and_the_photo_is_left(street):
    image, _ = street
    before = image.copy()
    first = grabcut(image, at(*CAR))
    cv2.setRNGSeed(99)
    assert np.array_equal(first, grabcut(image, at(*CAR)))
    assert np.array_equal(image, before)


def test_a_large_photo_is_cut_at_a_small_size(street, monkeypatch):
    image, exact = street
    k, seen, cut = 25, [], cv2.grabCut
    big = cv2.resize(image, None, fx=k, fy=k, interpolation=cv2.INTER_CUBIC)
    monkeypatch.setattr(
        cv2, "grabCut", lambda small, *rest: seen.append(small.size) or cut(small, *rest)
    )
    mask = grabcut(big, at(*CAR) * k)
    assert mask.shape == (H * k, W * k) and max(seen) <= 3 * cutting.FINE_PX**2
    wide = cv2.resize(exact["car"].astype(np.uint8), (W * k, H * k)) > 0
    assert iou(mask, wide) > 0.93


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4), (1, 200), (200, 1), (9, 9)])
def test_photos_of_any_size_give_a_mask_or_are_told(size):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    h, w = size
    for place in (at(w // 2, h // 2)[None], at(0, 0, max(1, w - 1), max(1, h - 1)), at(0, 0, w, h)):
        try:
            assert grabcut(image, place).shape == size
        except ValueError as error:
            assert place.ndim == 1 and "expected a box with background around it" in str(error)


def test_drawn_streets_are_cut_better_than_by_boxes():
    clip = Movers(128, 256, 2, num_workers=0, only_motion=True).clips("test")[0]
    image, numbers = to_uint8(clip["video"][0]), clip["instance"][0].numpy()
    found, filled = [], []
    for k in np.unique(numbers[numbers > 0]):
        exact = numbers == k
        box = cutting._tight(exact)
        left, top, right, bottom = box.astype(int)
        whole = np.zeros_like(exact)
        whole[top:bottom, left:right] = True
        found.append(iou(grabcut(image, box), exact))
        filled.append(iou(whole, exact))
    assert len(found) > 3 and np.mean(found) > np.mean(filled) + 0.1


# ---- masks of a photo ---------------------------------------------------------------------------


def boxes(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """A segmenter that fills the box."""
    mask, (left, top, right, bottom) = np.zeros(image.shape[:2], bool), place.astype(int)
    mask[top:bottom, left:right] = True
    return mask


def test_ids_count_each_class_and_the_later_object_is_in_front(street):
    words = "car:10,10,40,30", "person:30,5,50,40", "car:45,20,60,50"
    ids = masks(street[0], [*map(given, words)], boxes)
    assert ids.dtype == np.uint16 and np.unique(ids).tolist() == [0, 11001, 13001, 13002]
    assert (ids[20, 29], ids[20, 30], ids[20, 45], ids[60, 5]) == (13001, 11001, 13002, 0)


@pytest.mark.parametrize(
    "segment, words, told",
    [
        (None, ["car:0,0,160,90"], "car:0,0,160,90: expected a box with background around it"),
        (boxes, ["car:0,0,160,89"], "got a mask of 99% of the photo; give a box around"),
        (lambda image, place: np.zeros((H, W), bool), ["bus:1,1"], "bus:1,1: .*an empty mask"),
        (lambda image, place: np.ones((H, W)), ["bus:1,1"], "bool array .* got float64"),
        (lambda image, place: np.ones((W, H), bool), ["bus:1,1"], r"got bool \(160, 90\)"),
        (lambda image, place: None, ["bus:1,1"], "got NoneType"),
        (boxes, ["car:9,9,20,20", "bus:5,5,30,30"], "car:9,9,20,20: .* later objects hide"),
        (boxes, [], "expected 1 to 40 objects, got 0"),
        (boxes, ["car:9,9,20,20"] * 41, "expected 1 to 40 objects, got 41"),
    ],
)
def test_masks_that_are_no_objects_are_told(street, segment, words, told):
    with pytest.raises(ValueError, match=told):
        masks(street[0], [*map(given, words)], segment)


def test_a_click_on_a_plain_photo_is_told():
    plain = np.full((H, W, 3), 90, np.uint8)
    with pytest.raises(ValueError, match="car:80,45: expected an object.*give a box around"):
        masks(plain, [given("car:80,45")])


@pytest.mark.parametrize("words", ["car:244,244", "person:236,236"])
def test_trials_whose_background_vanishes_in_the_small_photo_are_left_out(words):
    image = np.full((480, 480, 3), 90, np.uint8)
    image[200:280, 190:290] = 200, 40, 40
    name, place, _ = parse(words, (480, 480))
    assert iou(grabcut(image, place, SHAPES[name]), image[..., 0] == 200) > 0.9


@pytest.mark.parametrize("words", ["car:2,0,600,400", "car:2,2,598,398"])
def test_boxes_whose_background_vanishes_in_the_small_photo_are_told(words):
    image = np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)
    with pytest.raises(ValueError, match=f"^{words}: expected a box with background around it"):
        masks(image, [parse(words, (600, 400))])


def test_the_picture_shows_each_object(street):
    ids = masks(street[0], [given("car:40,30,90,54")], boxes)
    sheet = overlay(street[0], ids)
    assert sheet.size == (4 * W, 4 * H)
    changed = (np.asarray(sheet) != np.asarray(overlay(street[0], 0 * ids))).any(-1)
    assert changed[130:200, 170:350].all() and not changed[230:].any()
    tall = np.zeros((4000, 2, 3), np.uint8)
    assert overlay(tall, np.full((4000, 2), 11001, np.uint16)).size == (1, 1600)
