"""Looks at a source and says what it is, and why: one page a layout, tried in the catalog's order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vitrail.core import catalog
from vitrail.core.errors import DataError
from vitrail.data.layouts.base import Entry as Entry
from vitrail.data.layouts.base import Layout as Layout
from vitrail.data.layouts.base import Tree
from vitrail.data.names import count

Look = Callable[[Tree], Layout | None]


def sniff(source: str | Path, layout: str = "auto") -> Layout:
    """Look at a source and return its layout; `layout` names one where "auto" would guess wrong.

    Raises:
        DataError: missing, unreadable, empty, or nothing that is understood.
        SettingError: the layout's name is unknown.
    """
    if layout != "auto":
        wanted: Look = catalog.load("layout", layout)
        found = wanted(Tree.look(source))
        if found is None:
            raise DataError(
                f"{source} cannot be read as {layout}. Leave --layout out to see what it looks like."
            )
        return found
    tree = Tree.look(source)
    for name in catalog.LAYOUTS:
        look: Look = catalog.load("layout", name)
        if (found := look(tree)) is not None:
            return found
    raise _unlabelled(tree)


def _unlabelled(tree: Tree) -> DataError:
    where = tree.name
    if not tree.pictures and tree.refused:
        first = tree.refused[0]
        return DataError(
            f"{where} holds nothing that may be read: {first.id} {first.trouble}. Mend that first."
        )
    if not tree.pictures:
        return DataError(f"{where} holds no pictures. Put them into one folder a class: {where}/cat/1.jpg.")
    return DataError(
        f"{where} holds {count(len(tree.pictures), 'picture')} but no labels. Put them into one folder a class "
        f"({where}/cat/1.jpg), or add a table {where}/labels.csv with the columns image,label."
    )
