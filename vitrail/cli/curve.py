"""vitrail curve."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.studies.curve_options import CurveOptions

if TYPE_CHECKING:
    from vitrail.data.prepare import Prepared
    from vitrail.runs.train_options import TrainOptions
    from vitrail.studies.half_and_whole import HalfAndWhole
    from vitrail.studies.learning_curves import ModelCurve
    from vitrail.training.progress import Listener


def curve(
    data: str = "",
    /,
    *more: str,
    wanted: Annotated[CurveOptions, Parameter(name="*")] = CurveOptions(),
    options: Annotated[LayoutOptions, Parameter(name="*")] = DEFAULTS,
    html: str | None = None,
    json: bool = False,
) -> int:
    """See whether more images would help: what twice as many would bring, with its 80 % interval.

    Heads on the frozen features of 10, 25, 50 and 100 % of the images are scored on a test part that stays, and the
    curve through them is drawn on. Features are kept: asked again, it takes seconds.

        vitrail curve photos/
        vitrail curve photos/ --models vit_s16,resnet50 --html curve.html
        vitrail curve photos/ --models vit_s16=weights.safetensors
        vitrail curve photos/ --tune full --time 1h

    Parameters
    ----------
    data
        a folder, table or archive as for training
    more
        further rasters, whose bands are put on those of the first: s1.tif s2_10m.tif s2_20m.tif
    html
        write the page with the drawn curves to this file
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import data_there
    from vitrail.core.errors import UsageError
    from vitrail.data.rasters.sources import joined

    data = joined(data, more)
    if not data:
        raise UsageError("Name a folder of images: vitrail curve photos/")
    data_there(data)
    from pathlib import Path

    from vitrail.core.files import refuse_unwritable, write_text

    if html:
        refuse_unwritable(Path(html))
    found = _trained(data, wanted, options) if wanted.tune else _curves(data, wanted, options)
    if json:
        print_json(found.plain)
    else:
        sys.stdout.write("\n".join(found.lines) + "\n")
    if html:
        write_text(Path(html), found.page)
        say(f"page    {html}")
    return 0


class _Found:
    """What was found, for programs, for people at a terminal, and as a page."""

    def __init__(self, plain: dict[str, Any], lines: list[str], page: str) -> None:
        self.plain, self.lines, self.page = plain, lines, page


def _curves(data: str, wanted: CurveOptions, read: LayoutOptions) -> _Found:
    """Draw the curves of heads on frozen features."""
    from vitrail.cli.output import say
    from vitrail.studies.learning_curve_page import page_of_curves
    from vitrail.studies.learning_curve_words import to_dict
    from vitrail.studies.learning_curves import curve_of
    from vitrail.training.progress import Teller

    asked = _asked(wanted, read, None)
    with Teller(say) as teller:
        prepared = _prepared(data, asked, [teller])
        found = [curve_of(data, prepared, one, [teller]) for one in asked]
    lines = [line for one in found for line in (*_table(one), "")]
    return _Found({"curves": [to_dict(one) for one in found]}, lines[:-1], page_of_curves(data, found))


def _trained(data: str, wanted: CurveOptions, read: LayoutOptions) -> _Found:
    """Train each network on half of the images and on all."""
    from vitrail.cli.output import say
    from vitrail.studies.half_and_whole import half_and_whole, time_of_each
    from vitrail.studies.learning_curve_page import page_of_trainings
    from vitrail.training.progress import Teller

    asked = _asked(wanted, read, time_of_each(wanted.time))
    with Teller(say) as teller:
        prepared = _prepared(data, asked, [teller])
        found = [half_and_whole(data, prepared, one, [teller]) for one in asked]
    said = [(one, _said(one)) for one in found]
    lines = [line for one, told in said for line in (f"{one.model}, --tune {one.tune}", *told, "")]
    plain = [{**_plain(one), "says": told} for one, told in said]
    return _Found({"trainings": plain}, lines[:-1], page_of_trainings(data, said))


def _asked(wanted: CurveOptions, read: LayoutOptions, time: str | None) -> list[TrainOptions]:
    from vitrail.studies.curve_options import train_options
    from vitrail.studies.model_choice import choices
    from vitrail.training.validate_options import validate

    asked = [
        train_options(wanted, read, one.model, one.weights, time)
        for one in choices(wanted.models, wanted.weights)
    ]
    for one in asked:
        validate(one)
    return asked


def _prepared(data: str, asked: Sequence[TrainOptions], listeners: Sequence[Listener]) -> Prepared:
    from vitrail.studies.learning_curves import refuse_few
    from vitrail.training.fit import prepared_for
    from vitrail.training.progress import note

    prepared = prepared_for(data, asked[0], listeners)
    note(listeners, prepared.opening())
    refuse_few(prepared)
    return prepared


def _table(found: ModelCurve) -> list[str]:
    from vitrail.cli.output import table
    from vitrail.studies.learning_curve_words import HEAD, lines, rows

    about = f"{found.model}, weights {found.weights}: {found.unit} on {found.tested:,} test images"
    return [about, table(HEAD, rows(found.whole), right=(0, 1, 3)), *lines(found)]


def _said(found: HalfAndWhole) -> list[str]:
    """Return what two trainings say, the answer last."""
    from vitrail.studies.learning_curve_words import points

    each = [
        f"{one.images:,} training images: {found.score} {one.score.text()} ({one.score.span()}), {one.run}"
        for one in (found.half, found.whole)
    ]
    gain, most = found.gain(), found.most()
    if gain is None or most is None:
        return [*each, "the score has no interval here, so nothing is said of more images"]
    fell = ["the score fell with more images: two trainings differ by chance, too"] if gain.middle < 0 else []
    return [
        *each,
        f"from half to all: {points(gain)} points (80 % sure)",
        *fell,
        f"twice the images: +0.0 to +{100 * most:.1f} points; a doubling brings less than the one before, and "
        "two sizes cannot say how much less",
    ]


def _plain(found: HalfAndWhole) -> dict[str, Any]:
    gain, most = found.gain(), found.most()
    sides = {
        name: {"images": one.images, "run": one.run, "score": one.score.to_dict()}
        for name, one in (("half", found.half), ("all", found.whole))
    }
    told = {"gain_from_half_to_all": gain.to_dict() if gain else None, "most_from_twice": most}
    return {"model": found.model, "tune": found.tune, "score": found.score, **sides, **told}
