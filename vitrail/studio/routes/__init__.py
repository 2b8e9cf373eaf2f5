"""The pages of the studio: one file a subject, each with its router."""

from __future__ import annotations

from fastapi import APIRouter

from vitrail.studio.routes import home, queue, runs, train


def routers() -> list[APIRouter]:
    """Return the routers of all pages."""
    return [home.router, queue.router, runs.router, train.router]
