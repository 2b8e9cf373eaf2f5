"""The page of the explanation of a clip: where and when the network looked, and how far to trust this."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitrail import plots
from vitrail.core.errors import MissingExtraError
from vitrail.core.files import replace
from vitrail.data.videos import write_video
from vitrail.explainers.attention_maps import looks_of
from vitrail.explainers.explanation import Explanation, ImageExplainer
from vitrail.explainers.explanation_page import WORDS, Gathered, Page, gain, gather, heading, recommend
from vitrail.explainers.fast_scores import precision_line
from vitrail.explainers.methods import compatible_methods
from vitrail.explainers.to_original import Map
from vitrail.layers.tokens import class_tokens
from vitrail.pages import render

WIDTH = 400
"""Largest width and height of a frame in the page, in pixels."""

MOST = 16
"""Largest number of frames that the page shows; the curve has all of them."""

ACROSS = 8
"""Frames in a row."""

EVEN = 1e-3
"""Largest range of a map, relative to its largest value, that counts as even."""

CURVE = (960, 150)
"""Width and height of the curve, in its own units."""


def build_clip_page(look: ImageExplainer, name: str, *, of: str | None = None, check: bool = True) -> Page:
    """Return the page of one clip: every method that fits, tested if `check` is True.

    The page is self-contained and needs no internet.
    """
    made = gather(look, of, check)
    first = made.found[0]
    chosen = _shown_frames(len(first.times))
    asked = first.asked
    methods = {one.method for one in made.found}
    values = {
        "name": name,
        "model": look.predictor.header.name,
        "answer": asked.answer if asked else str(look.prediction),
        "point": look.point,
        "heading": heading(first, "Where and when it looked"),
        "frames": _frames([plots.shown(one) for one in first.frames()], first, chosen),
        "across": min(ACROSS, len(chosen)),
        "all": len(first.times),
        "found": [_shown(one, chosen) for one in made.found],
        "beside": [_shown(one, chosen) for one in made.beside],
        "refused": made.refused,
        "cropped": bool(np.isnan(first.heat).any()),
        "words": [words for method, words in WORDS if method in methods],
        "verdict": recommend(made.found) if check else "",
        "precision": precision_line(look.precisions),
        "curve": (curve := _curve(made)),
        "places": [curve["across"][place] for place in chosen],
        "pause": _pause(first.times, len(chosen)),
        "looker": _looker(look.predictor.network.spec.prefix),
        "first": (best := first_specific(made.found)).method,
        "most": most_seen(best),
        **_attention(look, chosen),
    }
    return Page(render("explain_clip.html", values), (*made.found, *made.beside))


def write_animation(one: Explanation, path: Path) -> Path:
    """Write the clip beside itself with its heat, as mp4, or where PyAV is missing as GIF; return the path.

    `path` is that of the page; the name has a word more, so that a clip in the same folder is never overwritten.
    """
    path = path.with_name(f"{path.stem}.explained{path.suffix}")
    try:
        return _as_video(one, path.with_suffix(".mp4"))
    except MissingExtraError:  # a clip may be a folder of frames
        return _as_gif(one, path.with_suffix(".gif"))


def _as_video(one: Explanation, path: Path) -> Path:
    write_video(path, plots.animation(one.frames(), one.heat, one.times, one.shares), plots.RATE)
    return path


def _as_gif(one: Explanation, path: Path) -> Path:
    drawn = plots.animation(one.frames(), one.heat, one.times, one.shares)
    first, *others = [Image.fromarray(frame) for frame in drawn]
    options = {"save_all": True, "append_images": others, "duration": round(1000 / plots.RATE), "loop": 0}
    replace(path, lambda new: first.save(new, "GIF", **options))
    return path


def first_specific(found: Sequence[Explanation]) -> Explanation:
    """Return the explanation to animate: the faithful one with the largest gain, else one that knows the class."""
    passed = [one for one in found if one.faithful and one.faithful.holds]
    if passed:
        return max(passed, key=gain)
    specific = [one for one in found if one.method in ("relevance", "gradcam", "occlusion")]
    return (specific or list(found))[0]


def most_seen(one: Explanation) -> str:
    """Return a sentence that says which frame has the largest share."""
    shares = one.shares
    place = int(np.argmax(shares))
    if shares[place] < 1.1 / len(shares):
        return f"By {one.method}, all {len(shares)} frames count about equally."
    return (
        f"By {one.method}, the frame at {plots.seconds(one.times[place])} counts most: {shares[place]:.0%} of the "
        f"whole, where equal shares would be {1 / len(shares):.0%}."
    )


def _shown_frames(count: int) -> list[int]:
    """Return the places of the frames that the page shows: all, or some that are evenly spaced."""
    if count <= MOST:
        return list(range(count))
    return [(2 * turn + 1) * count // (2 * MOST) for turn in range(MOST)]


def _frames(pictures: Sequence[Image.Image], one: Explanation, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """Return frames for the page: their images, times and shares, and the heights of the bars in percent."""
    top = max(*one.shares, 1 / len(one.shares))
    made = []
    for place in chosen:
        picture = pictures[place].copy()
        picture.thumbnail((WIDTH, WIDTH))
        share = one.shares[place]
        made.append(
            {
                "image": plots.photo_uri(picture),
                "time": plots.seconds(one.times[place]),
                "share": f"{share:.0%}",
                "bar": round(100 * share / top, 1),
                "even": round(100 / len(one.shares) / top, 1),
            }
        )
    return made


def _shown(one: Explanation, chosen: Sequence[int]) -> dict[str, Any]:
    frames = _frames(one.heated_frames(), one, chosen)
    return {"method": one.method, "of": one.of, "frames": frames, "faithful": one.faithful}


def _curve(made: Gathered) -> dict[str, Any]:
    """Return the share of each frame by each method as points of lines, and the line of equal shares."""
    (width, height), count = CURVE, len(made.found[0].times)
    top = 1.1 * max(max(one.shares) for one in made.found)
    across = [round((place + 0.5) * width / count, 1) for place in range(count)]
    lines = []
    for one, colour in zip(made.found, plots.SERIES, strict=False):
        points = [
            (x, round(height * (1 - share / top), 1)) for x, share in zip(across, one.shares, strict=True)
        ]
        lines.append({"method": one.method, "colour": colour, "points": points})
    even = round(height * (1 - 1 / count / top), 1)
    equal = f"{1 / count:.0%}"
    return {"width": width, "height": height, "across": across, "lines": lines, "even": even, "equal": equal}


def _pause(times: Sequence[float], shown: int) -> int:
    """Return for how many milliseconds the page shows a frame: as in the clip, if that is neither hasty nor slow."""
    seconds = (times[-1] - times[0]) / max(1, shown - 1)
    return round(1000 * min(1.5, max(0.3, seconds)))


def _looker(prefix: tuple[str, ...]) -> str:
    classes = len(class_tokens(prefix))
    if not classes:
        return "the patches look on average"
    return "the class token looks" if classes == 1 else "the class tokens of all frames look"


def _attention(look: ImageExplainer, chosen: Sequence[int]) -> dict[str, Any]:
    """Return where every layer and head looks, and when every layer does; empty if the network shows no attention."""
    if "attention" not in compatible_methods(look.predictor.network):
        return {"heads": "", "moments": [], "even_layers": False}
    looks = [maps[0].float().numpy() for maps in looks_of(look.subject(), look.ready.pixels[None])]
    where = [maps.sum(1) for maps in looks]
    when = [maps.sum((0, 2, 3)) for maps in looks]
    return {
        "heads": plots.data_uri(plots.heat_grid(where)),
        "even_layers": any(float(np.ptp(maps)) < EVEN * float(maps.max()) for maps in where),
        "moments": [_shares_of_layer(weights / max(float(weights.sum()), 1e-12), chosen) for weights in when],
    }


def _shares_of_layer(shares: Map, chosen: Sequence[int]) -> list[tuple[str, float]]:
    """Return the share of each shown frame, and how strong its colour is: from 0 to 1 at three times an equal share."""
    return [(f"{shares[at]:.0%}", round(min(1.0, float(shares[at]) * len(shares) / 3), 3)) for at in chosen]
