"""A page of explanations of one photograph, ViT-S/14: seconds and forwards with and without tests, and the verdicts.

`python -m bench.explain_page [IMAGES] [--size 224] [--old COMMIT] [--rounds 3] [--run RUN --photos FOLDER]`. A draft is
trained on photographs as in `bench/draft.py`, or RUN is used. Whole commands take turns with those of an old commit.
Then the tests of IMAGES photographs, at `--size`, by the procedure before bf16 (float32, shuffled networks occluded at
every cell) and by the one of today: in how many are the verdicts equal? Wants ../shared.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from statistics import median

from bench.draft import SHARED, photographs
from bench.golden import environment
from bench.pairs import in_turn, machine, ratio
from vitrail.explainers.explanation import Explanation, ImageExplainer, ScoringNetworks
from vitrail.explainers.explanation_page import every, recommend
from vitrail.explainers.faithfulness import Baseline, tested
from vitrail.explainers.methods import build_explainer
from vitrail.explainers.target import Subject
from vitrail.infer.predictor import Predictor

WEIGHTS = SHARED / "weights" / "dinov2-small-saliency"
REPOSITORY = Path(__file__).resolve().parents[1]
SIDE = Path(__file__).with_name("explain_page_side.py")


def draft(photos: Path, size: int, out: Path) -> Path:
    """Train a draft at a size and return its run."""
    words = ["train", str(photos), "--weights", str(WEIGHTS), "--imgsz", str(size), "--out", str(out)]
    command = [sys.executable, "-m", "vitrail.cli.main", *words]
    subprocess.run(command, check=True, env={**os.environ}, capture_output=True)
    return out


def code_of(commit: str, folder: Path) -> Path:
    """Return a folder with the package of a commit."""
    command = ["git", "-C", str(REPOSITORY), "archive", commit, "vitrail"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as opened:
        opened.extractall(folder, filter="data")
    return folder


def forwarded(tree: Path, words: Sequence[str], folder: Path) -> int:
    """Run a command line with the code of a tree, and return how many images its networks embedded."""
    command = [sys.executable, "-P", str(SIDE), *words, "--out", str(folder / "explained")]
    done = subprocess.run(command, env=environment(tree, folder), capture_output=True, text=True, check=True)
    return int(done.stderr.split()[-1])


def commands(trees: dict[str, Path], run: Path, photo: Path, folder: Path, rounds: int) -> None:
    """Print seconds and forwards of whole commands, old and new in turn."""
    print("| vitrail explain RUN PHOTO | code | images forwarded | s, median | new is faster by |")
    print("|---|---|---|---|---|")
    for name, more in (("with tests", []), ("--no-check", ["--no-check"])):
        words = ["explain", str(run), str(photo), *more]
        counts = {side: forwarded(tree, words, folder) for side, tree in trees.items()}
        times = in_turn(
            {
                side: lambda tree=tree, words=words: forwarded(tree, words, folder)
                for side, tree in trees.items()
            },
            rounds,
        )
        for side, seconds in times.items():
            faster = "–" if side == "new" else str(ratio(times["new"], seconds))
            print(f"| {name} | {side} | {counts[side]} | {median(seconds):.1f} | {faster} |", flush=True)


def old_tests(
    look: ImageExplainer, found: Sequence[Explanation], networks: ScoringNetworks
) -> list[Explanation]:
    """Return explanations with the tests of the old procedure; the maps too are made again, in float32."""
    plain = look.subject()
    subject = Subject(plain.network, plain.task, plain.prediction, plain.name)
    baseline = Baseline(subject, look.ready.pixels)
    twins = [subject.in_network(twin.network) for twin in networks.twins]
    results = []
    for one in found:
        explainer = build_explainer(one.method)
        grid = explainer(subject, look.ready.pixels[None])[0].float().numpy()
        results.append(Explanation(**{**vars(one), "faithful": tested(explainer, grid, baseline, twins)}))
    return results


def verdict(one: Explanation) -> str:
    """Return the verdict of a tested explanation, as the page has it."""
    assert one.faithful is not None
    return "faithful" if one.faithful.holds else "not conclusive" if one.faithful.nothing else "doubtful"


def verdicts(predictor: Predictor, photos: Sequence[Path]) -> None:
    """Print in how many images the verdicts of both procedures are equal, and every difference."""
    networks = ScoringNetworks(predictor)
    equal, same_words, same_method = 0, 0, 0
    for photo in photos:
        look = ImageExplainer(predictor, photo, networks)
        found, _ = every(look)
        new = [look.test(one) for one in found]
        old = old_tests(look, found, networks)
        pairs = [(a, b) for a, b in zip(old, new, strict=True) if verdict(a) != verdict(b)]
        equal += not pairs
        same_words += [one.faithful.words for one in old if one.faithful] == [
            one.faithful.words for one in new if one.faithful
        ]
        same_method += recommend(old) == recommend(new)
        for a, b in pairs:
            print(
                f"{photo.name}, {a.method}: {verdict(a)} → {verdict(b)}\n  {a.faithful}\n  {b.faithful}",
                flush=True,
            )
    print(
        f"{len(photos)} images: verdicts of all methods equal in {equal}, with the same words in {same_words}, "
    )
    print(f"the same recommendation in {same_method}", flush=True)


def main() -> None:
    words = argparse.ArgumentParser(prog="bench.explain_page")
    words.add_argument("images", nargs="?", type=int, default=20)
    words.add_argument("--size", type=int, default=224)
    words.add_argument("--old", default="")
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--run", type=Path)
    words.add_argument("--photos", type=Path)
    asked = words.parse_args()
    if not WEIGHTS.exists() and not (asked.run and asked.photos):
        print("skipped: ../shared/weights is not here")
        return
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        photos = asked.photos or folder / "photos"
        if not asked.photos:
            photographs(photos)
        files = sorted(photos.rglob("*-0.jpg")) or sorted(photos.rglob("*.jpg"))
        if asked.rounds:
            trees = {"old": code_of(asked.old, folder / "old")} if asked.old else {}
            run = asked.run or draft(photos, 224, folder / "run224")
            commands({**trees, "new": REPOSITORY}, run.resolve(), files[0].resolve(), folder, asked.rounds)
        if asked.images:
            run = asked.run or draft(photos, asked.size, folder / f"run{asked.size}")
            verdicts(Predictor(run), files[: asked.images])


if __name__ == "__main__":
    main()
