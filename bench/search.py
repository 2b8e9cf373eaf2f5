"""How long a search takes in 100,000 images: one query against their vectors, in turn with other ways.

`python -m bench.search [--images 100000] [--width 512] [--rounds 15]`

The vectors are random and of length 1, in float32. Ours is what `vitrail search` runs once the vectors are known: one
matrix product, the best 10, equal images taken together, and the limit of matches that say nothing. Beside it the same
ten by scikit-learn (brute force, cosine) and by NumPy with a full sort. Says whether all three find the same images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.neighbors import NearestNeighbors

from bench.pairs import in_turn, machine, table
from vitrail.data.manifest import Row
from vitrail.search.image_index import Index, unit
from vitrail.search.ranking import Limits, Query, search

TOP = 10


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    draw = np.random.default_rng(0)
    vectors = unit(draw.standard_normal((asked.images, asked.width), dtype=np.float32))
    rows = tuple(
        Row(f"{number:06}.jpg", f"{number:06}.jpg", hash=f"{number:x}") for number in range(asked.images)
    )
    index = Index(Path(), rows, vectors, (), ())
    query = unit(draw.standard_normal((1, asked.width), dtype=np.float32))
    limits = Limits(0.0, 0.0)
    brute = NearestNeighbors(n_neighbors=TOP, algorithm="brute", metric="cosine").fit(vectors)

    def ours() -> list[int]:
        return [one.row for one in search(index, [Query("q", "text", query[0])], TOP, limits)[0].matches]

    def neighbours() -> list[int]:
        found: list[int] = brute.kneighbors(query, return_distance=False)[0].tolist()
        return found

    def sorted_whole() -> list[int]:
        return np.argsort(-(vectors @ query[0]), kind="stable")[:TOP].tolist()

    ways = {"vitrail": ours, "scikit-learn, brute": neighbours, "NumPy, full sort": sorted_whole}
    found = {name: way() for name, way in ways.items()}
    print(table(in_turn(ways, asked.rounds), "vitrail", "query", 1))
    print("the same images:", len({tuple(one) for one in found.values()}) == 1)
    print(f"{asked.images:,} vectors of {asked.width} numbers; {machine()}")


if __name__ == "__main__":
    main()
