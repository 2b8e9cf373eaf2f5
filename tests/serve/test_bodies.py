"""The bodies of requests: limits before anything is read, names, forms, JSON, and what is no image."""

from __future__ import annotations

import base64
import json

import pytest
from pretended import FACTS, images, png, pretended
from starlette.exceptions import HTTPException

from vitrail.serve.bodies import checked, decoded
from vitrail.serve.front import Limits
from vitrail.serve.messages import Picture
from vitrail.serve.peek import head_of

SMALL = Limits(data=100_000, pixels=10_000, images=4, seconds=2)


def head_and_rest(connection):
    """Return the status code, the head in small letters, and the body of an answer; the connection has then ended."""
    parts = b""
    while part := connection.recv(1 << 16):
        parts += part
    connection.close()
    head, _, rest = parts.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), rest


def sends(kind=b"image/png", length=None):
    extra = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\n%s\r\n\r\n" % (kind, extra)


def test_a_body_above_the_limit_is_refused_before_it_is_read():
    with pretended(limits=SMALL) as served:
        code, head, rest = head_and_rest(served.raw(sends(length=1 << 40)))  # nothing of it is sent
        assert code == 413
        assert b"connection: close" in head
        assert "100,000 bytes" in json.loads(rest)["error"]
        for length in (b"-1", b"1e3", b"0x10", "٣".encode(), b"9" * 400):
            request = sends(length=0).replace(b"Length: 0", b"Length: " + length)
            assert head_and_rest(served.raw(request))[0] in (400, 413), length


@pytest.mark.parametrize("kind", [b"image/png", b"application/json", b"multipart/form-data; boundary=x"])
def test_a_body_without_a_length_is_refused_when_it_has_become_too_long(kind):
    start = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n'
    with pretended(limits=SMALL) as served:
        chunk = b"%x\r\n%s\r\n" % (len(start) + 60_000, start + bytes(60_000))
        code, _, rest = head_and_rest(served.raw(sends(kind), chunk, chunk))
        assert code == 413, rest
        assert "100,000 bytes" in json.loads(rest)["error"]


@pytest.mark.parametrize("kind", [b"image/png", b"multipart/form-data; boundary=x"])
def test_a_body_that_does_not_arrive_is_refused(kind):
    with pretended(limits=Limits(seconds=0.3)) as served:
        code, head, _ = head_and_rest(served.raw(sends(kind, 1000), b"--x\r\n"))
        assert code == 408
        assert b"connection: close" in head


def test_too_many_images_are_counted_in_forms_and_in_json():
    with pretended(limits=SMALL) as served:
        text = base64.b64encode(png()).decode()
        for answer in (
            served.predict(*images(5)),
            served.predict(*images(30)),
            served.post("/predict", json={"images": [text] * 5}),
        ):
            assert answer.status_code == 413
            assert "at most 4" in answer.json()["error"]
        assert served.predict(*images(4)).status_code == 200
        assert served.hand.sizes() == [4]


def test_an_image_with_too_many_pixels_is_refused_without_decoding():
    with pretended(limits=SMALL) as served:
        answer = served.predict(png(), png(size=(200, 100)))
        assert answer.status_code == 413
        assert "200 × 100" in answer.json()["error"]
        assert "1.png" in answer.json()["error"]
        assert not served.hand.batches


NAMES = (
    "a b.png",
    "图 é ñ.jpg",
    'quote".png',
    "semi;colon.png",
    "percent%41.png",
    "-rf.png",
    "a" * 300 + ".png",
    "line\nbreak.png",
    "<script>.png",
)


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_come_back_printable(plain, name):
    from urllib.parse import quote

    form = plain.post("/predict", files={"file": (name, png())}).json()["answers"][0]["name"]
    put = plain.put(f"/predict/{quote(name, safe='')}", content=png()).json()["answers"][0]["name"]
    text = base64.b64encode(png()).decode()
    given = plain.post("/predict", json={"images": [{"name": name, "data": text}]})
    assert given.json()["answers"][0]["name"] == put
    for said in (form, put):
        assert said.isprintable()
        assert 0 < len(said) <= 240
    if name.isprintable() and len(name) < 200:
        assert put == name
        assert form.replace("%22", '"') == name


def test_of_a_path_the_last_part_is_the_name(plain):
    for name in ("../../etc/passwd", "C:\\photos\\passwd", "/etc/passwd"):
        text = base64.b64encode(png()).decode()
        given = plain.post("/predict", json={"images": [{"name": name, "data": text}]})
        assert given.json()["answers"][0]["name"] == "passwd"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"images": []}',
        b'{"images": [{}]}',
        b'{"images": ["a"], "more": 1}',
        b'{"images": ["not base64!"]}',
        b'{"images": [{"data": "", "url": "http://a"}]}',
        b'{"images": [{"name": "x"}]}',
        b'{"images": "abc"}',
        b'{"images": [""]}',
        b'{"images": ["\xff"]}',
        b"[" * 100_000,
    ],
)
def test_json_that_holds_no_image_is_refused_in_a_sentence(plain, body):
    answer = plain.post("/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["error"].endswith((".", "/predict"))
    assert "Traceback" not in answer.text


def test_requests_without_an_image_are_refused(plain):
    assert plain.post("/predict").status_code == 422
    assert plain.post("/predict", files={"file": ("a.png", b"")}).status_code == 422
    assert plain.post("/predict", data={"field": "text"}, files=[]).status_code in (200, 422)
    broken = plain.post(
        "/predict", content=b"no form", headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code == 422
    missing = plain.post("/predict", content=b"x", headers={"content-type": "multipart/form-data"})
    assert missing.status_code == 422


def test_unknown_options_and_addresses_are_refused_in_a_sentence(plain):
    for answer, code in (
        (plain.predict(png(), params={"treshold": "0.5"}), 422),
        (plain.predict(png(), params={"threshold": "2"}), 422),
        (plain.predict(png(), params={"sets": "0"}), 422),
        (plain.get("/predict"), 405),
        (plain.get("/predictions"), 404),
        (plain.post("/v2/models/other/infer", json={}), 404),
    ):
        assert answer.status_code == code
        assert answer.json()["error"].endswith(".")


def test_of_a_file_only_the_head_is_read():
    data = png(size=(64, 48))
    found = head_of(data[:60])
    assert (found.kind, found.width, found.height, found.pixels) == ("PNG", 64, 48, 64 * 48)
    assert head_of(b"no image").kind == ""
    assert head_of(b"").pixels == 0


def test_an_image_in_windows_costs_as_many_inputs_as_it_has():
    from dataclasses import replace

    facts = replace(FACTS, zoom=1.0, size=(10, 20))
    one, other = checked([Picture("a", png(size=(100, 40))), Picture("b", png(size=(3, 3)))], Limits(), facts)
    assert (one.work, other.work) == (20.0, 1.0)


def test_base64_with_and_without_the_head_of_a_data_url():
    assert decoded("aGk=", "a") == decoded("data:image/png;base64,aGk=", "a") == b"hi"
    with pytest.raises(HTTPException) as caught:
        decoded("aGk", "a.png")
    assert "a.png" in caught.value.detail
