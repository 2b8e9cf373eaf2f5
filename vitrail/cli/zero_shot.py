"""vitrail predict --zero-shot."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from vitrail.infer.predict_options import AnswerOptions

if TYPE_CHECKING:
    from vitrail.infer.inputs import Source
    from vitrail.infer.predictor import Answer
    from vitrail.search.search_model import SearchModel
    from vitrail.search.zero_shot import Outcome, Wish


def predict_zero_shot(
    words: Sequence[str], options: AnswerOptions, json: bool, csv: str | None, out: str | None, device: str
) -> int:
    """Predict images as classes that are only named; `words` are the model, if one is named, and the images."""
    from vitrail.cli.answer_table import print_answers, write_csv
    from vitrail.cli.output import say, unread
    from vitrail.core.errors import UsageError
    from vitrail.core.files import refuse_unwritable
    from vitrail.core.text import command
    from vitrail.infer.inputs import expand
    from vitrail.search.search_model import open_model
    from vitrail.search.zero_shot import COLUMNS, wish_of

    wish = wish_of(options.zero_shot or "", options.template)
    _refuse_others(options)
    model, images = _model_and_images(words)
    if not images:
        raise UsageError(
            f"Name images to look at: {command('predict', model or 'RUN', 'new/', '--zero-shot', 'cat,dog')}"
        )
    if csv:
        refuse_unwritable(Path(csv))
    piped = sys.stdin.buffer.read() if "-" in images else None
    sources = list(expand(images, piped, say))
    opened = open_model(model, device, words=True)
    outcome = _answered(opened, sources, wish)
    answers = list(_drawn(opened, sources, outcome.answers, out)) if out else list(outcome.answers)
    if csv:
        write_csv(csv, answers, COLUMNS)
        say(f"{len(answers)} rows written to {csv}")
    print_answers(answers, json, bool(csv))
    for line in outcome.notes:
        say(line)
    failed = sum(bool(one.error) for one in answers)
    if failed:
        say(unread(failed, len(answers)))
    return 1 if failed else 0


def _refuse_others(options: AnswerOptions) -> None:
    """Raise a UsageError for options that classes without training do not have."""
    from vitrail.core.errors import UsageError

    for one in fields(options):
        if one.name not in ("zero_shot", "template") and getattr(options, one.name) != one.default:
            raise UsageError(
                f"--{one.name.strip('_').replace('_', '-')} has no effect with --zero-shot. Leave it out."
            )


def _model_and_images(words: Sequence[str]) -> tuple[str | None, tuple[str, ...]]:
    """Return the model, None if the first word names images, and the images."""
    from vitrail.cli.path_checks import model_there
    from vitrail.core.environment import expanded
    from vitrail.infer.runtimes import KINDS
    from vitrail.runs.model_source import is_ours, is_published

    first, rest = words[0], tuple(words[1:])
    path = expanded(first)
    if first == "-" or any(sign in first for sign in "*?["):
        return None, tuple(words)
    if path.exists() and not (is_ours(path) or is_published(first) or path.suffix in KINDS):
        return None, tuple(words)
    model_there(first)
    return first, rest


def _answered(opened: SearchModel, sources: Sequence[Source], wish: Wish) -> Outcome:
    from vitrail.cli.output import say
    from vitrail.search.zero_shot import zero_shot
    from vitrail.training.loop import Event
    from vitrail.training.progress import Teller

    with Teller(say) as teller:

        def told(what: str, done: int, total: int) -> None:
            teller(Event("features" if what == "vectors" else "looked", 0, {"done": done, "total": total}))

        return zero_shot(opened, sources, wish, told)


def _drawn(
    opened: SearchModel, sources: Sequence[Source], answers: Sequence[Answer], out: str
) -> Iterator[Answer]:
    """Yield the answers after each image was written with its classes drawn below it."""
    from vitrail.cli.output import say
    from vitrail.infer.draw_predictions import Drawing, told

    assert opened.words is not None, "a model for words"
    drawing = Drawing(opened.words.predictor, Path(out), sources)
    for source, answer in zip(sources, answers, strict=True):
        yield told(answer, drawing.write(source, answer) if not answer.error else {})
    say(f"{drawing.count} files written to {out}")
