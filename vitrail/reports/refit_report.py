"""Report of a run whose head was fitted again after decisions about labels."""

from __future__ import annotations

from typing import Any

from vitrail.core.files import write_json, write_text
from vitrail.data.manifest import Manifest
from vitrail.infer.predictor import Predictor
from vitrail.reports.run_page import page_of_refit
from vitrail.reports.run_report import about, values_of
from vitrail.runs.model_card import card
from vitrail.runs.passport import passport_of
from vitrail.runs.run import Run
from vitrail.tasks.result import Result
from vitrail.tasks.result_file import result_to_dict


def write_refit_report(
    run: Run, manifest: Manifest, predictor: Predictor, result: Result, made: tuple[str, float]
) -> dict[str, Any]:
    """Write the reports of a refitted run; `made` is the command that made it, and the seconds it took."""
    again, seconds = made
    told = {"finished": True, "seconds": round(seconds, 1), "reproduce": again}
    report = about(run, manifest, predictor) | told | result.to_dict()
    report["passport"] = passport_of(run, manifest, ("refit", again), values_of(result))
    write_json(run.report_path, report)
    write_json(run.result_path, result_to_dict(result))
    write_text(run.folder / "report.html", page_of_refit(manifest, predictor, result, report))
    write_text(run.folder / "README.md", card(predictor.header, predictor.task, report, result))
    return report
