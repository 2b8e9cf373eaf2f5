"""Hostile requests to a running server: no 5xx, no crash, and the limits that keep its memory bounded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from bench import fuzz_document, fuzz_sieges
from bench.fuzz_client import Address, Asked, Tally, answer_of, sent
from bench.fuzz_images import file_of, huge_png, huge_tiff, whole
from bench.fuzz_requests import HOSTILE_METHODS, Requests, quote
from bench.fuzz_server import Canary, Server, fuzzed
from vitrail.serve.app import create_app
from vitrail.serve.explaining import explain
from vitrail.serve.front import Front, Service
from vitrail.serve.messages import Model, Picture, Question
from vitrail.serve.peek import head_of

MODEL = "vit_digits"


@pytest.fixture
def address(tiny_server: Server) -> Iterator[Address]:
    """The address of a server that must go on with the same processes, and write no traceback."""
    before = tiny_server.processes()
    yield tiny_server.address
    now = tiny_server.processes()
    assert {name: now.get(name) for name in before} == before
    assert "Traceback" not in tiny_server.log.read_text()


def test_hostile_requests_get_answers_and_no_server_errors(tiny_server, address):
    tally, canary = Tally(), Canary(tiny_server)
    fuzzed(tiny_server, Requests(address, MODEL, seed=1), 200, tally, canary)
    assert tally.wrong == []
    assert canary.wrong == []
    assert {"200", "401", "422"} <= set(tally.codes)


def test_answers_are_what_the_document_says(address):
    found = fuzz_document.tried(address, 12, corners=False)
    assert found.failures == []
    assert found.errors == []
    assert found.count > 60
    assert not [code for code in found.codes if code.startswith("5")]


def test_a_stated_body_of_5_gb_is_refused_before_it_is_read(address):
    asked, answer = fuzz_sieges.stated_body(address)
    assert not asked.wrong(answer)
    assert "at most" in answer.json()["error"] or "more than" in answer.json()["error"]


def test_a_body_without_end_is_ended_at_the_limit(tiny_server, address):
    before = tiny_server.memory()["front"]
    asked, answer, taken = fuzz_sieges.endless_body(address, 1 << 30)
    assert not asked.wrong(answer)
    assert taken < 128 << 20  # the limit of 64 MB, and what the system holds on the way
    assert tiny_server.memory()["front"] < before + 150


def test_a_head_of_10_mb_is_not_read(tiny_server, address):
    before = tiny_server.memory()["front"]
    asked, answer = fuzz_sieges.large_head(address)
    assert not asked.wrong(answer)
    assert tiny_server.memory()["front"] < before + 20


def test_slow_heads_and_bodies_are_cut_off_while_others_are_answered(tiny_server, address):
    canary = Canary(tiny_server)
    for asked, answer in fuzz_sieges.slow(address, 60, 25, canary.look):
        assert not asked.wrong(answer), (asked.name, answer)
    assert canary.count > 0
    assert canary.wrong == []


def test_what_states_too_much_is_refused(address):
    judged = list(fuzz_sieges.named(address, MODEL))
    assert [(asked.name, answer) for asked, answer in judged if asked.wrong(answer)] == []
    for asked, answer in judged:
        if "10,000 images" in asked.name:
            assert "at most 128" in answer.json()["error"]


def test_the_head_of_a_huge_image_is_enough_to_refuse_it():
    for data in (huge_png(), huge_tiff()):
        assert len(data) < 1 << 20
        assert head_of(data).pixels > 50_000_000


@pytest.mark.parametrize(
    "shown", [None, "", "Bearer", "Bearer x", "Basic a-token-of-the-bench", "a-token-of-the-bench"]
)
def test_a_wrong_token_gets_401(address, shown):
    fields = [] if shown is None else [f"Authorization: {shown}"]
    for line in ("GET /card", "POST /predict", "GET /metrics", "GET /v2", "POST /explain", "GET /nothing"):
        request = address.head(line, *fields, "Content-Length: 0", "Connection: close", token=False)
        answer = address.ask(Asked("token", request))
        assert answer.code == 401
        assert "token" in answer.json()["error"]


def test_a_hang_up_in_the_middle_disturbs_nobody(tiny_server, address):
    canary, data = Canary(tiny_server), address.post("/predict", file_of(whole(1), "JPEG"))
    for end in (20, len(data) // 2, len(data)):
        for _ in range(5):
            assert address.ask(Asked("hung up", data[:end], hang_up=True)).code == -1
    canary.look()
    assert canary.wrong == []


def test_two_requests_on_one_connection_after_a_refusal_are_not_mixed(address):
    """The body of a refused request must never be read as the next request."""
    inner = address.head("GET /card")
    with address.open() as connection:
        head = address.head("POST /predict", "Content-Length: 99999999999")
        sent(connection, [head + inner])
        assert answer_of(connection).code == 413
        connection.settimeout(5)
        assert connection.recv(65536) == b""


def test_a_length_that_is_no_number_is_refused(address):
    body = json.dumps({"inputs": []}).encode()
    for length in ("9" * 5000, "9" * 18, "-1", "x", "1.0", ""):
        field = f"Inference-Header-Content-Length: {length}"
        asked = Asked("length", address.post(f"/v2/models/{MODEL}/infer", body, "application/json", field))
        assert address.ask(asked).code == 400, length


def test_another_model_and_another_method_are_told_by_name(address):
    other = address.ask(Asked("model", address.head("GET /v2/models/other", "Connection: close")))
    assert other.code == 404
    assert MODEL in other.json()["error"]
    with address.open() as connection:
        sent(connection, [address.head("DELETE /predict", "Connection: close")])
        head = connection.recv(65536).lower()
    assert b" 405 " in head
    assert b"allow: post, put\r\n" in head


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.nip.io", "localhost.evil.example:80", "", "[::1"]
)
def test_another_host_is_refused_without_a_token(host):
    client = TestClient(create_app(Front(Service(Model("none")))), base_url="http://localhost")
    assert client.get("/health/live", headers={"host": host}).status_code == 421
    assert client.get("/health/live", headers={"host": "localhost:80"}).status_code == 200


def test_names_of_code_are_no_methods_and_never_imported(tiny_model, tmp_path, monkeypatch):
    from vitrail.infer.predictor import load

    (tmp_path / "harmful.py").write_text("raise SystemExit('it was imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    predictor, picture = load(str(tiny_model)), Picture("a.png", file_of(whole(0), "PNG"))
    for name in ("harmful", "harmful:Method", *HOSTILE_METHODS):
        assert "There are: " in explain(predictor, Question(picture, name)).refused
    assert not {"harmful", "antigravity", "this"} & set(sys.modules)


def test_a_hostile_method_is_refused_by_the_server(address):
    for name in ("os:system", "harmful:Method"):
        asked = Asked(name, address.post(f"/explain?method={quote(name)}", file_of(whole(0), "PNG")))
        answer = address.ask(asked)
        assert answer.code == 422
        assert "There are: " in answer.json()["error"]
