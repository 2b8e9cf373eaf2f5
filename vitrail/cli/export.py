"""vitrail export."""

from __future__ import annotations

import sys


def export(
    model: str,
    /,
    *,
    format: str = "onnx",
    out: str | None = None,
    data: str | None = None,
    attention: bool = False,
    batch: bool = False,
    point: str | None = None,
    json: bool = False,
) -> int:
    """Export a trained model for other programs, after checking that both give the same predictions.

    Graphs (onnx, openvino, torch) take raw images, uint8 height x width x channels of any size, and return named
    probabilities; preprocessing is inside. At least 200 of the run's images in many sizes are compared; nothing is
    written if a probability differs by more than 0.001 or a top answer changes. OpenVINO in its default precision,
    and a library with its own preprocessing, are measured too and reported.

        vitrail export runs/photos
        vitrail predict photos.onnx new/*.jpg
        vitrail export runs/photos --format timm
        vitrail export tf_efficientnet_lite0 --data photos/
        vitrail export runs/photos --point 160px/merge8

    Parameters
    ----------
    model
        a run folder; or, with --data, a model.safetensors or published weights: a timm name, org/repo, a folder
    format
        onnx, openvino, torch, timm or huggingface
    out
        file or folder to write; by default the run's name, in the current folder
    data
        images for the check, if the run's own were moved
    attention
        add an output: the attention of the class token
    batch
        let a graph take several images of one size: batch x height x width x channels
    point
        operating point of the written network, one that was trained or measured (vitrail eval MODEL --points all):
        input size, share of kept tokens, pairs of merged patches; by default the whole network
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import images_named, model_file
    from vitrail.core.text import command

    images_named(model, data, command("export", model, "--data", "IMAGES"))
    from vitrail.export.export import export as write

    model = model_file(model)
    done = write(model, format, out, data=data, attention=attention, batch=batch, point=point, say=say)
    if json:
        print_json(done.to_dict())
    else:
        sys.stdout.write(f"{done.path} ({done.bytes / 1e6:.1f} MB)\n")
    say(f"Checked: {done.agreement}.")
    if done.left_out:
        say(
            f"{done.left_out:,} images changed since the training, or cannot be read: they were not used for the check."
        )
    for note in done.proven.notes:
        say(note)
    return 0
