"""vitrail predict --class: images that a model makes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitrail.infer.predict_options import OF_MAKING, AnswerOptions

if TYPE_CHECKING:
    from vitrail.infer.inputs import Source
    from vitrail.infer.predictor import Predictor
    from vitrail.tasks.generate.sampling import Making

FOLDER = "made"
"""The folder of made images unless --out names one."""

MANY = 16
"""Images that are made from noise unless --n says how many."""


def make_images(
    model: str,
    named: Sequence[str],
    options: AnswerOptions,
    json: bool,
    csv: str | None,
    out: str | None,
    device: str,
) -> int:
    """Make images of a class, from noise or from the images that are named, and write them into a folder."""
    from vitrail.cli.output import print_json, say, unread
    from vitrail.cli.path_checks import model_file, model_there
    from vitrail.core.files import refuse_unwritable_folder
    from vitrail.data.labels import count
    from vitrail.infer.inputs import expand
    from vitrail.infer.made_images import making_of, place_of
    from vitrail.infer.predictor import Predictor

    _refuse_others(options, csv, named)
    model_there(model)
    folder = Path(out or FOLDER)
    predictor = Predictor(model_file(model), device)
    stated = {name: getattr(options, name) for name in ("steps", "sampler", "guidance", "strength")}
    making = making_of(predictor, stated)
    place_of(predictor, options.class_ or "")
    refuse_unwritable_folder(folder)
    piped = sys.stdin.buffer.read() if "-" in named else None
    sources: list[Source | None] = list(expand(named, piped, say)) if named else [None]
    way = f"{making.steps} steps each, {making.sampler}, guidance {making.guidance:g}"
    say(f"making images of {options.class_}: {way}")
    found = list(_made(predictor, sources, making, options, folder))
    if json:
        print_json(found)
    failed = 0
    for one in found:
        if "error" in one:
            failed += 1
            say(one["error"])
        elif not json:
            sys.stdout.write(f"{len(one['files'])} of {one['class']}: {one['sheet']}\n")
    say(f"{count(sum(len(one.get('files', ())) for one in found), 'image')} made, in {folder}")
    if failed:
        say(unread(failed, len(found)))
    return 1 if failed else 0


def _made(
    predictor: Predictor,
    sources: Sequence[Source | None],
    making: Making,
    options: AnswerOptions,
    folder: Path,
) -> Iterator[dict[str, Any]]:
    """Write the images of each source, or those from noise; yield what was made, or why nothing was."""
    from vitrail.core.errors import VitrailError
    from vitrail.infer.made_files import Recipe, write_made
    from vitrail.infer.made_images import made_images

    name, seed = options.class_ or "", options.seed or 0
    taken: Counter[str] = Counter()
    how = asdict(making)
    for source in sources:
        number = options.n if options.n is not None else MANY if source is None else 1
        stated = how if source is not None else {key: how[key] for key in how if key != "strength"}
        recipe = Recipe.of(predictor.path, name, seed, stated, "" if source is None else source.name)
        taken[recipe.stem] += 1
        if (same := taken[recipe.stem]) > 1:  # images of one name, from other folders
            recipe = replace(recipe, stem=f"{recipe.stem}-{same}")
        try:
            made = made_images(predictor, name, number, seed, making=making, image=source)
            paths = write_made(folder, recipe, made, number)
        except VitrailError as error:
            if source is None:
                raise
            yield {"image": source.name, "error": str(error)}
            continue
        sheet = folder / f"{recipe.stem}-sheet.png"
        yield {**recipe.facts, "files": [path.as_posix() for path in paths], "sheet": sheet.as_posix()}


def refuse_making(options: AnswerOptions) -> None:
    """Raise a UsageError for options of images that are made, without the class."""
    from vitrail.core.errors import UsageError

    for name in OF_MAKING:
        if getattr(options, name) is not None:
            raise UsageError(
                f"--{name.strip('_')} belongs to images that are made. Name their class: --class NAME"
            )


def _refuse_others(options: AnswerOptions, csv: str | None, named: Sequence[str]) -> None:
    """Raise a UsageError for options of predictions, and for a strength without an image."""
    from vitrail.core.errors import UsageError

    for one in fields(options):
        if one.name not in OF_MAKING and getattr(options, one.name) != one.default:
            raise UsageError(f"--{one.name.replace('_', '-')} has no effect with --class. Leave it out.")
    if csv is not None:
        raise UsageError(
            "--csv has no effect with --class: a JSON file beside the images lists them. Leave it out."
        )
    if options.strength is not None and not named:
        raise UsageError(
            "--strength says how much of an image is replaced. Name an image: vitrail predict RUN photo.jpg "
            f"--class {options.class_} --strength 0.5"
        )
    if options.n is not None and options.n < 1:
        raise UsageError(f"--n {options.n}: give the number of images, 1 or more.")
