"""A comparison from the command to its files: compare.json, compare.md and compare.html in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.core.environment import runs_dir
from vitrail.core.errors import RunError, SettingError, UsageError
from vitrail.core.files import refuse_unwritable_folder, write_json, write_text
from vitrail.data.manifest import Manifest
from vitrail.data.options import LayoutOptions
from vitrail.data.prepare import Prepared
from vitrail.metrics.paired_difference import REGION
from vitrail.runs.train_options import TrainOptions, seconds
from vitrail.studies.compare.contestants import Contestant, named, planned
from vitrail.studies.compare.design import Times, choices, rounds
from vitrail.studies.compare.duel import Duel, Outcome, new_folder, tested_of
from vitrail.studies.compare.frozen import NOTE, frozen_side, ordered, refuse_given_split
from vitrail.studies.compare.given import compare_given
from vitrail.studies.compare.page import page_of
from vitrail.studies.compare.report import given_report, markdown_of, report_of
from vitrail.studies.compare.speed import speeds
from vitrail.training.fit import prepared_for
from vitrail.training.validate_options import validate

Say = Callable[[str], None]

SETTINGS = "settings.json"
"""Where a comparison keeps what was asked for, so that it can go on after an interruption."""


@dataclass(frozen=True)
class Asked:
    """What is compared: a source, networks, the time of all trainings, and what is shared by them."""

    data: str
    models: tuple[str, ...]
    time: str = "30m"
    epochs: int | None = None  # of every training, in place of the time
    rounds: int | None = None
    region: float = 100 * REGION  # in points
    own_augmentation: bool = False
    options: TrainOptions = field(default_factory=TrainOptions)


class Comparison(NamedTuple):
    """The folder of a comparison, and what was found as plain data."""

    folder: Path
    report: dict[str, Any]


def compare(asked: Asked, say: Say, out: str = "") -> Comparison:
    """Compare networks on a user's own images and write what was found.

    Raises:
        UsageError: fewer than two networks, or too little time for one epoch of each; it says what that would take.
        UnknownNameError: no such network.
    """
    if not 0 <= asked.region < 100:
        raise SettingError(f"--region {asked.region:g} is no difference in points. Give 1, or 0 for none.")
    named(asked.models)
    seconds(asked.time)
    validate(asked.options)
    wanted = Path(out) if out else runs_dir() / f"compare-{Path(asked.data).resolve().name or 'images'}"
    refuse_unwritable_folder(wanted.parent)
    folder = new_folder(wanted)
    write_json(folder / SETTINGS, asdict(asked))
    return _compared(asked, folder, say)


def resume(folder: Path, say: Say) -> Comparison:
    """Go on with a comparison that was interrupted: trainings that are done are not done again."""
    path = folder / SETTINGS
    if not path.is_file():
        raise RunError(f"{folder} is no folder of a comparison: it has no {SETTINGS}.")
    stated = json.loads(path.read_text(encoding="utf-8"))
    options = TrainOptions(**stated.pop("options"))
    return _compared(Asked(**{**stated, "models": tuple(stated["models"])}, options=options), folder, say)


def _compared(asked: Asked, folder: Path, say: Say) -> Comparison:
    prepared = prepared_for(asked.data, asked.options)
    say(prepared.summary())
    contestants = planned(asked.data, prepared, asked.models, asked.options, asked.own_augmentation)
    seed = asked.options.seed or 0
    duel = Duel(
        folder, prepared, contestants, seconds(asked.time) or 0.0, seed, say, asked.epochs, asked.rounds
    )
    frozen = asked.options.tune == "draft"
    outcome = _frozen(duel, contestants, prepared) if frozen else duel.run()
    models = {
        one.name: duel.model(one.name) for one in outcome.sides if one.scores is not None and not frozen
    }
    if models:
        say("measuring how fast they answer")
    report = report_of(duel, outcome, asked.region / 100, speeds(models))
    if frozen:
        report["verdict"].append(NOTE)
    return _written(folder, report, None if frozen else outcome.drawn.manifests[0], models)


def _frozen(duel: Duel, contestants: Sequence[Contestant], prepared: Prepared) -> Outcome:
    number = choices(prepared, duel.most_rounds)[0]
    drawn = rounds(prepared, number, duel.seed)
    refuse_given_split(drawn)
    tested = tested_of(drawn, prepared)
    made = [frozen_side(one, prepared, drawn, duel.say) for one in contestants]
    sides = ordered([side for side, _ in made], tested.ids, [row.id for row in prepared.manifest.rows()])
    return Outcome(Times(number, 0, 0.0, 0.0), drawn, tested, sides, made[0][1])


def compare_runs(
    models: Sequence[str], source: str, read: LayoutOptions, region: float, out: str
) -> Comparison:
    """Compare trained models on the same test images, or on those of `source`."""
    if not 0 <= region < 100:
        raise SettingError(f"--region {region:g} is no difference in points. Give 1, or 0 for none.")
    given = compare_given(models, source, read=read)
    names = "-".join(one.name for one in given.sides)
    folder = new_folder(Path(out) if out else runs_dir() / f"compare-{names}".replace("/", "-"))
    paths = {side.name: Path(model) for side, model in zip(given.sides, models, strict=True)}
    report = given_report(given, region / 100, source, speeds(paths))
    return _written(folder, report, None, {})


def _written(
    folder: Path, report: dict[str, Any], manifest: Manifest | None, models: dict[str, Path]
) -> Comparison:
    write_json(folder / "compare.json", report)
    write_text(folder / "compare.md", markdown_of(report))
    write_text(folder / "compare.html", page_of(report, manifest, models))
    return Comparison(folder, report)


def refuse_missing(data: str, models: Sequence[str]) -> None:
    """Refuse (UsageError) a comparison of nothing."""
    if not data:
        raise UsageError("Name images to compare on: vitrail compare photos/ --models vit_s16,resnet50")
    if not models:
        raise UsageError("Name the networks to compare: --models vit_s16,resnet50 (see: vitrail models)")
