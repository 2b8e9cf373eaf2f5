"""What can be learned from images: the tasks that read their truths, and whether a draft comes first."""

from __future__ import annotations

from collections.abc import Mapping

from vitrail.core.catalog import DEFAULT_TASKS, DRAFTS, PRETRAIN, load
from vitrail.studio.listing import Listing


def tasks_of(listing: Listing) -> tuple[str, ...]:
    """Return the tasks that can be learned from the images of a list; what is learned unasked comes first.

    Boxes without any outline have no masks to learn. Of images without truths only what they look like can be learned.
    Empty if nothing is known of the truths yet.
    """
    usual = DEFAULT_TASKS.get(listing.kind)
    if usual is None:
        return (PRETRAIN,) if listing.alone else ()
    others = [
        name
        for kind, name in DEFAULT_TASKS.items()
        if name != usual and listing.kind in getattr(load("targets", name), "kinds", ())
        if listing.outlined or kind != "instances"
    ]
    return (usual, *others)


def asked_task(listing: Listing, form: Mapping[str, str]) -> str:
    """Return the task that a form asks for, else the usual one of the images; "" if that is not known."""
    return form.get("task", "").strip() or next(iter(tasks_of(listing)), "")


def drafted(task: str) -> bool:
    """Return whether a draft is possible; of tasks that are not ours, and of unknown ones, it is assumed."""
    return task in DRAFTS or task not in DEFAULT_TASKS.values()
