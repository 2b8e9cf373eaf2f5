"""The walkthrough as one self-contained page: a figure and the shape of every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitrail import plots
from vitrail.data.view import maps_in_original
from vitrail.explainers.permutation_test import Shuffled
from vitrail.explainers.walkthrough import Stage, Subject, Trace, whole_of
from vitrail.pages import render

RANDOM_HEAD = "a randomly initialized head: this prediction means nothing"

CLASSES = 4
"""Number of classes of a map that are drawn separately."""

MAP = 3
"""Number of axes of a map: class, row, column."""

SET = 2
"""Number of axes of a set: query, number."""

LINES = 400
"""Largest number of tokens drawn of a matrix: a page cannot show more separate lines."""


@dataclass(frozen=True)
class Step:
    """One step on the page: explanation, shape of the result, and figures with captions."""

    name: str
    words: str
    shape: str
    figures: tuple[tuple[str, str], ...]  # data: URI, caption

    def to_dict(self) -> dict[str, str]:
        """Return name and shape."""
        return {"step": self.name, "shape": self.shape}


def steps(subject: Subject, walk: Trace) -> list[Step]:
    """Return the steps of a walkthrough with their figures."""
    patch: int = subject.network.encoder.config.patch
    chosen = _highest_contrast(walk.rows, walk.pixels.shape[0])
    return [
        _picture(subject, walk),
        _patches(walk, patch, chosen),
        _row(walk, patch, chosen),
        _projection(walk, chosen),
        _positions(subject, walk),
        _encoder(subject, walk),
        *(_stage(walk, one) for one in walk.stages),
        _head(subject, walk),
    ]


def page(subject: Subject, walk: Trace, drawn: list[Step], shuffled: Shuffled, picture: str) -> str:
    """Return the HTML page of a walkthrough and its shuffle test."""
    values = {
        "model": subject.name,
        "trained": subject.trained,
        "answers": subject.answers,
        "picture": picture,
        "steps": drawn,
        "way_off": walk.way_off,
        "shuffled": plots.photo_uri(plots.shown(_image(shuffled.pixels))),
        "rows": [
            ("with positions", shuffled.with_positions),
            ("without positions", shuffled.without),
        ],
    }
    return render("pipeline.html", values)


def _picture(subject: Subject, walk: Trace) -> Step:
    steps = subject.preprocess
    mean, std = (", ".join(f"{one:.3g}" for one in many) for many in (steps.mean, steps.std))
    words = (
        f"The input of the network: the resized image ({steps.fit}). Every colour value, from 0 to 1, is normalized: "
        f"minus the mean of its channel ({mean}), divided by the deviation ({std})."
    )
    shown = plots.photo_uri(plots.shown(_image(walk.pixels)))
    return Step("Picture", words, _shape("channels × height × width", walk.pixels), ((shown, "the input"),))


def _patches(walk: Trace, patch: int, chosen: int) -> Step:
    row, col = walk.grid
    apart = plots.squares_apart(_image(walk.pixels), patch, chosen)
    words = (
        f"The image is cut into {row} × {col} squares of {patch} × {patch} pixels; each becomes one token."
    )
    shape = f"{row * col} patches × {walk.pixels.shape[0]} × {patch} × {patch}"
    return Step(
        "Patches", words, shape, ((plots.photo_uri(apart, 90), "the framed patch is followed below"),)
    )


def _row(walk: Trace, patch: int, chosen: int) -> Step:
    channels = walk.pixels.shape[0]
    numbers = walk.rows[chosen]
    top, left = (chosen // walk.grid[1]) * patch, (chosen % walk.grid[1]) * patch
    square = plots.shown(_image(walk.pixels[:, top : top + patch, left : left + patch]))
    by_channel = plots.signed(_array(numbers.view(channels, -1)))
    words = f"One patch, flattened channel by channel ({channels}), is a row of {len(numbers)} numbers."
    caption = f"the row, one line a channel; red above 0, blue below; the largest is ±{float(numbers.abs().max()):.2g}"
    shape = f"1 × {len(numbers)}"
    figures = ((plots.data_uri(square), f"patch {chosen}"), (plots.data_uri(by_channel), caption))
    return Step("One patch as a row", words, shape, figures)


def _projection(walk: Trace, chosen: int) -> Step:
    wide, d = walk.rows.shape[1], walk.tokens.shape[1]
    words = (
        f"Every row is multiplied by the same learned matrix E of {wide} × {d}, plus a bias (eq. 1). The network "
        f"computes this as a convolution; the matrix product differs from it by at most {walk.projection_off:.1g}."
    )
    figures = (
        (plots.data_uri(plots.signed(_array(walk.tokens[chosen][None]))), f"token {chosen}: {d} numbers"),
        _matrix(walk.tokens, "the tokens"),
    )
    return Step("Projection", words, _shape("tokens × width", walk.tokens), figures)


def _positions(subject: Subject, walk: Trace) -> Step:
    prefix = subject.network.spec.prefix
    front = f"In front: {', '.join(prefix)}. " if prefix else "There is no class token. "
    if walk.places.any():
        words = "A learned vector is added for every position (eq. 1): without it the order of the patches is lost."
    else:
        words = "This network adds no position vectors."
        if subject.network.encoder.config.position == "relative":
            words = "This network adds no position vectors; its attention uses relative positions."
    figures = [_matrix(walk.placed, "the input of the first block")]
    if walk.places.any():
        figures.insert(0, _matrix(walk.places, "the position vectors"))
    return Step(
        "Class token and positions", front + words, _shape("tokens × width", walk.placed), tuple(figures)
    )


def _encoder(subject: Subject, walk: Trace) -> Step:
    depth, heads = len(walk.layers), walk.maps[0].weights.shape[1]
    n = len(walk.placed)
    words = (
        f"{depth} equal blocks (eqs. 2 and 3): the tokens attend to each other with {heads} heads, {n} × {n} weights "
        "each, and an MLP transforms each token separately. The shape does not change."
    )
    figures = []
    for layer in sorted({0, depth // 2, depth - 1}):
        looks = _looks(subject, walk, layer)
        caption = f"block {layer + 1}: where {_asker(subject)} looks, mean over heads"
        figures.append((plots.photo_uri(plots.heat(_large(walk), looks)), caption))
    figures.append(_matrix(walk.layers[-1], "the tokens after the last block"))
    shape = f"{depth} × ({n} tokens × {walk.placed.shape[1]} width)"
    return Step("Encoder", words, shape, tuple(figures))


def _stage(walk: Trace, stage: Stage) -> Step:
    figures = tuple((_drawn(walk, one), caption) for caption, one in stage.maps)
    return Step(stage.name, stage.words, _shape("numbers × rows × columns", stage.maps[-1][1]), figures)


def _drawn(walk: Trace, values: Tensor) -> str:
    """Draw a map (d, row, col): a single number a cell as heat over the input, several numbers as colours."""
    if len(values) > 1:
        return plots.data_uri(plots.shown(_in_colours(values)))
    return plots.photo_uri(
        plots.heat(_large(walk), _array(maps_in_original(whole_of(walk.pixels), values)[0]))
    )


def _in_colours(values: Tensor) -> Image.Image:
    """Draw a map (d, row, col): its first three principal components as red, green and blue."""
    rows = values.double().flatten(1).T
    centred = rows - rows.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred)[1][:, -3:].flip(1)
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    shown = centred @ (axes * signs)
    low, high = shown.quantile(0.02, 0), shown.quantile(0.98, 0)
    levels = ((shown - low) / (high - low).clamp(min=1e-12)).clamp(0, 1) * 255
    return plots.of_array(levels.round().to(torch.uint8).view(*values.shape[1:], -1).numpy())


def _head(subject: Subject, walk: Trace) -> Step:
    if walk.logits.ndim == MAP:
        return _map_head(subject, walk)
    if walk.logits.ndim == SET:
        return _set_head(subject, walk)
    words = (
        f"After a last norm (eq. 4), the head reads {subject.network.head.words} and returns one number per class; "
        "converted to probabilities, they are the prediction."
    )
    drawn = subject.task.render(_large(walk), walk.answer)
    caption = "the prediction" if subject.answers else RANDOM_HEAD
    return Step("Head", words, f"{len(walk.logits)} classes", ((plots.photo_uri(drawn, 90), caption),))


def _map_head(subject: Subject, walk: Trace) -> Step:
    """Draw a head with one output per class and cell: the most frequent classes, and the prediction."""
    shares = walk.logits.softmax(0)
    k, row, col = shares.shape
    height, width = walk.pixels.shape[1:]
    words = (
        f"The head reads {subject.network.head.words} and returns one number per class for each of {row} × {col} "
        f"cells, {height / row:g} × {width / col:g} px each. They are resized to the pixels of the image; the largest "
        "number is the class of a pixel."
    )
    figures = []
    for place in shares.mean((1, 2)).argsort(descending=True)[:CLASSES].tolist():
        share = maps_in_original(whole_of(walk.pixels), shares[place][None])[0]
        drawn = plots.heat(_large(walk), _array(share))
        figures.append((plots.photo_uri(drawn), f"how probable {subject.task.labels[place]} is"))
    answer = plots.photo_uri(subject.task.render(_large(walk), walk.answer), 90)
    caption = "the prediction" if subject.answers else RANDOM_HEAD
    return Step("Classes", words, f"{k} classes × {row} × {col}", (*figures, (answer, caption)))


def _set_head(subject: Subject, walk: Trace) -> Step:
    """Draw the prediction of a head with one output per query."""
    many, k = len(walk.logits), len(subject.task.labels)
    words = (
        f"The head reads {subject.network.head.words} and returns a place and one number per class for each of {many} "
        "queries. Each object of a training image was learned by one query alone, so none is answered twice; most "
        "queries see no object."
    )
    drawn = plots.photo_uri(subject.task.render(_image(walk.pixels), walk.answer), 90)
    caption = "the prediction" if subject.answers else RANDOM_HEAD
    return Step("Objects", words, f"{many} queries × {k} classes", ((drawn, caption),))


def _matrix(tokens: Tensor, words: str) -> tuple[str, str]:
    """Draw tokens (n, d), one per line; if there are many, only every n-th, so that screens can separate them."""
    step = -(-len(tokens) // LINES)
    lines = "one per line" if step == 1 else f"one of every {step}, one per line"
    return plots.data_uri(plots.signed(_array(tokens[::step]))), f"{words}, {lines}"


def _looks(subject: Subject, walk: Trace, layer: int) -> NDArray[np.float32]:
    """Return the attention of the class token (or the mean of all patches) in one block: (row, col)."""
    prefix = subject.network.spec.prefix
    weights = walk.maps[layer].dense()[0].mean(0)
    row = weights[prefix.index("cls")] if "cls" in prefix else weights.mean(0)
    return _array(row[len(prefix) :].view(*walk.grid))


def _asker(subject: Subject) -> str:
    return "the class token" if "cls" in subject.network.spec.prefix else "the mean of all patches"


def _highest_contrast(rows: Tensor, channels: int) -> int:
    """Return the patch with the highest contrast: a uniform one shows nothing."""
    return int(rows.view(len(rows), channels, -1).std(-1).mean(-1).argmax())


def _shape(axes: str, tensor: Tensor) -> str:
    return f"{' × '.join(map(str, tensor.shape))} ({axes})"


def _array(tensor: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().float().numpy()
    return array


def _large(walk: Trace) -> Image.Image:
    """Return the input, enlarged so that text drawn on it is readable."""
    return plots.shown(_image(walk.pixels), 448)


def _image(pixels: Tensor) -> Image.Image:
    array = pixels.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    return plots.of_array(array[..., :3] if array.shape[-1] >= 3 else array[..., :1])
