"""How often the limit of "none of these" errs, on generated similarities of images and words.

`python -m bench.none_limit [SETS]`, by default 60 sets a row. An image that shows a word is five spreads more similar
to it than others are; words have levels of their own, and images, too. "heavy": the similarities have Student's
distribution with 4 degrees of freedom instead of a normal one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np

from vitrail.search.none_limit import fit_limit

LIFT = 5.0


def generated(words: int, images: int, none: float, heavy: bool, seed: int) -> tuple[np.ndarray, ...]:
    """Return cosines (images, words), those with 12 neutral texts, and the word that each image shows, -1 for none."""
    draw = np.random.default_rng(seed)
    truth = np.where(draw.random(images) < none, -1, draw.integers(0, words, images))
    noise = draw.standard_t(4, (images, words)) if heavy else draw.normal(size=(images, words))
    scores = 1.5 * draw.normal(size=words) + noise + 0.7 * draw.normal(size=(images, 1))
    shown = truth >= 0
    scores[shown, truth[shown]] += LIFT + 0.7 * draw.normal(size=shown.sum())
    neutral = draw.normal(size=12) + draw.normal(size=(images, 12))
    return 0.2 + 0.02 * scores, 0.2 + 0.02 * neutral, truth


def rows(sets: int) -> Iterator[str]:
    """Yield a row of the table for each number of words and images, each share of none, and each distribution."""
    for heavy in (False, True):
        for words in (1, 2, 3, 5, 10, 50):
            for images in (50, 100, 500):
                for none in (0.1, 0.5, 0.9):
                    yield _row(words, images, none, heavy, sets)


def _row(words: int, images: int, none: float, heavy: bool, sets: int) -> str:
    named, missed, told, measured = [], [], [], []
    for seed in range(sets):
        scores, neutral, truth = generated(words, images, none, heavy, seed)
        found = fit_limit(scores, neutral)
        assert found is not None
        named += (~found.none)[(truth < 0) & found.told].tolist()
        missed += found.none[truth >= 0].tolist()
        told.append(float(found.told.mean()))
        measured += [] if found.measured is None else [found.measured.share]
    shares = (np.mean(one) if one else np.nan for one in (named, missed, told, measured))
    cells = " | ".join(f"{100 * share:.0f} %" for share in shares)
    return f"| {words} | {images} | {none:.0%} | {'heavy' if heavy else 'normal'} | {cells} |"


def main(sets: int = 60) -> None:
    """Print the table."""
    print("| words | images | none | similarities | none, named | shown, missed | told of | measured |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows(sets):
        print(row, flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
