"""Search in 100,000 vectors: the product of one query beside its peers, and where the time of a whole command goes.

`python -m bench.search [VECTORS] [ROUNDS]`, by default 100,000 vectors of 512 numbers in float32 and 20 rounds. The
vectors are generated. Peers in the same process: NumPy's argpartition of a product, and scikit-learn's NearestNeighbors
(brute force, cosine), all on the threads that are stated (OMP_NUM_THREADS). The whole command: the vectors are in the
cache, 100,000 rows in the index, and a query of one text is encoded by a text tower of the size of CLIP ViT-B/32 with
random weights.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from bench.pairs import in_turn, machine, table
from vitrail.data.manifest import Row
from vitrail.layers.text_tower import TextTower
from vitrail.search.image_index import Index, unit
from vitrail.search.ranking import Limits, Query, image_limit, search
from vitrail.training.feature_files import read_matrix, write_all

WIDTH, TOP, TEXTS = 512, 10, 32


def generated(count: int, seed: int = 0) -> np.ndarray:
    """Return vectors of length 1: (count, WIDTH)."""
    return unit(np.random.default_rng(seed).standard_normal((count, WIDTH), dtype=np.float32))


def ways(index: Index, query: Query) -> Mapping[str, Callable[[], list[int]]]:
    """Return how the best matches are found, by name: ours, and its peers."""
    from sklearn.neighbors import NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=TOP, algorithm="brute", metric="cosine").fit(index.vectors)

    def ours() -> list[int]:
        return [one.row for one in search(index, [query], TOP, Limits(None, None))[0].matches]

    def numpy() -> list[int]:
        scores = index.vectors @ query.vector
        places = np.argpartition(-scores, TOP)[:TOP]
        return places[np.argsort(-scores[places])].tolist()

    def sklearn() -> list[int]:
        return neighbours.kneighbors(query.vector[None], return_distance=False)[0].tolist()

    return {"vitrail": ours, "numpy": numpy, "scikit-learn": sklearn}


def compare(index: Index, query: Query, rounds: int) -> None:
    """Print the times of ours and of its peers, in turn, after they agreed."""
    every = ways(index, query)
    answers = {name: call() for name, call in every.items()}
    assert len({tuple(one) for one in answers.values()}) == 1, answers
    found = in_turn(every, rounds)
    print(table(found, "vitrail", "queries", 1))


def whole(folder: Path, vectors: np.ndarray, index: Index, query: Query) -> None:
    """Print what the parts of a command take, once the vectors are known."""
    path = folder / "vectors.safetensors"
    hashes = [row.hash for row in index.rows]
    write_all(path, ["vectors"], {one: (vector,) for one, vector in zip(hashes, vectors, strict=True)})
    (folder / "index.json").write_text(
        json.dumps([[row.path, "", row.hash, [1, 2, 3]] for row in index.rows])
    )
    tower = TextTower(512, 12, 8).eval()

    def encode(texts: int) -> None:
        with torch.inference_mode():
            tower(torch.randint(1, 49000, (texts, 16)))

    parts: Mapping[str, Callable[[], object]] = {
        "load the list of files": lambda: [
            Row(*one[:3]) for one in json.loads((folder / "index.json").read_text())
        ],
        "load the vectors": lambda: unit(read_matrix(path, "vectors", hashes)),
        "encode a text": lambda: encode(1),
        f"encode {TEXTS} unrelated texts": lambda: encode(TEXTS),
        "limit of images": lambda: image_limit(index),
        "search": lambda: search(index, [query], TOP, Limits(None, None)),
    }
    for name, part in parts.items():
        part()
        took = []
        for _ in range(3):
            began = time.perf_counter()
            part()
            took.append(time.perf_counter() - began)
        print(f"{name:28} {1000 * min(took):8.1f} ms")


def main(count: int = 100_000, rounds: int = 20) -> None:
    """Print both tables."""
    print(machine(), f"{count:,} vectors of {WIDTH} numbers, {torch.get_num_threads()} threads")
    vectors = generated(count)
    rows = tuple(Row(f"{i}.jpg", f"{i}.jpg", hash=f"{i:032x}") for i in range(count))
    index = Index(Path(), rows, vectors, (), ())
    query = Query("q", "text", generated(1, 1)[0])
    compare(index, query, rounds)
    with tempfile.TemporaryDirectory() as folder:
        whole(Path(folder), vectors, index, query)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
