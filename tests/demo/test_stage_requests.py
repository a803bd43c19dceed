"""What the demo's server answers for Click to Move."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from demo_client import opened, picture, values


@pytest.mark.parametrize("scene", [0, 194])  # in the latter it would lead out of the image
def test_what_is_suggested_is_made_at_any_speed(server, scene):
    client, _ = server
    session, ways = opened(client), []
    (number, _), (suggest, fields), (render, more) = (
        client.named(name)[0] for name in ("of_number", "suggest", "render")
    )

    def call(handler: int, inputs: list, **given) -> dict:
        data = [given.get(part["props"].get("elem_id") or part["props"].get("label"), value)
                for part, value in zip(inputs, values(inputs), strict=True)]  # fmt: skip
        message = client.call(handler, data, session_hash=session)
        assert message["success"], message["output"]
        return message["output"]["data"][0]

    assert client.call(number, [scene], session_hash=session)["success"]
    for speed in (1, 2, 0.25):
        asked = call(suggest, fields, Speed=speed)["value"]
        call(render, more, Speed=speed, stage=asked)
        ways.append(speed * np.array(asked["drags"][0]["path"][1]))
    assert np.allclose(ways, ways[0], atol=0.11)


def test_masks_without_objects_are_refused(server):
    client, _ = server
    ((handler, inputs),) = client.named("of_files")

    def sent(content: bytes) -> dict:
        path = json.loads(client.upload("a.png", content)[1])[0]
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    def take(ids: np.ndarray) -> dict:
        file = io.BytesIO()
        Image.fromarray(ids.astype(np.uint16)).save(file, "PNG")
        image = sent(picture("PNG", ids.shape[::-1]))
        given = [image, sent(file.getvalue()), *(None for _ in inputs[2:])]  # no frame before
        return client.call(handler, given, session_hash=session)

    session, ids = opened(client), np.zeros((64, 128))
    message = take(ids)
    assert not message["success"]
    assert "expected objects to drag, got none: things are trainId" in message["output"]["error"]
    ids[20:30, 20:30] = 24001
    assert "24001; a label id, as 24 of persons" in take(ids)["output"]["error"]
    ids[20:30, 20:30] = 11001
    assert take(ids)["success"]


def test_a_long_path_that_is_wrong_is_refused_in_few_words(server):
    client, _ = server
    path = [[0, 0]] * 60_000
    handler, inputs = client.named("predict")[0]
    stage = {"drags": [{"id": 13001, "path": path + ["x"]}]}
    given = [stage if part["props"].get("elem_id") == "stage" else v
             for part, v in zip(inputs, values(inputs), strict=True)]  # fmt: skip
    message = client.call(handler, given, session_hash=opened(client))
    assert not message["success"] and len(message["output"]["error"]) < 1000
