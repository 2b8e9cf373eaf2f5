"""Detect the layout of a source: one module per layout, and `decide` chooses between them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vitrail.core import catalog
from vitrail.core.errors import DataError
from vitrail.data.labels import count, shorten
from vitrail.data.layouts import box_tables, captions, raster
from vitrail.data.layouts.base import ALONE, CLIPS, Tree
from vitrail.data.layouts.base import Entry as Entry
from vitrail.data.layouts.base import Layout as Layout
from vitrail.data.layouts.base import Question as Question
from vitrail.data.layouts.clip_files import hints, videos_of
from vitrail.data.layouts.decide import Look, decide
from vitrail.data.layouts.frames import with_frames
from vitrail.data.layouts.segments import as_wanted
from vitrail.data.layouts.split_lists import with_lists
from vitrail.data.layouts.things import with_things
from vitrail.data.layouts.yolo import is_label_file
from vitrail.data.options import DEFAULTS, LayoutOptions


def sniff(
    source: str | Path, options: LayoutOptions = DEFAULTS, *, layout: str = "", task: str | None = None
) -> Layout:
    """Return the layout of a source; `layout` is the name of a layout if the detection is wrong.

    Of several readings, those with truths for the named task are preferred.

    Raises:
        DataError: the source is missing, unreadable, empty, or has no known layout.
        SettingError: the name of the layout, or of a class of objects, is unknown.
    """
    options = replace(options, layout=layout) if layout else options
    kinds = {learns: kind for kind, learns in catalog.DEFAULT_TASKS.items()}
    tree = replace(Tree.look(source, options), wanted=kinds.get(task or "", ""))
    name = _name(tree)
    look: Look = decide if name == "auto" else catalog.load("layout", _of_videos(tree, name))
    if options.layout == "auto" and tree.wanted in {"", "boxes"} and box_tables.asked(tree):
        look = catalog.load("layout", "boxes")  # its rows are boxes, not labels
    found = look(tree)
    if found is None and name == "auto":
        raise _unlabelled(tree)
    if found is None:
        raise DataError(f"{source} cannot be read as {name}. Leave --layout out to see what it looks like.")
    if name != "auto":
        found = replace(found, notes=tuple(dict.fromkeys((*tree.notes, *tree.odd_notes(), *found.notes))))
    if options.splits == "none":
        found = replace(found, found=tuple(entry._replace(split="") for entry in found.found))
    if found.raster is not None:
        return replace(found, asked=options)
    found = replace(found, notes=(*found.notes, *hints(tree, found.name)))
    found = with_things(found, options.things) if options.things else found
    found = as_wanted(found, tree.wanted)
    return with_frames(tree, with_lists(tree, replace(found, asked=options)))


def _name(tree: Tree) -> str:
    """Return the name of the layout that the options ask for, or auto."""
    options = tree.options
    if options.layout == "auto" and (raster.asked(tree) or (tree.stack and not tree.options.labels)):
        return "raster"
    if options.labels and options.layout == "auto":
        return "captions" if captions.asked(tree) else "table"
    return options.layout


def _of_videos(tree: Tree, name: str) -> str:
    """Return the layout to look with: a layout of images reads videos where a source has no images."""
    videos = name in {"folders", "table", "filenames"} and not tree.pictures and videos_of(tree)
    return CLIPS if videos else name


def _unlabelled(tree: Tree) -> DataError:
    where = tree.name
    if not tree.pictures and tree.refused:
        first = tree.refused[0]
        return DataError(
            f"{where} holds nothing that may be read: {first.id} {first.trouble}. Mend that first."
        )
    if not tree.pictures and (videos := videos_of(tree)):
        what = f"{where} holds {count(len(videos), 'video')} and no images"
        if tree.wanted not in {"", "class"}:
            return DataError(f"{what}. This task takes images; videos are taken by --task classify.")
        return DataError(
            f"{what}, and no labels. Put the videos into one folder a class ({where}/run/1.mp4), or add a table "
            f"{where}/labels.csv with the columns path,label."
        )
    if not tree.pictures:
        if labels := [name for name in tree.files if is_label_file(tree, name)]:
            return DataError(
                f"{where} holds no images, but labels of YOLO ({shorten(labels)}). Put their images beside them: into "
                f"{where}/images, with the labels in {where}/labels and their classes in {where}/data.yaml."
            )
        into = where if tree.wanted == "none" else f"one folder a class: {where}/cat/1.jpg"
        return DataError(f"{where} holds no images. Put them into {into}.")
    return DataError(
        f"{where} holds {count(len(tree.pictures), 'image')} but no labels. Put them into one folder a class "
        f"({where}/cat/1.jpg), or add a table {where}/labels.csv with the columns image,label. {ALONE}"
    )
