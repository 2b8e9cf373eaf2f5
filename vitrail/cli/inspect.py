"""vitrail inspect."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def inspect(
    run: str = "",
    images: tuple[str, ...] = (),
    /,
    *,
    pipeline: str | None = None,
    model: str | None = None,
    weights: str | None = None,
    out: str = "inspect",
    json: bool = False,
    device: str = "auto",
) -> int:
    """Show the inside of a network, or the steps of one image through it.

    For a run: its first filters, its position embeddings, and the attention distance of its heads, averaged over
    images: the named ones, or the run's own validation images. If an image cannot be read, the error is reported and
    the exit code is 1. With --pipeline: a figure and the shape of every step of one image, and how the prediction
    changes if the patches are shuffled, with and without positions.

        vitrail inspect runs/photos
        vitrail inspect dinov2_small.safetensors photos/
        vitrail inspect --pipeline cat.jpg --model vit_b16
        vitrail inspect runs/photos --pipeline cat.jpg

    Parameters
    ----------
    run
        a run folder, a model.safetensors, a checkpoint, or the name of a network or of published weights
    images
        files, folders, patterns or zip files; 32 images are used, fewer if they are large, at least 4
    pipeline
        the image whose steps are drawn
    model
        with --pipeline, instead of a run: a network by name (a ViT, DeiT or DINOv2)
    weights
        with --model: none (randomly initialized, the default), auto, a file, or a published name
    out
        folder for the page and the figures
    json
        print one JSON value with the numbers, for programs
    device
        auto, cpu, cuda, mps
    """
    from vitrail.core.errors import SettingError

    if weights and not model:
        raise SettingError(
            "--weights belongs to --model: vitrail inspect --pipeline cat.jpg --model vit_b16 --weights auto"
        )
    if pipeline is None:
        if not run or model:
            raise SettingError(
                "Name a run (vitrail inspect runs/photos), or an image and a network: "
                "vitrail inspect --pipeline cat.jpg --model vit_b16"
            )
        return _analyse(run, images, Path(out), json, device)
    if bool(run) == bool(model) or images:
        raise SettingError(
            "Name one image, and a run or a network: vitrail inspect --pipeline cat.jpg --model vit_b16"
        )
    return _pipeline(run or str(model), weights or "none", Path(pipeline), Path(out), json)


def _analyse(run: str, images: tuple[str, ...], out: Path, json: bool, device: str) -> int:
    from vitrail.cli.output import print_json, say, unread
    from vitrail.core.files import refuse_unwritable_folder
    from vitrail.explainers.network_analysis import look_inside
    from vitrail.explainers.network_page import write_inside
    from vitrail.explainers.open_encoder import batches, open_encoder, own_batches

    refuse_unwritable_folder(out)
    opened = open_encoder(run, device)
    asked = list(batches(opened, images) if images else own_batches(opened, run))
    errors = [one for one in asked if isinstance(one, str)]
    for error in errors:
        say(error)
    if errors and len(errors) == len(asked):
        say(unread(len(errors), len(asked)))
        return 1
    shown = [one for one in asked if not isinstance(one, str)]
    found = look_inside(opened.name, opened.encoder, shown)
    if json:
        print_json(found.to_dict())
    else:
        sys.stdout.write("\n".join(found.lines()) + "\n")
    sys.stdout.flush()
    say(f"{opened.name} -> {write_inside(found, out)}")
    if errors:
        say(unread(len(errors), len(asked)))
    return 1 if errors else 0


def _pipeline(model: str, weights: str, picture: Path, out: Path, json: bool) -> int:
    from vitrail.cli.output import print_json, say
    from vitrail.core.files import refuse_unwritable_folder, write_text

    page = out / "pipeline.html"
    refuse_unwritable_folder(out)
    report, html = _trace_image(model, weights, picture)
    if json:
        print_json(report | {"page": str(page)})
    else:
        lines = [f"{step['step']:<26} {step['shape']}" for step in report["steps"]]
        for name, found in report["shuffle"].items():
            change = f"{found['followed']} changes by up to {found['largest_change']:.2g}"
            lines.append(f"{'Shuffled, ' + name:<26} {change if found['changed'] else 'the same answer'}")
        sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
    write_text(page, html)
    say(f"{report['model']} -> {page}")
    return 0


def _trace_image(model: str, weights: str, picture: Path) -> tuple[dict[str, Any], str]:
    """Return the steps of an image through a network, as plain data and as an HTML page."""
    from vitrail.explainers.permutation_test import shuffle_test
    from vitrail.explainers.walkthrough import open_subject, trace
    from vitrail.explainers.walkthrough_page import page as drawn_page
    from vitrail.explainers.walkthrough_page import steps

    subject = open_subject(model, weights)
    walked = trace(subject, picture)
    shuffled = shuffle_test(subject, walked.pixels)
    drawn = steps(subject, walked)
    report = {
        "model": subject.name,
        "trained": subject.trained,
        "steps": [step.to_dict() for step in drawn],
        "shuffle": {
            "with positions": shuffled.with_positions.to_dict(),
            "without positions": shuffled.without.to_dict(),
        },
    }
    return report, drawn_page(subject, walked, drawn, shuffled, picture.name)
