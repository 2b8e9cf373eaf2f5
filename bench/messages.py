"""The texts of the studio and their translations: `python -m bench.messages` brings every catalogue up to date.

New texts get an empty translation, texts that are gone are removed, and each text that still needs a translation is
printed; the exit code is 1 while there are any. English stands in the code and has no catalogue.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.pofile import read_po, write_po
from jinja2.ext import babel_extract

from vitrail.core.catalog import DEFAULT_TASKS
from vitrail.export.formats import USES
from vitrail.reports.check_summary import TITLES
from vitrail.studio import finding_cards
from vitrail.studio.dataset_table import Dataset
from vitrail.studio.gallery import KINDS
from vitrail.studio.routes.check import readings
from vitrail.studio.sentence_list import MARKS, PHRASES, TEMPLATES
from vitrail.studio.train_form import groups

STUDIO = Path(__file__).parents[1] / "vitrail" / "studio"

OPTIONS = {"silent": "false", "trimmed": "false", "trim_blocks": "true", "lstrip_blocks": "true"}
"""Options of the extraction: those of the studio's environment."""

SENTENCES = "sentence_list.py"
"""The place of sentences, which no template formats."""

Text = str | tuple[str, str]
"""A text, or its singular and plural."""

PLACES = re.compile(r"%\([a-z_]+\)s|\{[a-z_]+\d*\}")

LONE = re.compile(r"(?<!%)%(?![%(])")
"""A per cent sign that is not doubled: templates take it for the beginning of a placeholder."""


def texts() -> dict[Text, str]:
    """Return every text that a page shows, with the place where it stands first."""
    found: dict[Text, str] = {}
    for file in sorted((STUDIO / "templates").rglob("*.html")):
        for text in _of_template(file):
            found.setdefault(text, file.relative_to(STUDIO).as_posix())
    for text in _of_python():
        if text:
            found.setdefault(text, "Python")
    for text in (*PHRASES, *TEMPLATES, *MARKS):
        found.setdefault(text, SENTENCES)
    return found


def _of_template(file: Path) -> Iterator[Text]:
    with file.open("rb") as handle:
        for _, _, message, _ in babel_extract(handle, ["_", "gettext", "ngettext"], [], OPTIONS):
            words = [one for one in ([message] if isinstance(message, str) else message or ()) if one]
            if words:
                yield words[0] if len(words) == 1 else (words[0], words[1])


def _of_python() -> Iterator[str]:
    """Yield the texts that Python hands to templates, which look them up."""
    yield from TITLES.values()
    yield from USES.values()
    yield from KINDS
    yield from (
        value
        for name, value in vars(finding_cards).items()
        if name.isupper() and isinstance(value, str) and value[0].isupper()
    )
    yield from (one.help for one in readings(Dataset("", "", uploaded=False)))
    for task in ("", *dict.fromkeys(DEFAULT_TASKS.values())):
        for group in groups({}, task):
            yield group.heading
            yield from (one.help for one in group.inputs)


def placeholders(text: str) -> list[str]:
    """Return the placeholders of a text, in order of the alphabet."""
    return sorted(PLACES.findall(text))


def catalogue(language: str) -> Catalog:
    """Return the catalogue of a language."""
    with (STUDIO / "locale" / f"{language}.po").open("rb") as handle:
        return read_po(handle, locale=language)


def missing(found: Catalog) -> list[str]:
    """Return what is wrong with a catalogue: texts without a translation, other placeholders, uncertain entries."""
    faults = []
    for text, place in texts().items():
        entry = found.get(text[0] if isinstance(text, tuple) else text)
        said = _strings(entry) if entry is not None else []
        if not said or not all(said):
            faults.append(f"not translated ({place}): {text}")
        elif entry is not None and entry.fuzzy:
            faults.append(f"fuzzy: {text}")
        else:
            wanted = placeholders(text[-1] if isinstance(text, tuple) else text)
            faults += [f"other placeholders: {text}: {one}" for one in said if placeholders(one) != wanted]
            if place != SENTENCES:
                faults += [f"write %% for a per cent sign: {one}" for one in said if LONE.search(one)]
    return faults


def _strings(entry: Message) -> list[str]:
    return [entry.string] if isinstance(entry.string, str) else list(entry.string or ())


def updated(language: str, old: Catalog) -> Catalog:
    """Return the catalogue of a language with exactly the present texts."""
    new = Catalog(locale=language, project="vitrail", version="1", charset="utf-8", fuzzy=False)
    new.creation_date = old.creation_date
    for text, place in texts().items():
        entry = old.get(text[0] if isinstance(text, tuple) else text)
        kept = entry is not None and isinstance(text, tuple) == isinstance(entry.id, tuple)
        new.add(text, entry.string if kept and entry is not None else None, locations=[(place, 0)])
    return new


def main() -> int:
    """Bring the catalogues up to date and print what is missing."""
    faults = []
    for path in sorted((STUDIO / "locale").glob("*.po")):
        new = updated(path.stem, catalogue(path.stem))
        with path.open("wb") as handle:
            write_po(handle, new, width=110, sort_output=False, omit_header=False, include_lineno=False)
        faults += [f"{path.name}: {one}" for one in missing(new)]
    print("\n".join(faults) or "Every text has its translation.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
