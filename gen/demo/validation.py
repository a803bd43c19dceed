"""Checks of the input from a browser, before its use; errors in plain words."""

import ctypes
import os
import re
import traceback
from pathlib import Path

import gradio as gr
from PIL import Image

from gen.data.images import MAX_PIXELS, image_size, load_image
from gen.files import WeightsError

MAX_BYTES = 10 * 2**20
ENOUGH_PX = 512  # least side at which a JPEG is decoded; all models are smaller
SEEDS = 2**31 - 1  # largest seed
FOLDERS = r"(/[^/\s]+)+/(?=[^/\s])"  # pattern of paths in errors
FROM = ["upload", "clipboard"]  # sources of an image
# Options of handlers: no progress bar over quick updates, no public address, raw input.
QUIETLY = dict(show_progress="hidden", api_visibility="private", preprocess=False)
# Returns memory that threads have freed, which glibc keeps; elsewhere this does nothing.
TRIM = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)


def picture(sent: dict | None) -> Image.Image | None:
    """RGB picture of the value that an image field sends with `preprocess=False`; see `photo`.

    Gradio itself would decode the image before its size is checked.
    """
    return None if sent is None else load_image(photo(sent), draft_px=ENOUGH_PX)


def uploaded(sent: dict | None, what: str = "file") -> Path:
    """Path of an uploaded file of at most 10 MB; `sent` is the value of a file field.

    Raises:
        ValueError: any other value.
    """
    folder = Path(os.environ["GRADIO_TEMP_DIR"]).resolve()
    path = sent.get("path") if isinstance(sent, dict) else None
    if (
        not isinstance(path, str)
        or folder not in Path(path).resolve().parents
        or not Path(path).is_file()
    ):
        raise ValueError(f"{what}: expected an uploaded file, got none; upload it again")
    if Path(path).stat().st_size > MAX_BYTES:
        raise ValueError(f"expected a file of at most {MAX_BYTES // 2**20} MB, got more; shrink it")
    return Path(path)


def photo(sent: dict | None) -> Path:
    """Path of an uploaded image of at most 64 million px; checks the size without decoding.

    Phones make 48 million. Decoding them takes 10 MiB of memory for JPEG, 150 for progressive
    JPEG, 240 for PNG; large images are decoded one after another.

    Raises:
        ValueError: a larger image, or no upload.
    """
    path, got = uploaded(sent, "image"), ""
    try:
        size = image_size(path)
        got = f"{size[0]} x {size[1]} px" if size[0] * size[1] > MAX_PIXELS else ""
    except Image.DecompressionBombError:
        got = "far more"
    except (OSError, SyntaxError, ValueError):
        pass  # damaged: load_image gives the reason
    if got:
        most = f"{MAX_PIXELS // 10**6} million px"
        raise ValueError(f"image: expected at most {most}, got {got}; shrink it")
    return path


def number(value: float, name: str, low: float, high: float) -> float:
    """A number in low .. high from a field.

    Raises:
        ValueError: any other value.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name}: expected a number in {low} .. {high}, got {value!r:.40}")
    return value


def whole(value: float, name: str, low: int, high: int) -> int:
    """A whole number in low .. high from a field; raises as `number`."""
    return int(number(value, name, low, high))


def in_words(error: Exception) -> gr.Error:
    """Error text for a user: what was expected, or that the fault is ours."""
    if isinstance(error, (ValueError, OSError, WeightsError)):
        return gr.Error(re.sub(FOLDERS, "", str(error)), print_exception=False)
    traceback.print_exception(error)
    return gr.Error("a mistake of this program; its terminal says more")


class Page(gr.Blocks):
    """A page whose errors reach the user in plain words, wherever they are raised."""

    async def call_function(self, *args, **options) -> dict:
        try:
            return await super().call_function(*args, **options)
        except gr.Error:
            raise
        except Exception as error:
            raise in_words(error) from None
        finally:
            TRIM(0)

    async def process_api(self, *args, **options) -> dict:
        try:
            return await super().process_api(*args, **options)
        except gr.Error as error:
            if type(error) is gr.Error:
                raise
        except Exception as error:  # Gradio could not read its input, or show our output
            traceback.print_exception(error)
        raise gr.Error("expected what this page sends, got something else; reload the page")
