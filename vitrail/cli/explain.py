"""vitrail explain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vitrail.explainers.method_options import MethodOptions

if TYPE_CHECKING:
    from vitrail.explainers.explain_images import Result


def explain(
    model: str,
    images: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)],
    /,
    *,
    method: str = "page",
    of: str | None = None,
    out: str = "explained",
    options: Annotated[MethodOptions, Parameter(name="*")] = MethodOptions(),
    json: bool = False,
    device: str = "auto",
) -> int:
    """Show where a model looked for its prediction, in pixels of the image, and how far to trust this.

    Without --method every image gets a page: all methods that fit, maps for the next classes, attention in every
    layer and head. Each map is tested against random order and against a network with shuffled weights.

        vitrail explain runs/photos cat.jpg
        vitrail explain runs/photos cat.jpg --method relevance --of tabby --out figures/
        vitrail explain runs/photos new/ --method all
        vitrail explain runs/photos cat.jpg --method attention --layer 3 --head 2 --query 5,7
        vitrail explain runs/street drive.jpg --of pole --at 310,120
        vitrail explain runs/photos cat.jpg --point 160px/merge8

    Parameters
    ----------
    model
        a run folder, a model.safetensors, or published weights: a timm name, org/repo, a folder
    images
        files, folders, patterns, zip or tar files, or - for standard input
    method
        page, rollout, relevance, gradcam, occlusion, attention, or all: every method that fits, except attention,
        side by side
    of
        the class to explain, by default the predicted one; of a model of captions any text, such as "red bus"
    out
        folder for the pages and figures
    json
        print one JSON value with maps and tests, for programs
    device
        auto, cpu, cuda, mps
    """
    from vitrail.cli.output import print_json, say, unread
    from vitrail.cli.path_checks import model_file, model_there
    from vitrail.core.errors import UsageError

    if not images:
        raise UsageError("Name images to look at: vitrail explain runs/photos cat.jpg")
    model_there(model)
    from vitrail.explainers.explain_images import Wish, explain_all, summary
    from vitrail.infer.inputs import expand
    from vitrail.infer.predictor import Predictor

    model = model_file(model)
    if options.at is not None:
        of = f"{of or ''} at {options.at}".strip()
    wish = Wish(method, of, Path(out), options.check, options.given())
    results = []
    predictor = Predictor(model, device, options.point)
    predictor.answering()
    piped = sys.stdin.buffer.read() if "-" in images else None
    for result in explain_all(
        predictor, expand(images, piped, say, clips=predictor.preprocess.frames > 0), wish
    ):
        results.append(result)
        say(result.error or f"{result.path}: {result.answer} -> {result.file}")
    if json:
        print_json([one.to_dict() for one in results])
    elif any(one.explanations for one in results):
        lines = "\n".join(summary(results))
        sys.stdout.write(f"{_table(results)}\n\n{lines}\n" if options.check else "")
        if lines and not options.check:
            say(lines)
    failed = [one for one in results if one.error]
    if failed:
        done = "read" if all(one.unread for one in failed) else "explained"
        say(unread(len(failed), len(results), done))
    return 1 if failed else 0


def _table(results: list[Result]) -> str:
    """Return a table of the tests of every map."""
    from vitrail.cli.output import table

    rows = [
        [Path(result.path).name, one.of, one.method, str(f.deletion), str(f.insertion), f"{f.alike:z.2f}"]
        for result in results
        for one in result.explanations
        if (f := one.faithful)
    ]
    head = ["picture", "explained", "method", "deletion", "insertion", "alike with shuffled weights"]
    return table(head, rows)
