"""vitrail search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vitrail.search.options import SearchOptions

if TYPE_CHECKING:
    from vitrail.search.folder_search import Result
    from vitrail.search.ranking import Found

HEAD = ("picture", "score", "")


def search(
    data: str,
    texts: tuple[str, ...] = (),
    /,
    *,
    options: Annotated[SearchOptions, Parameter(name="*")] = SearchOptions(),
    json: bool = False,
    csv: str | None = None,
    out: str | None = None,
    device: str = "auto",
) -> int:
    """Find images by words, or images similar to one, in a folder with or without labels.

    Every image is looked at once: what the network saw is kept by the content of the file, also if the file is renamed
    or moved. A best match always exists; matches that are no better than chance are marked as weak.

        vitrail search photos/ "a red bus in the rain"
        vitrail search photos/ "a bus" "a tram" --top 20 --out found/
        vitrail search photos/ --like bus.jpg
        vitrail search photos/ "at night" --like bus.jpg --model runs/pairs
        vitrail search photos.zip --like bus.jpg --model runs/photos --csv similar.csv

    Parameters
    ----------
    data
        a folder, archive or table of images
    texts
        what the images show, in words; each text is a query
    json
        print one JSON value, for programs
    csv
        write a table with one row per image found to this file
    out
        write a page with the images found into this folder
    device
        auto, cpu, cuda, mps
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import data_there, image_there, model_there
    from vitrail.core.files import refuse_unwritable
    from vitrail.search.queries import refuse_empty

    refuse_empty(texts, options.like)
    data_there(data)
    for image in options.like:
        image_there(image)
    if options.model:
        model_there(options.model)
    if csv:
        refuse_unwritable(Path(csv))
    found = _searched(data, texts, options, device)
    if csv:
        _write_csv(csv, found)
        say(f"rows    {csv}")
    if out:
        from vitrail.search.result_page import write_page

        say(f"page    {write_page(Path(out), data, found)}")
    if json:
        print_json(found.to_dict())
    elif not csv:
        sys.stdout.write("\n\n".join(_shown(one) for one in found.found) + "\n")
    for line in found.notes:
        say(line)
    return 0


def _searched(data: str, texts: tuple[str, ...], options: SearchOptions, device: str) -> Result:
    """Search, with progress, and say what was searched and what could not be read."""
    from vitrail.cli.output import say
    from vitrail.data.labels import count
    from vitrail.search.folder_search import search_folder
    from vitrail.training.loop import Event
    from vitrail.training.progress import Teller

    with Teller(say) as teller:

        def told(what: str, done: int, total: int) -> None:
            teller(Event("features" if what == "vectors" else "looked", 0, {"done": done, "total": total}))

        found = search_folder(data, texts, options, device, told)
    for one in found.broken:
        say(f"left out: {one.why}")
    many = count(len(found.searched.rows), "image")
    say(
        f"{many} searched with {found.model} in {max(1, round(1000 * found.seconds))} ms, once their vectors were "
        "known."
    )
    return found


def _shown(found: Found) -> str:
    """Return the matches of a query as a table below its name."""
    from vitrail.cli.output import table
    from vitrail.core.text import one_line

    rows = [[one.id, f"{one.score:.3f}", _note(one.weak, one.copies)] for one in found.matches]
    lines = [one_line(found.query.name)]
    if found.same:
        lines.append(f"the same image, left out: {', '.join(map(one_line, found.same))}")
    return "\n".join([*lines, table(HEAD, rows, right=(1,)) if rows else "no other image"])


def _note(weak: bool, copies: tuple[str, ...]) -> str:
    said = ["weak"] if weak else []
    said += [f"also {', '.join(copies)}"] if copies else []
    return "; ".join(said)


def _write_csv(path: str, found: Result) -> None:
    import csv

    from vitrail.core.files import replace

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["query", "rank", "path", "score", "weak"])
            for one in found.found:
                writer.writerows(
                    [one.query.name, rank, match.id, f"{match.score:.6f}", match.weak]
                    for rank, match in enumerate(one.matches, 1)
                )

    replace(Path(path), write)
