"""Explain the prediction for one image, for a request."""

from __future__ import annotations

import io

from vitrail.core.errors import SettingError, UnknownNameError, VitrailError
from vitrail.core.text import reason
from vitrail.explainers.explanation import ImageExplainer
from vitrail.explainers.methods import compatible_methods
from vitrail.infer.exported_predictor import ExportedPredictor
from vitrail.infer.inputs import Source
from vitrail.infer.operating_points import chosen
from vitrail.infer.predictor import Predictor
from vitrail.serve.messages import UNEXPLAINED, Question, Shown

LONGEST = 1024
"""Longest side of the image in a figure, in pixels."""


FIRST = "relevance"
"""The method that is used if a request names none, where it fits."""


def methods_of(predictor: Predictor) -> tuple[str, ...]:
    """Return the methods that fit a model, the one for requests that name none first; none for graphs and windows."""
    if isinstance(predictor, ExportedPredictor) or predictor.preprocess.zoom is not None:
        return ()
    fit = [name for name in compatible_methods(predictor.network) if name != "attention"]
    return tuple(sorted(fit, key=lambda name: name != FIRST))


def explain(predictor: Predictor, question: Question) -> Shown:
    """Return the explanation of one image: its grid and its figure, or why there is none."""
    name, data = question.picture
    try:
        at, method = predictor, _method(predictor, question.method)
        if question.point:
            at = predictor.turned(chosen(question.point, predictor.known_points, predictor.header.name))
        look = ImageExplainer(at, Source(name, data=data))
        found = look.explain(method, question.of)
        if question.test:
            found = look.test(found)
    except VitrailError as error:
        return Shown(refused=str(error))
    except Exception as error:  # of one image: the process explains others
        return Shown(refused=f"{name} could not be explained: {reason(error)}.")
    buffer = io.BytesIO()
    found.figure(LONGEST).convert("RGB").save(buffer, "PNG")
    point = look.point or str(at.point)
    return Shown(
        {"name": name, "point": point, "choices": look.choices[:10], **found.to_dict()}, buffer.getvalue()
    )


def _method(predictor: Predictor, wanted: str) -> str:
    """Return the method that a request names: only ours, as other names of explainers are code that is imported."""
    known = methods_of(predictor)
    if not known:
        raise SettingError(UNEXPLAINED)
    if wanted and wanted not in known:
        raise UnknownNameError("method", wanted, known, f"There are: {', '.join(known)}.")
    return wanted or known[0]
