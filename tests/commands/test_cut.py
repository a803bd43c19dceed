"""gen cut: files that it reads and writes, segmenters of one's own, and mistakes in one line."""

import sys

import numpy as np
import pytest
from PIL import Image

from gen.cli import main
from gen.data.clips.cityscapes import read_ids
from gen.inference import scenes

H, W = 48, 96
BOX = "car:30,15,61,31"
MINE = """
import numpy as np
def segment(image, place):
    assert image.dtype == np.uint8 and image.shape == (48, 96, 3), image.shape
    assert place.tolist() == [[40.0, 20.0], [44.0, 22.0]], place
    mask = np.zeros(image.shape[:2], bool)
    mask[18:24, 38:46] = True
    return mask
NUMBER = 3
"""


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """A photo of a street with a red box, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    image = np.random.default_rng(0).normal(120, 4, (H, W, 3))
    image[16:30, 32:60] = np.random.default_rng(1).normal((200, 40, 40), 4, (14, 28, 3))
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save("street.png")
    return tmp_path / "street.png"


def test_masks_are_written_as_gen_move_reads_them(photo, capsys):
    main(["cut", "street.png", "--object", BOX, "--out", "made/ids.png"])
    ids = read_ids(photo.parent / "made/ids.png", (W, H))
    assert np.unique(ids).tolist() == [0, 13001]
    exact = np.zeros((H, W), bool)
    exact[16:30, 32:60] = True
    assert ((ids > 0) & exact).sum() / ((ids > 0) | exact).sum() > 0.9
    assert Image.open("made/ids_overlay.png").size == (4 * W, 4 * H)
    said = capsys.readouterr().out
    assert said.startswith("13001  car ") and "gen move --frame street.png --masks made/id" in said
    still = scenes.read(photo, "made/ids.png", (H, W))
    [(id_, name, x, y)] = scenes.objects(still)
    assert (id_, name) == (13001, "car") and abs(x - 45) <= 1 and abs(y - 22) <= 1


def test_a_photo_on_its_side_is_cut_as_it_is_shown(photo):
    turned = Image.open(photo).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned to the right
    turned.save("phone.png", exif=exif)
    main(["cut", "phone.png", "--object", BOX])
    main(["cut", "street.png", "--object", BOX, "--out", "b.png"])
    assert np.array_equal(np.asarray(Image.open("masks.png")), np.asarray(Image.open("b.png")))
    assert scenes.objects(scenes.read("phone.png", "masks.png", (H, W)))[0][0] == 13001


def test_a_segmenter_of_ones_own(photo):
    (photo.parent / "cutting_mine.py").write_text(MINE)
    words = ["cut", "street.png", "--object", "bus:40,20+44,22", "--segmenter"]
    main([*words, "cutting_mine.segment"])
    ids = np.asarray(Image.open("masks.png"))
    assert (ids == 15001).sum() == 48 and (ids[18:24, 38:46] == 15001).all()
    for name, told in (
        ("cutting_mine.NUMBER", "expected a function, got cutting_mine.NUMBER, a int"),
        (
            "cutting_mine.no",
            "expected --segmenter: package.name of a function, got cutting_mine.no",
        ),
    ):
        with pytest.raises(SystemExit, match=told):
            main([*words, name])


@pytest.mark.parametrize(
    "words, told",
    [
        (["street.png", "--object", "car:96,2"], "error: car:96,2: expected clicks in the photo"),
        (["street.png", "--object", "tree:9,2"], "error: object: expected a class of person"),
        (["street.png", "--object", "car:0,0,96,48"], "expected a box with background"),
        (["none.png", "--object", BOX], "error: none.png: cannot be read"),
        (["odd.jpg", "--object", BOX], "error: odd.jpg: expected PNG, JPEG, WebP or BMP"),
        (["street.png", "--object", BOX, "--out", "street.png"], "expected to write elsewhere"),
        (["a_overlay.png", "--object", BOX, "--out", "a.png"], "expected to write elsewhere"),
        (["street.png", "--object", BOX, "--out", "a.jpg"], "--out: expected a name that ends in"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(photo, words, told):
    (photo.parent / "odd.jpg").write_text("no picture")
    Image.open(photo).save("a_overlay.png")
    before = {path: path.read_bytes() for path in photo.parent.iterdir()}
    with pytest.raises(SystemExit) as end:
        main(["cut", *words])
    assert told in end.value.code and "\n" not in end.value.code
    assert {path: path.read_bytes() for path in photo.parent.iterdir()} == before
