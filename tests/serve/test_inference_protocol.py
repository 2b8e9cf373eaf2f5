"""The Open Inference Protocol: metadata, tensors in JSON and binary, and what is refused."""

from __future__ import annotations

import base64
import json
import struct

import numpy as np
import pytest
from pretended import png, pretended

ADDRESS = "/v2/models/toy/infer"


def tensor(datatype, shape, data, **words):
    return {"name": "image", "datatype": datatype, "shape": shape, "data": data, **words}


def text(data):
    return base64.b64encode(data).decode()


def test_the_server_and_the_model_describe_themselves():
    with pretended() as served:
        assert served.get("/v2").json()["extensions"] == ["binary_tensor_data"]
        assert served.get("/v2/health/live").status_code == 200
        assert served.get("/v2/models/toy/ready").status_code == 200
        told = served.get("/v2/models/toy%20run").json()  # by the name of the run or of the network
        assert told["inputs"][0]["datatype"] == told["outputs"][0]["datatype"] == "BYTES"
        assert served.get("/v2/models/other").status_code == 404


def test_an_answer_is_one_text_for_each_image():
    with pretended() as served:
        inputs = [tensor("BYTES", [3], [text(png()), text(b"broken"), text(png())])]
        answer = served.post(ADDRESS, json={"id": "seven", "inputs": inputs}).json()
        assert answer["id"] == "seven"
        (output,) = answer["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("prediction", "BYTES", [3])
        told = [json.loads(one) for one in output["data"]]
        assert ["error" in one for one in told] == [False, True, False]


def test_pixels_reach_the_model_as_they_are():
    pixels = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    with pretended() as served:
        for shape, data in (
            ([2, 3, 5, 3], pixels.ravel().tolist()),
            ([2, 3, 5, 3], pixels.tolist()),
            ([3, 5, 3], pixels[0].tolist()),
        ):
            assert served.post(ADDRESS, json={"inputs": [tensor("UINT8", shape, data)]}).status_code == 200
        head = {"name": "image", "datatype": "UINT8", "shape": [2, 3, 5, 3]}
        head["parameters"] = {"binary_data_size": pixels.size}
        start = json.dumps({"inputs": [head]}).encode()
        length = {"inference-header-content-length": str(len(start))}
        assert served.post(ADDRESS, content=start + pixels.tobytes(), headers=length).status_code == 200
        arrays = [one.data for batch in served.hand.batches for one in batch.pictures]
        assert len(arrays) == 7
        assert len(set(arrays)) == 2


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"inputs": []},
        {"inputs": [tensor("FP32", [1], [1.0])]},
        {"inputs": [tensor("BYTES", [1], None)]},
        {"inputs": [tensor("BYTES", [1], ["no base64!"])]},
        {"inputs": [tensor("BYTES", [1], [7])]},
        {"inputs": [tensor("BYTES", [0], [])]},
        {"inputs": [tensor("BYTES", [2], [text(b"one")])]},
        {"inputs": [tensor("UINT8", [2, 2, 3], [1.5] * 12)]},
        {"inputs": [tensor("UINT8", [2, 2, 3], [-1] * 12)]},
        {"inputs": [tensor("UINT8", [2, 2, 3], [256] * 12)]},
        {"inputs": [tensor("UINT8", [2, 2, 3], ["a"] * 12)]},
        {"inputs": [tensor("UINT8", [2, 2, 3], [[1, 2], [3]])]},
        {"inputs": [tensor("UINT8", [2, 2, 3], [1] * 11)]},
        {"inputs": [tensor("UINT8", [2, 2, 5], [1] * 20)]},
        {"inputs": [tensor("UINT8", [2, 2], [1] * 4)]},
        {"inputs": [tensor("UINT8", [-1, 2, 3], [1] * 6)]},
        {"inputs": [tensor("BYTES", [1], [text(b"a")]), tensor("BYTES", [1], [text(b"b")])]},
        {"inputs": [tensor("BYTES", [1], [text(b"a")])], "parameters": {"timeout": -1}},
        {"inputs": [tensor("BYTES", [1], [text(b"a")])], "parameters": {"timeout": True}},
        {"inputs": [tensor("BYTES", [1], [text(b"a")])], "parameters": {"timeout": 1}},
        {"inputs": [tensor("BYTES", [1], [text(b"a")])], "parameters": {"point": "tenth"}},
        {"inputs": [tensor("BYTES", [1], [text(b"a")])], "parameters": {"point": 7}},
        {"inputs": [tensor("BYTES", [1], None, parameters={"binary_data_size": 99})]},
        {"inputs": [tensor("BYTES", [1], None, parameters={"binary_data_size": True})]},
    ],
)
def test_what_is_not_of_the_protocol_is_refused_in_a_sentence(protocol, given):
    answer = protocol.post(ADDRESS, json=given)
    assert answer.status_code == 422
    assert " " in answer.json()["error"]


@pytest.fixture(scope="module")
def protocol():
    with pretended() as served:
        yield served
        assert not served.hand.batches


def test_binary_elements_have_their_length_before_them(protocol):
    head = (
        b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":%d}}]}'
    )
    for rest in (b"abc", struct.pack("<I", 10) + b"short", struct.pack("<I", 1 << 31) + b"x"):
        start = head % len(rest)
        length = {"inference-header-content-length": str(len(start))}
        assert protocol.post(ADDRESS, content=start + rest, headers=length).status_code == 422
    for length in ("-1", "x", "999999", "1e3"):
        headers = {"inference-header-content-length": length}
        assert protocol.post(ADDRESS, content=b"{}", headers=headers).status_code == 400


def test_too_many_images_are_not_made_of_a_shape(protocol):
    given = {"inputs": [tensor("UINT8", [1 << 40, 1 << 40, 1, 3], [1])]}
    assert protocol.post(ADDRESS, json=given).status_code == 413


def test_a_timeout_is_the_deadline_in_microseconds():
    given = {"inputs": [tensor("BYTES", [1], [text(png())])], "parameters": {"timeout": 200_000}}
    with pretended() as served, served.hand.held():
        answer = served.post(ADDRESS, json=given)
        assert answer.status_code == 429
        assert "200 ms" in answer.json()["error"]


def test_parameters_name_an_operating_point():
    given = {"inputs": [tensor("BYTES", [1], [text(png())])], "parameters": {"point": "quarter"}}
    with pretended() as served:
        assert served.post(ADDRESS, json=given).json()["parameters"]["point"] == "quarter"
