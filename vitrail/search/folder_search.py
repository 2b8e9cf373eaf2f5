"""One search: from a folder and queries to the images found, with what was done and left aside."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from vitrail.core.errors import SettingError
from vitrail.data.labels import count
from vitrail.data.prepare import find
from vitrail.search.image_index import Broken, Index, Progress, contents_of, index_of
from vitrail.search.image_list import list_images
from vitrail.search.options import SearchOptions
from vitrail.search.queries import asked_for, refuse_empty
from vitrail.search.ranking import SHARE, Found, Limits, image_limit, search, text_limit
from vitrail.search.search_model import SearchModel, open_model


class Result(NamedTuple):
    """The outcome of a search: the images, what each query found, the name of the network, and notes for the user."""

    searched: Index
    found: tuple[Found, ...]
    model: str
    notes: tuple[str, ...]
    seconds: float

    @property
    def broken(self) -> tuple[Broken, ...]:
        """The images that could not be searched."""
        return self.searched.broken

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "images": len(self.searched.rows),
            "model": self.model,
            "queries": [one.to_dict() for one in self.found],
            "broken": [{"path": one.id, "error": one.why} for one in self.broken],
            "notes": list(self.notes),
        }


def search_folder(
    source: str,
    texts: Sequence[str],
    options: SearchOptions,
    device: str = "auto",
    progress: Progress | None = None,
) -> Result:
    """Return the images of a folder, an archive or a table that are most similar to texts, images or both.

    Vectors are cached by content: another search of the same folder with the same network computes the query only.

    Raises:
        UsageError: nothing is searched, or a text is empty.
        SettingError: `top` is no number of images, or words are asked of a network without a text tower.
        DataError: the folder has no image that can be read.
        WeightsError: the network is not here and cannot be fetched.
    """
    refuse_empty(texts, options.like)
    if options.top < 1:
        raise SettingError(f"--top {options.top} lists nothing. Choose 1 or more.")
    images = list_images(find(source))
    model = open_model(options.model, device, words=bool(texts))
    contents = contents_of(images, progress)
    index = index_of(contents, model.frozen, progress)
    plan = model.frozen.backend(contents.manifest(), index.rows)
    asked = asked_for(texts, options.like, model, index, plan)
    limits = _limits(model, index, texts, options.like)
    began = time.perf_counter()
    found = tuple(search(index, asked.queries, options.top, limits))
    took = time.perf_counter() - began
    notes = (*index.notes, *model.notes, *asked.notes, *remarks(found))
    return Result(index, found, options.model or model.name, notes, took)


def _limits(model: SearchModel, index: Index, texts: Sequence[str], likes: Sequence[str]) -> Limits:
    """Return the limits that these queries need."""
    words = model.words if texts and not likes else None
    return Limits(
        None if words is None else text_limit(index, words.vectors),
        image_limit(index) if likes and not texts else None,
    )


def remarks(found: Sequence[Found]) -> list[str]:
    """Return what the scores mean, and how many matches say nothing."""
    said = [
        "The best match always exists: a score is a cosine, no probability that the image shows what was asked."
    ]
    sure = f"{1 - SHARE:.0%}".replace("%", " %")
    for kind, why in (
        (
            "text",
            f"what {sure} of unrelated texts (justice, a debt, …) do not exceed with their best match here",
        ),
        ("image", f"what {sure} of the folder's own images exceed with the image most similar to them"),
    ):
        some = [one for one in found if one.query.kind == kind]
        if not some:
            continue
        limit = some[0].limit
        if limit is None:
            said.append(
                "The folder has too few different images to say which scores are no better than chance."
            )
        else:
            weak = sum(one.weak for one in some)
            said.append(
                f"Scores up to {limit:.3f} are marked as weak ({count(weak, 'match', 'matches')}): {why}."
            )
    if any(one.query.kind == "both" for one in found):
        said.append(
            "For averages of texts and images it is not known which scores are no better than chance."
        )
    return said
