"""The pages of the studio: one file a subject, each with its router."""

from __future__ import annotations

from fastapi import APIRouter

from vitrail.studio.routes import (
    background,
    camera,
    check,
    compare,
    connections,
    data,
    decisions,
    export,
    gallery,
    home,
    looks,
    predict,
    queue,
    result,
    runs,
    samples,
    studies,
    train,
    transfer,
    wall,
)


def routers() -> list[APIRouter]:
    """Return the routers of all pages."""
    return [
        home.router,
        queue.router,
        data.router,
        wall.router,
        check.router,
        decisions.router,
        result.router,
        predict.router,
        samples.router,
        camera.router,
        export.router,
        gallery.router,
        transfer.router,
        compare.router,
        studies.router,
        connections.router,
        background.router,
        runs.router,
        train.router,
        looks.router,
    ]
