"""What the documentation says of a server is there: its options, and its addresses."""

from __future__ import annotations

import re
from pathlib import Path

from pretended import pretended

from vitrail.cli.main import run

TEXT = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")


def test_every_option_that_is_named_exists(capsys):
    known = ""
    for verb in ("serve", "eval"):
        assert run([verb, "--help"]) == 0
        known += capsys.readouterr().out
    named = set(re.findall(r"--[a-z][a-z-]+", TEXT))
    assert "--latency" in named
    assert {one for one in named if one not in known} == set()


def test_every_address_that_is_named_exists():
    named = set(re.findall(r"`(?:(?:GET|POST|PUT) )?(/[a-z0-9/]+[a-z0-9])`", TEXT))
    assert "/predict" in named
    with pretended() as served:
        paths = set(served.get("/openapi.json").json()["paths"])
        missing = {one for one in named if one not in paths and f"/health{one}" not in paths}
        assert missing <= {"/predict/cat.jpg", "/openapi.json", "/v2"}


def test_the_example_of_the_page_is_an_answer():
    with pretended() as served:
        page = served.get("/").text
        for path in served.get("/openapi.json").json()["paths"]:
            assert path in page
