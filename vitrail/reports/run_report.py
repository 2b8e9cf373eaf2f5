"""Write the report of a run: report.json for programs, report.html and the model card for people."""

from __future__ import annotations

from typing import Any

from vitrail.core.files import write_json, write_text
from vitrail.data.manifest import TEST, VAL, Manifest
from vitrail.evaluate.band_importance import band_importance, can_measure
from vitrail.evaluate.collect_answers import evaluate, result_of, rows_of, scope_of
from vitrail.evaluate.new_data import own_tests
from vitrail.infer.predictor import Predictor
from vitrail.models.factory import count_params
from vitrail.reports.calibrate_model import calibrate_on_validation
from vitrail.reports.fit_abstention import with_abstention
from vitrail.reports.known_texts import with_known_texts
from vitrail.reports.made_images import with_made_images
from vitrail.reports.operating_points import shown, with_operating_points
from vitrail.reports.run_page import page
from vitrail.runs.image_changes import without_changes
from vitrail.runs.model_card import card
from vitrail.runs.passport import passport_of
from vitrail.runs.reproduce import train_command
from vitrail.runs.run import Run
from vitrail.runs.versions import environment
from vitrail.tasks.result import Result
from vitrail.tasks.result_file import result_to_dict


def write_report(run: Run, manifest: Manifest, *, seconds: float, finished: bool) -> dict[str, Any]:
    """Evaluate the run's model on its test split; write its reports into the run.

    First the model is calibrated on the validation split (`calibrate_on_validation`), operating points are measured on
    it (`with_operating_points`), and "none of these" and label sets are fitted (`with_abstention`); a model that reads
    captions gets some to choose from (`with_known_texts`). Images of both
    splits that changed since the run began are left out; the report lists them in `left_out`.
    """
    manifest, left_out = without_changes(run, manifest, (VAL, TEST))
    predictor = with_operating_points(run, manifest, calibrate_on_validation(run, manifest))
    predictor = with_known_texts(run, manifest, with_abstention(run, manifest, predictor))
    report = about(run, manifest, predictor) | {"finished": finished, "seconds": round(seconds, 1)}
    result = _whole(predictor, manifest)
    report |= result.to_dict() | ({"left_out": left_out} if left_out else {})
    report["passport"] = passport_of(run, manifest, ("training", report["reproduce"]), values_of(result))
    html = page(run, manifest, predictor, result, report)
    write_json(run.report_path, report)
    write_json(run.result_path, result_to_dict(result))
    write_text(run.folder / "report.html", html)
    write_text(run.folder / "README.md", card(predictor.header, predictor.task, report, result))
    return report


def _whole(predictor: Predictor, manifest: Manifest) -> Result:
    """Return the result on the test split, with what only the model itself can show."""
    found = with_band_importance(tested(predictor, manifest), predictor, manifest)
    return with_made_images(found, predictor)


def with_band_importance(result: Result, predictor: Predictor, manifest: Manifest) -> Result:
    """Add which bands the model needs, on test images; unchanged for models without named bands."""
    if not can_measure(predictor):
        return result
    found = band_importance(predictor, rows_of(manifest, TEST), manifest.root)
    details = {**result.details, "band_importance": found.to_dict()}
    return result._replace(sections=(*result.sections, found.section()), details=details)


def score_again(run: Run) -> Result:
    """Score a run's model on its test images again, write result.json, and return the result.

    Raises:
        DataError: the images are missing, or all of them changed.
    """
    predictor, manifest = Predictor(run), own_tests(run).scored
    result = _whole(predictor, manifest)
    write_json(run.result_path, result_to_dict(result))
    return result


def tested(predictor: Predictor, manifest: Manifest) -> Result:
    """Return the result of a model on the test split of its run."""
    rows = rows_of(manifest, TEST)
    return result_of(evaluate(predictor, rows, manifest.root), rows, scope_of(manifest, TEST))


def values_of(result: Result) -> dict[str, float | None]:
    """Return the scores of a result without their intervals, as a passport holds them."""
    return {name: number.value for name, number in result.numbers.items()}


def about(run: Run, manifest: Manifest, predictor: Predictor) -> dict[str, Any]:
    """Return the report without scores: network, data, cost, command to reproduce."""
    recipe, header = run.recipe(), predictor.header
    events = run.effective_history()
    steps = [event for event in events if event["event"] == "step"]
    scored = [event for event in events if event["event"] == "score"]
    return {
        "model": header.name,
        "weights": header.weights,
        "licence": header.licence,
        "task": header.task["name"],
        "parameters": count_params(predictor.network),
        "data": {"splits": manifest.counts(predictor.task), "states": manifest.states()},
        "cost": {
            "steps": len({event["step"] for event in steps}),
            "epochs": round(steps[-1]["epoch"], 2) if steps else 0.0,
            "best_epoch": next((e["epoch"] for e in reversed(scored) if e["better"]), None),
            "batch": recipe.training.batch,
            "precision": recipe.training.precision,
        },
        "reproduce": train_command(recipe, header.weights, manifest.truth.kind),
        "environment": environment(),
        "proof_drift": predictor.proof_drift,
        **({"points": shown(header.points)} if header.points else {}),
    }
