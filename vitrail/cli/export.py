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
    json: bool = False,
) -> int:
    """Write a trained model for other programs, once both were seen to give the same answers.

    Graphs (onnx, openvino, torch) take raw images, uint8 height x width x channels of any size, and give named
    probabilities; everything in between is inside. At least 200 of the run's images in many sizes are asked of
    both; nothing is written where a probability drifts by more than 0.001 or a top answer changes. What OpenVINO says
    at its own default, and a library through its own preparation, is measured too and said.

        vitrail export runs/photos
        vitrail predict photos.onnx new/*.jpg
        vitrail export runs/photos --format timm

    Parameters
    ----------
    model
        a run folder, or a model.safetensors with --data
    format
        onnx, openvino, torch, timm or huggingface
    out
        file or folder to write; by default the run's name here
    data
        images to prove it on, where the run's own have moved
    attention
        add an output: where the class token looks
    batch
        let a graph take images of one size together: batch x height x width x channels
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import model_there

    model_there(model)
    from vitrail.export.export import export as write

    done = write(model, format, out, data=data, attention=attention, batch=batch)
    if json:
        print_json(done.to_dict())
    else:
        sys.stdout.write(f"{done.path} ({done.bytes / 1e6:.1f} MB)\n")
    say(f"Checked: {done.agreement}.")
    if done.left_out:
        say(
            f"{done.left_out:,} images changed since the training, or cannot be read: they prove nothing here."
        )
    for note in done.proven.notes:
        say(note)
    return 0
