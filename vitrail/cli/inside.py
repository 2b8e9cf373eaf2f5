"""vitrail inside."""

from __future__ import annotations

import sys
from pathlib import Path


def inside(
    model: str,
    pictures: tuple[str, ...] = (),
    /,
    *,
    out: str = "inside",
    json: bool = False,
    device: str = "auto",
) -> int:
    """Show what a network itself is: its first filters, its sense of place, and how far its heads look.

    How far heads look is averaged over pictures: those that are named, else a run's own validation pictures.

        vitrail inside runs/photos
        vitrail inside dinov2_small.safetensors photos/

    Parameters
    ----------
    model
        a run folder, a model.safetensors, a checkpoint or the name of published weights
    pictures
        files, folders, patterns or zip files; 32 of them are looked at
    out
        folder for the page and the figures
    json
        print one JSON value with the numbers, for programs
    device
        auto, cpu, cuda
    """
    from vitrail.cli.output import print_json, say
    from vitrail.explainers.inside import look_inside
    from vitrail.explainers.inside_page import write_inside
    from vitrail.explainers.opened import batches, open_encoder, own_batches

    opened = open_encoder(model, device)
    shown = batches(opened, pictures) if pictures else own_batches(opened, model)
    found = look_inside(opened.name, opened.encoder, shown)
    page = write_inside(found, Path(out))
    if json:
        print_json(found.to_dict())
    else:
        sys.stdout.write("\n".join(found.lines()) + "\n")
    say(f"{opened.name} -> {page}")
    return 0
