"""A server in processes of its own, with a tiny network that takes a second to make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import toy
from bench.fuzz_server import Server, served


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file: a small network that tells two photographs apart."""
    return toy.model(tmp_path_factory.mktemp("tiny"), "vit_digits", 32)


@pytest.fixture(scope="session")
def tiny_server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`vitrail serve` with that model and a token; it takes at most two seconds for a body."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITRAIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        with served(tiny_model, seconds=2) as server:
            yield server
