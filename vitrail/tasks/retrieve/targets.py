"""Targets of retrieval: the captions of an image. No torch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitrail.core.errors import DataError
from vitrail.data.captions import are_captions, is_file_name, shown, split_captions, words_in
from vitrail.data.findings import Finding
from vitrail.data.labels import count, shorten
from vitrail.data.manifest import KEPT, TRAIN, Row
from vitrail.data.scripts import scripts_of
from vitrail.data.targets import Targets, refused_kind
from vitrail.data.truth import Truth

if TYPE_CHECKING:
    from vitrail.data.image_facts import Facts
    from vitrail.data.vocabulary import Vocabulary

LONG = 75
"""Captions of more words do not fit the 77 tokens that a text tower usually reads: a word is a token or more."""
_ENOUGH = 10  # fewer images tell nothing of how often captions come again
_SHOWN = 40  # characters of a caption in a sentence
_RARE = "They are read byte by byte: more captions in these letters would help."
_OTHER_VOCABULARY = "A vocabulary learnt from these captions knows them: --set vocabulary=own"


class CaptionTargets(Targets[tuple[str, ...]]):
    """The captions of an image: one or more texts, each of which is right for it."""

    texts = True

    @classmethod
    def gather(cls, truth: Truth, rows: Sequence[Row]) -> Truth:
        """Return the header unchanged; DataError if the truths are no captions."""
        if truth.kind != "caption":
            raise refused_kind(truth, "Retrieval", "captions")
        return truth

    def read(self, row: Row, root: Path) -> tuple[str, ...]:
        """Return the captions of a row; DataError if it has none."""
        captions = split_captions(row.target)
        if not captions:
            raise DataError(f"{row.id} has no caption. Write one, or remove the image.")
        return captions

    def drawn(self, target: tuple[str, ...], key: int) -> tuple[str, ...]:
        """Return the captions with the one first that is drawn for this view of the image; `key` is its seed."""
        place = int(np.random.default_rng(key).integers(len(target)))
        return (target[place], *target[:place], *target[place + 1 :])

    # Findings

    def check(self, row: Row, facts: Facts, root: Path) -> Iterator[Finding]:
        """Exclude images without a caption, and report captions that are long, file names or not Latin."""
        captions = split_captions(row.target)
        if not captions:
            hint = "Write one, or leave the image out."
            yield Finding("no caption", "no caption", (row.id,), grave=True, out=True, hint=hint)
            return
        longest = max(map(words_in, captions))
        if longest > LONG:
            text = f"a caption of {longest:,} words"
            hint = f"A text tower reads about the first {LONG} words; the rest is cut off."
            yield Finding("long caption", text, (row.id,), hint=hint)
        if any(map(is_file_name, captions)):
            hint = "Write what the image shows: a network cannot learn such names."
            yield Finding("file name as caption", "a file name as caption", (row.id,), grave=True, hint=hint)
        self.noted[row.id, row.target] = len(captions)

    def check_set(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """Report captions of several images, on both sides of a split, in several scripts; equal images that differ."""
        kept = {row.id: row for row in rows if row.state == KEPT}
        images: dict[str, list[str]] = defaultdict(list)
        for row in kept.values():
            for caption in dict.fromkeys(map(_key, split_captions(row.target))):
                images[caption].append(row.id)
        shared = {caption: ids for caption, ids in images.items() if len(ids) > 1}
        yield from _class_names(list(kept.values()))
        yield from _shared(shared)
        yield from _leaks({caption: [kept[one] for one in ids] for caption, ids in shared.items()})
        yield from _copies(list(kept.values()))
        yield from _scripts(list(kept.values()))

    def same(self, one: Row, other: Row, root: Path) -> bool:
        """Return True: equal images may have different captions, and each is right."""
        return True

    def words(self, row: Row) -> str:
        """Return the first caption of a row, shortened, and the number of its others."""
        return shown(split_captions(row.target))

    def describe(self) -> str:
        """Return the number of captions of the checked images."""
        return f" with {count(sum(self.noted.values()), 'caption')}" if self.noted else ""

    def usable(self, rows: Sequence[Row], findings: Sequence[Finding]) -> None:
        """Check that there are two different captions of two images; raise DataError like `Targets.usable`."""
        super().usable(rows, findings)
        texts = {_key(caption) for row in rows for caption in split_captions(row.target)}
        if len(rows) < 2 or len(texts) < 2:
            which = "one image with a caption" if len(rows) < 2 else "the same caption for all images"
            raise DataError(
                f"has only {which}, so there is nothing to tell apart. Add images with other captions."
            )


def unread_captions(rows: Sequence[Row], vocabulary: Vocabulary) -> list[str]:
    """Return sentences about captions that a vocabulary cuts, or whose script it hardly knows."""
    texts = list(dict.fromkeys(caption for row in rows for caption in split_captions(row.target)))
    cut = [text for text in texts if vocabulary.cut(text)]
    foreign: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        for script in vocabulary.unknown(text):
            foreign[script].append(text)
    said = []
    if cut:
        said.append(
            f"{count(len(cut), 'caption')} of {len(texts):,} longer than the {vocabulary.context} tokens that the text "
            f"tower reads: the rest of each is cut off ({shown(cut, _SHOWN)})."
        )
    for script, some in foreign.items():
        known = " and ".join(sorted(vocabulary.scripts)) or "no script"
        said.append(
            f"{count(len(some), 'caption')} of {len(texts):,} in {script} letters, for which the vocabulary of "
            f"the text tower has hardly any pieces (it knows {known}): {shown(some, _SHOWN)}. "
            + (_RARE if vocabulary.kind == "own" else _OTHER_VOCABULARY)
        )
    return said


def _key(caption: str) -> str:
    """Return a caption for comparisons: neither capitals nor blanks count."""
    return " ".join(caption.casefold().split())


def _class_names(rows: Sequence[Row]) -> Iterator[Finding]:
    """Report captions that are few or single words, as names of classes are."""
    firsts = [split_captions(row.target)[0] for row in rows]
    texts = [text for text in firsts if not is_file_name(text)]
    if len(texts) < _ENOUGH or are_captions(texts, named=True):
        return
    several = dict.fromkeys(texts)
    told = shorten((repr(shown([one], _SHOWN)) for one in several), 2)
    yield Finding(
        "class names",
        f"The captions look like names of classes ({count(len(several), 'different one')} of "
        f"{count(len(texts), 'image')}: {told}), which tell images of one class not apart.",
        tuple(row.id for row in rows),
        grave=True,
        hint="To train classes: --task classify.",
    )


def _shared(images: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    if not images:
        return
    most = sorted(images.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    told = shorten((f"{shown([text], _SHOWN)!r} of {count(len(ids), 'image')}" for text, ids in most), 2)
    ids = tuple(dict.fromkeys(name for _, names in most for name in names))
    verb = "belongs" if len(images) == 1 else "belong"
    yield Finding(
        "shared caption",
        f"{count(len(images), 'caption')} {verb} to several images: {told}. Each of these images is right for it, so "
        "they are no mistakes of each other.",
        ids,
    )


def _leaks(images: Mapping[str, Sequence[Row]]) -> Iterator[Finding]:
    crossing = {
        caption: rows
        for caption, rows in images.items()
        if any(row.split == TRAIN for row in rows) and any(row.split not in {"", TRAIN} for row in rows)
    }
    if crossing:
        ids = tuple(dict.fromkeys(row.id for rows in crossing.values() for row in rows if row.split != TRAIN))
        verb = "belongs" if len(crossing) == 1 else "belong"
        yield Finding(
            "caption leak",
            f"{count(len(crossing), 'caption')} {verb} to images on two sides of the split that was given: "
            f"{shorten((repr(shown([one], _SHOWN)) for one in crossing), 2)}. Such a text is known from training, its "
            "other images are not: the score flatters a little.",
            ids,
        )


def _copies(rows: Sequence[Row]) -> Iterator[Finding]:
    """Report equal images with different captions."""
    by_hash: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.hash:
            by_hash[row.hash].append(row)
    differ = [own for own in by_hash.values() if len({row.target for row in own}) > 1]
    if differ:
        told = shorten((" = ".join(row.id for row in own[:3]) for own in differ), 2)
        ids = tuple(row.id for own in differ for row in own)
        noun = count(len(differ), "image")
        text = f"{noun} there again with another caption: {told}. All are kept, since each may be right."
        yield Finding("captions of copies", text, ids)


def _scripts(rows: Sequence[Row]) -> Iterator[Finding]:
    """Report captions that are not in Latin letters, which the vocabulary of CLIP hardly knows."""
    scripts = Counter[str]()
    ids: dict[str, None] = {}
    number = 0
    for row in rows:
        for caption in split_captions(row.target):
            number += 1
            own = [script for script in scripts_of(caption) if script != "Latin"]
            scripts.update(own)
            ids.update(dict.fromkeys([row.id] if own else []))
    if scripts:
        told = shorten((f"{script} ({many:,})" for script, many in scripts.most_common()), 4)
        yield Finding(
            "script",
            f"Of {count(number, 'caption')}, some have letters of {told}. A vocabulary learnt from these captions "
            "knows them; that of CLIP hardly does.",
            tuple(ids),
        )
