"""Who may ask a server: the token, the host that a request names, and connections that say nothing."""

from __future__ import annotations

from contextlib import suppress

import pytest
from pretended import png, pretended
from test_bodies import head_and_rest

from vitrail.serve import patient_protocol

TOKEN = "sesame"


def test_requests_need_the_token_and_health_needs_none():
    with pretended(token=TOKEN) as served:
        for path in (
            "/health/live",
            "/health/ready",
            "/health/started",
            "/v2/health/live",
            "/v2/health/ready",
        ):
            assert served.get(path).status_code == 200, path
        for path in ("/card", "/metrics", "/v2", "/v2/models/toy", "/v2/models/toy/ready", "/nothing"):
            answer = served.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"
        assert served.predict(png()).status_code == 401
        assert not served.hand.batches
        for key in ("Bearer sesame", "bearer sesame", "Bearer  sesame"):
            assert served.predict(png(), headers={"authorization": key}).status_code == 200
        for key in ("Bearer", "Bearer sesam", "Basic sesame", "sesame", "Bearer sésame"):
            assert served.predict(png(), headers={"authorization": key.encode()}).status_code == 401, key


def test_the_page_itself_needs_no_token_and_holds_nothing_of_the_model():
    with pretended(token=TOKEN) as served:
        assert served.get("/openapi.json").status_code == 200
        page = served.get("/")
        assert page.status_code == 200
        assert TOKEN not in page.text
        assert served.get("/static/api.css").status_code == 200
        assert served.get("/static/..%2Fapp.py").status_code in (401, 404)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "169.254.169.254", "localhost.evil.example", ""]
)
def test_without_a_token_only_requests_to_this_machine_are_taken(plain, host):
    assert plain.predict(png(), headers={"host": host}).status_code in (400, 421)
    assert plain.get("/health/live", headers={"host": host}).status_code in (400, 421)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9", "127.0.0.1:80", "[::1]", "[::1]:80", "LOCALHOST"]
)
def test_names_of_this_machine_are_taken(plain, host):
    assert plain.predict(png(), headers={"host": host}).status_code == 200


def test_with_a_token_any_name_is_taken():
    with pretended(token=TOKEN) as served:
        headers = {"host": "models.example", "authorization": f"Bearer {TOKEN}"}
        assert served.predict(png(), headers=headers).status_code == 200


def test_a_connection_that_says_nothing_or_too_much_ends(monkeypatch):
    monkeypatch.setattr(patient_protocol, "HEAD_SECONDS", 0.3)
    with pretended() as served:
        for said in (b"", b"GET / HTTP/1.1\r\nHost: local"):
            with served.raw(said) as connection:
                assert connection.recv(10) == b""
        with suppress(ConnectionError), served.raw() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000)
            assert connection.recv(10) in (b"", b"HTTP/1.1 4")
        assert served.predict(png()).status_code == 200


def test_two_requests_may_share_a_connection(plain):
    request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    last = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    code, _, rest = head_and_rest(plain.raw(request + last))
    assert code == 200
    assert rest.count(b"HTTP/1.1 200") == 1
