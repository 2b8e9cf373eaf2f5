"""A studio with a finished run: trained once, copied for each test that changes something."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from every_page import EveryPage, every_page
from fastapi.testclient import TestClient
from trained_studio import TOKEN, trained_workspace

from vitrail.studio.app import create_app
from vitrail.studio.security import COOKIE
from vitrail.studio.workspace import Workspace


@pytest.fixture(scope="session")
def trained_studio(some_digits: Callable[[str, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a studio with one run; no test changes it."""
    return trained_workspace(tmp_path_factory.mktemp("studio"), some_digits("0123", 20))


@pytest.fixture
def workspace(trained_studio: Path, tmp_path: Path) -> Workspace:
    """Return a copy of that studio."""
    shutil.copytree(trained_studio, tmp_path / "studio")
    return Workspace(tmp_path / "studio")


@pytest.fixture
def client(workspace: Workspace) -> Iterator[TestClient]:
    """Return a browser without scripts that opened the link of the studio."""
    app = create_app(workspace, TOKEN, hosts=("testserver",))
    with TestClient(app, cookies={COOKIE: TOKEN}, follow_redirects=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def pages(trained_studio: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EveryPage]:
    """Return a studio with something on every page, and the addresses of its pages; no test changes it."""
    folder = tmp_path_factory.mktemp("pages") / "studio"
    shutil.copytree(trained_studio, folder)
    with every_page(folder) as served:
        yield served
