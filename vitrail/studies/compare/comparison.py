"""A comparison from the command to its files: compare.json, compare.md and compare.html in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from vitrail.core.environment import runs_dir
from vitrail.core.errors import RunError, SettingError, UsageError
from vitrail.core.files import refuse_unwritable_folder, write_json, write_text
from vitrail.core.text import command
from vitrail.data.manifest import Manifest
from vitrail.data.prepare import Prepared
from vitrail.infer.predictor import Predictor
from vitrail.metrics.paired_difference import REGION
from vitrail.runs.run import new_folder
from vitrail.runs.train_options import TrainOptions, seconds
from vitrail.studies.compare.contestants import Contestant, named, planned
from vitrail.studies.compare.design import Times, choices, rounds
from vitrail.studies.compare.duel import Duel, Outcome
from vitrail.studies.compare.frozen_features import NOTE, frozen_side, ordered, refuse_given_split
from vitrail.studies.compare.page import page_of
from vitrail.studies.compare.places import tested_of
from vitrail.studies.compare.report import given_report, report_of
from vitrail.studies.compare.robustness import compared
from vitrail.studies.compare.sentences import markdown_of
from vitrail.studies.compare.speed import speeds
from vitrail.studies.compare.trained_models import compare_given
from vitrail.studies.compare_options import RunsAsked
from vitrail.tasks.result import Section
from vitrail.training.fit import prepared_for
from vitrail.training.validate_options import validate

Say = Callable[[str], None]

SETTINGS = "settings.json"
"""Where a comparison keeps what was asked for, so that it can go on after an interruption."""


@dataclass(frozen=True)
class Asked:
    """What is compared: a source, networks as --models names them, the time of all, and what is shared by them."""

    data: str
    models: str
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


class _Ready(NamedTuple):
    """Images that were checked, and contestants with complete recipes."""

    prepared: Prepared
    contestants: list[Contestant]


def compare(asked: Asked, say: Say, out: str = "") -> Comparison:
    """Compare networks on a user's own images and write what was found.

    Raises:
        UsageError: fewer than two networks, or too little time for one epoch of each; it says what that would take.
        UnknownNameError: no such network.
    """
    _refuse_region(asked.region)
    if asked.epochs is not None and asked.epochs < 1:
        raise SettingError(f"--epochs {asked.epochs} trains nothing. Give 1 or more.")
    named(asked.models)
    seconds(asked.time)
    validate(asked.options)
    wanted = Path(out) if out else runs_dir() / f"compare-{Path(asked.data).resolve().name or 'images'}"
    refuse_unwritable_folder(wanted.parent)
    ready = _ready(asked, say)
    folder = new_folder(wanted)
    place = str(Path(asked.data).resolve()) if Path(asked.data).exists() else asked.data
    write_json(folder / SETTINGS, asdict(replace(asked, data=place)) | {"images": _images(ready.prepared)})
    return _compared(asked, ready, folder, say)


def resume(folder: Path, say: Say) -> Comparison:
    """Go on with a comparison that was interrupted: trainings that are done are not done again.

    Raises:
        RunError: it is no folder of a comparison, or its images are others now.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise RunError(f"{folder} is no folder of a comparison: it has no {SETTINGS}.")
    stated = json.loads(path.read_text(encoding="utf-8"))
    images, options = stated.pop("images"), TrainOptions(**stated.pop("options"))
    asked = Asked(**stated, options=options)
    ready = _ready(asked, say)
    if _images(ready.prepared) != images:
        raise RunError(
            f"The images of {asked.data} are not those that the comparison in {folder} began with. Start a new one."
        )
    return _compared(asked, ready, folder, say, resumed=True)


def _ready(asked: Asked, say: Say) -> _Ready:
    """Check the images and plan every training, before anything is written."""
    prepared = prepared_for(asked.data, asked.options)
    say(prepared.summary())
    rounds(prepared, choices(prepared, asked.rounds)[-1], asked.options.seed or 0)
    found = planned(asked.data, prepared, asked.models, asked.options, asked.own_augmentation)
    return _Ready(prepared, found)


def _images(prepared: Prepared) -> str:
    """Return a fingerprint of the images: their names, contents, truths and splits."""
    digest = blake2b(digest_size=16)
    for row in prepared.manifest.rows():
        digest.update("\0".join(row).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _compared(asked: Asked, ready: _Ready, folder: Path, say: Say, resumed: bool = False) -> Comparison:
    seed, limit = asked.options.seed or 0, seconds(asked.time) or 0.0
    duel = Duel(
        folder,
        ready.prepared,
        ready.contestants,
        limit,
        seed,
        say,
        asked.epochs,
        asked.rounds,
        resumed=resumed,
    )
    frozen = asked.options.tune == "draft"
    try:
        outcome = _frozen(duel, ready.contestants, ready.prepared) if frozen else duel.run()
    except KeyboardInterrupt:
        say(f"stopped; go on with: {command('compare', '--resume', folder)}")
        raise
    models = {
        one.name: duel.model(one.name) for one in outcome.sides if one.scores is not None and not frozen
    }
    if models:
        say("measuring how fast they answer")
    report = report_of(duel, outcome, asked.region / 100, speeds(models, asked.options.device or "auto"))
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


def compare_runs(asked: RunsAsked, say: Say, out: str = "") -> Comparison:
    """Compare trained models and write what was found."""
    models, source, wanted = asked.models, asked.source, asked.wanted
    _refuse_region(wanted.region)
    asked.robustness.refuse_idle()
    names = "-".join(dict.fromkeys(Path(model).name for model in models))
    place = Path(out) if out else runs_dir() / f"compare-{names}"
    refuse_unwritable_folder(place.parent)
    given = compare_given(models, source, read=asked.read, device=wanted.device)
    paths = {side.name: Path(model) for side, model in zip(given.sides, models, strict=True)}
    report = given_report(given, wanted.region / 100, source, speeds(paths, wanted.device))
    sections: Sequence[Section] = ()
    if asked.robustness.robustness:
        predictors = {name: Predictor(path, wanted.device) for name, path in paths.items()}
        found = compared(predictors, given.manifest, asked.robustness, wanted.region / 100, say)
        sections, report["robustness"] = found.result.sections, found.to_dict()
    return _written(new_folder(place), report, given.manifest, paths, sections)


def _refuse_region(region: float) -> None:
    if not 0 <= region < 100:
        raise SettingError(f"--region {region:g} is no difference in points. Give 1, or 0 for none.")


def _written(
    folder: Path,
    report: dict[str, Any],
    manifest: Manifest | None,
    models: dict[str, Path],
    robustness: Sequence[Section] = (),
) -> Comparison:
    write_json(folder / "compare.json", report)
    write_text(folder / "compare.md", markdown_of(report))
    write_text(folder / "compare.html", page_of(report, manifest, models, robustness))
    return Comparison(folder, report)


def refuse_missing(data: str, models: str) -> None:
    """Refuse (UsageError) a comparison of nothing."""
    if not data:
        raise UsageError("Name images to compare on: vitrail compare photos/ --models vit_s16,resnet50")
    if not models:
        raise UsageError("Name the networks to compare: --models vit_s16,resnet50 (see: vitrail models)")
