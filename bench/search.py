"""How long a search takes in 100,000 images: one query against their vectors, in turn with other ways.

`python -m bench.search [--images 100000] [--width 512] [--rounds 15]`

The vectors are random and of length 1, in float32. Ours is what `vitrail search` runs once the vectors are known: one
matrix product, the best 10, equal images taken together, and the limit of matches that say nothing. Beside it the same
ten by scikit-learn (brute force, cosine) and by NumPy with argpartition. Says whether all three find the same images.
Then where the time of a whole command goes, with vectors in the cache and a text tower of the size of CLIP ViT-B/32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from bench.pairs import in_turn, machine, table
from vitrail.data.manifest import Row
from vitrail.layers.text_tower import TextTower
from vitrail.search.image_index import Floats, Index, unit
from vitrail.search.ranking import UNRELATED, Limits, Query, image_limit, search
from vitrail.training.feature_files import read_matrix, write_all

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

    def partitioned() -> list[int]:
        scores = vectors @ query[0]
        places = np.argpartition(-scores, TOP)[:TOP]
        return places[np.argsort(-scores[places])].tolist()

    ways = {"vitrail": ours, "scikit-learn, brute": neighbours, "NumPy, argpartition": partitioned}
    found = {name: way() for name, way in ways.items()}
    print(table(in_turn(ways, asked.rounds), "vitrail", "query", 1))
    print("the same images:", len({tuple(one) for one in found.values()}) == 1)
    print(f"{asked.images:,} vectors of {asked.width} numbers; {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        parts(Path(folder), index, query[0])


def parts(folder: Path, index: Index, query: Floats) -> None:
    """Print the fastest of three times of each part of a command."""
    path, hashes = folder / "vectors.safetensors", [row.hash for row in index.rows]
    write_all(path, ["vectors"], {one: (vector,) for one, vector in zip(hashes, index.vectors, strict=True)})
    record = folder / "index.json"
    record.write_text(json.dumps([[row.path, "", row.hash, [1, 2, 3]] for row in index.rows]))
    tower = TextTower(512, 12, 8).eval().requires_grad_(False)
    tokens = torch.randint(1, 49_000, (len(UNRELATED), 16))
    of_part: dict[str, Callable[[], object]] = {
        "load the record of the files": lambda: [Row(*one[:3]) for one in json.loads(record.read_text())],
        "load the vectors": lambda: unit(np.asarray(read_matrix(path, "vectors", hashes))),
        "encode a text": lambda: tower(tokens[:1]),
        "encode the unrelated texts": lambda: tower(tokens),
        "limit of similar images": lambda: image_limit(index),
        "search": lambda: search(index, [Query("q", "text", query)], TOP, Limits(None, None)),
    }
    for name, part in of_part.items():
        found = in_turn({name: part}, 3, 1)[name]
        print(f"{name:30} {1000 * min(found):8.1f} ms")


if __name__ == "__main__":
    main()
