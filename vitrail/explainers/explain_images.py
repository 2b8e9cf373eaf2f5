"""Explain many images: a page or a figure for each, and a summary of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitrail import plots
from vitrail.core import catalog
from vitrail.core.errors import DataError, SettingError, UnknownNameError, VitrailError
from vitrail.core.files import refuse_unwritable_folder, write_text
from vitrail.core.text import reason
from vitrail.explainers.attention_maps import looks_of
from vitrail.explainers.clip_page import build_clip_page, first_specific, write_animation
from vitrail.explainers.explanation import Explanation, ImageExplainer, ScoringNetworks
from vitrail.explainers.explanation_page import build_page, every, recommend
from vitrail.explainers.faithfulness import Faithfulness, mean_gain
from vitrail.explainers.fast_scores import Precision, precision_line
from vitrail.explainers.methods import stranger
from vitrail.infer.inputs import Source
from vitrail.infer.predictor import Predictor

PAGE, ALL = "page", "all"

NAME_BYTES = 240
"""Largest length of a file name in bytes: file systems allow 255, and a number may be appended."""

LETTERS = 16
"""Height of the letters above a strip of frames, in pixels."""

CLASSLESS = ("rollout", "attention")
"""Methods that do not depend on the explained class: no class is shown next to their name."""


@dataclass(frozen=True)
class Wish:
    """How to explain every image: `method` is the name of a method, `page` or `all`; `settings` are its settings."""

    method: str
    of: str | None
    folder: Path
    check: bool
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """The result for one image: a file and explanations, or an error message.

    `unread` is True if the image could not be read, False if the explanation failed. `precisions` tell how images with
    masked cells were scored; `point` is the operating point, empty for the whole network. `animation` is a clip with
    its heat, of one of the explanations.
    """

    path: str
    answer: str = ""
    file: Path | None = None
    explanations: tuple[Explanation, ...] = ()
    error: str = ""
    unread: bool = False
    precisions: tuple[Precision, ...] = ()
    point: str = ""
    animation: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        if self.error:
            return {"path": self.path, "error": self.error}
        entries = [one.to_dict() for one in self.explanations]
        precision = precision_line(self.precisions)
        scored = {"precision": precision} if precision else {}
        point = {"point": self.point} if self.point else {}
        moving = {"animation": str(self.animation)} if self.animation else {}
        return {
            "path": self.path,
            "answer": self.answer,
            "file": str(self.file),
            **moving,
            **point,
            **scored,
            "explanations": entries,
        }


def explain_all(predictor: Predictor, sources: Iterable[Source], wish: Wish) -> Iterator[Result]:
    """Yield one result per image; an image that cannot be read, explained or written gets an error.

    Raises:
        SettingError: the method is unknown, does not fit the network or has no such setting; or `of` is unknown.
        RunError: nothing can be written into the folder.
    """
    _refuse(wish)
    refuse_unwritable_folder(wish.folder)
    networks = ScoringNetworks(predictor)
    for source in sources:
        try:
            yield _explained(ImageExplainer(predictor, source, networks), source.name, wish)
        except SettingError:  # the same error for every image
            raise
        except VitrailError as error:
            yield Result(source.name, error=str(error), unread=isinstance(error, DataError))
        except Exception as error:  # a failure of one image must not stop the others
            yield Result(source.name, error=f"{source.called} could not be explained: {reason(error)}.")


def _refuse(wish: Wish) -> None:
    if wish.method in (PAGE, ALL):
        for name in wish.settings:
            raise stranger(name, wish.method)
        return
    known = [PAGE, *catalog.EXPLAINERS, ALL]
    if wish.method not in known and ":" not in wish.method:
        raise UnknownNameError("method", wish.method, known, f"There are: {', '.join(known)}.")


def _explained(look: ImageExplainer, name: str, wish: Wish) -> Result:
    stem, answer = "standard-input" if name == "-" else Path(name).stem, str(look.prediction)
    clip = bool(look.ready.geometry.times)
    if wish.method == PAGE:
        build = build_clip_page if clip else build_page
        page = build(look, Path(name).name, of=wish.of, check=wish.check)
        path = free_name(wish.folder, stem, ".html")
        write_text(path, page.html)
        moving = _animation(page.explanations, path) if clip else None
        return Result(
            name,
            answer,
            path,
            page.explanations,
            precisions=look.precisions,
            point=look.point,
            animation=moving,
        )
    if wish.method == ALL:
        found = tuple(every(look, wish.of)[0])
    else:
        found = (look.explain(wish.method, wish.of, wish.settings),)
    if wish.check:
        found = tuple(look.test(one, wish.settings) for one in found)
    file = free_name(wish.folder, stem, f"-{wish.method.replace(':', '.')}.png")
    plots.write_image(file, _strips(found) if clip else _figure(look, found, wish))
    moving = _animation(found, file) if clip else None
    return Result(name, answer, file, found, precisions=look.precisions, point=look.point, animation=moving)


def _animation(found: Sequence[Explanation], beside: Path) -> Path:
    """Write the animation of one of the explanations of a clip beside its page or figure."""
    return write_animation(first_specific([one for one in found if one.of == found[0].of]), beside)


def _strips(found: Sequence[Explanation]) -> Image.Image:
    """Return the frames of a clip, and below them a strip of each explanation."""
    frames = plots.titled(plots.strip(found[0].frames(), found[0].times), str(found[0].prediction), LETTERS)
    return plots.below(frames, *(plots.titled(one.overlay(), _title(one), LETTERS) for one in found))


def _figure(look: ImageExplainer, found: Sequence[Explanation], wish: Wish) -> Image.Image:
    original = found[0].marked(plots.shown(found[0].original()))
    if wish.method == "attention" and not {"layer", "head"} & set(wish.settings):
        subject, query = look.subject(wish.of), wish.settings.get("query", "")
        layers = looks_of(subject, look.ready.pixels[None], query)
        return plots.beside(original, plots.heat_grid([maps[0].float().numpy() for maps in layers]))
    maps = [plots.titled(one.overlay(), _title(one)) for one in found]
    return plots.beside(plots.titled(original, str(found[0].prediction)), *maps)


def _title(one: Explanation) -> str:
    return one.method if one.method in CLASSLESS else f"{one.method}: {one.of}"


def summary(results: Sequence[Result]) -> list[str]:
    """Summarize all images: the tests of each method, which method to trust, how masked images were scored."""
    precision = precision_line([one for result in results for one in result.precisions])
    return [*_verdicts(results), *filter(None, [precision])]


def _verdicts(results: Sequence[Result]) -> list[str]:
    """Return one line per method with intervals, and which method to trust; nothing if none was tested."""
    tested: dict[str, list[Explanation]] = {}
    for one in (one for result in results for one in result.explanations if one.faithful):
        tested.setdefault(one.method, []).append(one)
    if not tested:
        return []
    if max(map(len, tested.values())) == 1:
        single = [one for some in tested.values() for one in some]
        if len(single) > 1:
            return [recommend(single)]
        return [single[0].faithful.words] if single[0].faithful else []
    lines, best = [], ("", 0.0)
    for method, some in tested.items():
        tests = [one.faithful for one in some if one.faithful]
        deletion = mean_gain([one.deletion.mean for one in tests])
        insertion = mean_gain([one.insertion.mean for one in tests])
        same = float(np.mean([one.alike for one in tests]))
        over = Faithfulness(deletion, insertion, same)
        verdict = "not conclusive" if over.nothing else "faithful" if over.holds else "doubtful"
        gains = f"deletion {deletion}, insertion {insertion}, alike {same:z.2f}"
        lines.append(f"{method} over {len(tests)} images: {gains}: {verdict}.")
        if over.holds and deletion.mean + insertion.mean > best[1]:
            best = (method, deletion.mean + insertion.mean)
    if len(tested) > 1:
        lines.append(f"Trust {best[0]} here." if best[0] else "Trust none of them here.")
    return lines


def free_name(folder: Path, stem: str, suffix: str) -> Path:
    """Return an unused file name in the folder, so that two images with the same name get two files.

    A name that is longer than file systems allow is cut.
    """
    base, dot, last = suffix.rpartition(".")
    ending = dot + last
    short = os.fsencode(stem)[: NAME_BYTES - len(os.fsencode(suffix))].decode("utf-8", "ignore")
    wanted = folder / f"{short}{suffix}"
    number = 2
    while wanted.exists():
        wanted = folder / f"{short}{base}-{number}{ending}"
        number += 1
    return wanted
