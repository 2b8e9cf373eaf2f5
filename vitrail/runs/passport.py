"""The passport of a run: everything that a rerun needs, in report.json and in report.html, without places of a machine.

It holds the recipe, the hashes of images, truths, split and weights, the seed, versions and conditions, and what came
out: the hash of the trained weights and the scores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor

from vitrail import __version__
from vitrail.core.config import Settings
from vitrail.core.errors import RunError
from vitrail.core.text import command
from vitrail.data.manifest import Manifest, Row
from vitrail.runs.model_file import read_model
from vitrail.runs.recipe import Recipe
from vitrail.runs.run import Run
from vitrail.runs.versions import environment

FORMAT: Literal[1] = 1

LIBRARIES = ("numpy", "pillow", "scikit-learn", "timm", "torchvision")
"""Libraries, besides torch, whose version may change a result."""

EMBEDDED = re.compile(r'<script type="application/json" id="passport">(.*?)</script>', re.DOTALL)

Kind = Literal["training", "draft", "refit"]


class DataHashes(Settings):
    """The name of the data, the number of kept images, and hashes of their contents, truths and splits."""

    name: str
    images: int
    splits: dict[str, int]
    contents: str
    truths: str
    split: str


class Passport(Settings):
    """Everything that a rerun needs, and what it must lead to.

    `weights` is the name and the hash of the encoder that the run started from ("" if unknown); `history` counts what
    makes a run more than one training from start to end. `model` is the hash of the trained weights.
    """

    format: Literal[1] = FORMAT
    vitrail: str = __version__
    kind: Kind
    command: str
    recipe: dict[str, Any]
    seed: int
    data: DataHashes
    weights: dict[str, str]
    environment: dict[str, str]
    conditions: dict[str, Any]
    history: dict[str, int]
    model: str
    scores: dict[str, float | None]


class Difference(NamedTuple):
    """One thing that differs between two passports: its name, and both values as text."""

    what: str
    then: str
    now: str

    def text(self) -> str:
        """Return the difference as one line."""
        return f"{self.what}: {self.then} then, {self.now} now"


def passport_of(
    run: Run, manifest: Manifest, made: tuple[Kind, str], scores: Mapping[str, float | None]
) -> dict[str, Any]:
    """Return the passport of a run as plain data; `made` is its kind and the command that repeats it."""
    recipe, events = run.recipe(), run.history()
    file = read_model(run.model_path)
    kind, again = made
    begun = [event for event in events if event["event"] in ("started", "drafted")]
    first = begun[0] if begun else {}
    passport = Passport(
        kind=kind,
        command=again,
        recipe=placeless(recipe, file.header.weights),
        seed=recipe.training.seed,
        data=data_hashes(manifest, Path(recipe.data.source).name),
        weights={"name": file.header.weights, "hash": first.get("weights", "")},
        environment=environment() | _libraries(),
        conditions=first.get("conditions", {}) | _features(first),
        history={
            "resumed": sum(event["event"] == "resumed" for event in events),
            "resumed elsewhere": sum(event["event"] == "resumed" and not event["exact"] for event in events),
            "lengthened": sum(event["event"] == "lengthened" for event in events),
        },
        model=hash_of(file.tensors),
        scores=dict(scores),
    )
    return passport.model_dump()


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of tensors and their names that changes with every bit."""
    digest = blake2b(digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def data_hashes(manifest: Manifest, name: str) -> DataHashes:
    """Return the hashes of the kept images of a manifest."""
    rows = sorted(manifest.rows(), key=lambda row: row.id)
    splits: dict[str, int] = {}
    for row in rows:
        splits[row.split] = splits.get(row.split, 0) + 1
    return DataHashes(
        name=name,
        images=len(rows),
        splits=splits,
        contents=_hash_of_rows(rows, lambda row: row.hash),
        truths=_hash_of_rows(rows, lambda row: row.target),
        split=_hash_of_rows(rows, lambda row: row.split),
    )


def _hash_of_rows(rows: Iterable[Row], part: Any) -> str:
    digest = blake2b(digest_size=16)
    for row in rows:
        digest.update(json.dumps([row.id, part(row)]).encode())
    return digest.hexdigest()


def placeless(recipe: Recipe, weights: str) -> dict[str, Any]:
    """Return a recipe as plain data without folders: the data and the weights by name only."""
    values = recipe.model_dump(mode="json")
    values["data"]["source"] = Path(recipe.data.source).name
    values["model"]["weights"] = weights
    plain: dict[str, Any] = _placeless(values)
    return plain


def _placeless(value: Any) -> Any:
    if isinstance(value, str):
        return Path(value).name if Path(value).is_absolute() else value
    if isinstance(value, Mapping):
        return {key: _placeless(one) for key, one in value.items()}
    return [_placeless(one) for one in value] if isinstance(value, list) else value


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _features(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the backend that gave the features of a draft."""
    return {"features": event["features"]} if "features" in event else {}


def read_passport(path: Path) -> Passport:
    """Read the passport in a report.html, a report.json or a run folder.

    Raises:
        RunError: there is none, or it is of another version.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise RunError(f"{file} cannot be read: {why}. Name the report.html of a run.") from error
    values = _embedded(text)
    if values is None:
        raise RunError(
            f"{file} holds no passport: it is no report of a run, or of an earlier vitrail. With the recipe.yaml "
            f"beside it, the training can be repeated: {command('train', 'IMAGES', '--recipe', 'recipe.yaml')}"
        )
    if values.get("format") != FORMAT:
        wrote = values.get("vitrail", "another version")
        raise RunError(
            f"{file} has a passport of format {values.get('format')}, written by vitrail {wrote}; this vitrail "
            f"{__version__} reads format {FORMAT}. Use the vitrail that wrote it: pip install vitrail=={wrote}"
        )
    try:
        return Passport.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"]))
        raise RunError(f"{file} has a broken passport ({what}: {first['msg']}). Copy it again.") from None


def _embedded(text: str) -> dict[str, Any] | None:
    found = EMBEDDED.search(text)
    try:
        values = json.loads(found[1]) if found else json.loads(text)
    except ValueError:
        return None
    if not found:
        values = values.get("passport") if isinstance(values, dict) else None
    return values if isinstance(values, dict) else None


def causes(then: Passport, now: Passport) -> list[Difference]:
    """Return what differs in what two runs were made of: data, split, weights, recipe, versions, conditions."""
    pairs: list[tuple[str, Any, Any]] = [
        ("images", _contents(then.data), _contents(now.data)),
        ("truths", f"hash {then.data.truths[:8]}", f"hash {now.data.truths[:8]}"),
        ("split", _split(then.data), _split(now.data)),
        ("initial weights", _weights(then), _weights(now)),
        ("vitrail", then.vitrail, now.vitrail),
    ]  # fmt: skip
    flat = (_flat(then.recipe), _flat(now.recipe))
    for name in dict.fromkeys((*flat[0], *flat[1])):
        if name != "data.source":
            pairs.append((f"setting {name}", flat[0].get(name), flat[1].get(name)))
    for one, other in ((then.environment, now.environment), (then.conditions, now.conditions)):
        pairs += [(name, one.get(name), other.get(name)) for name in dict.fromkeys((*one, *other))]
    for name in then.history:
        pairs.append((name, then.history[name], now.history.get(name, 0)))
    distinct = {what: Difference(what, str(one), str(other)) for what, one, other in pairs if one != other}
    return list(distinct.values())


def _contents(data: DataHashes) -> str:
    return f"{data.images:,}, hash {data.contents[:8]}"


def _split(data: DataHashes) -> str:
    sizes = ", ".join(f"{number:,} {name or 'in none'}" for name, number in sorted(data.splits.items()))
    return f"{sizes}, hash {data.split[:8]}"


def _weights(passport: Passport) -> str:
    found = passport.weights.get("hash", "")
    return f"{passport.weights.get('name', '')}, hash {found[:8] if found else 'unknown'}"


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat
