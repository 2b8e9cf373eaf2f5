"""vitrail explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def explain(
    model: str,
    pictures: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)],
    /,
    *,
    method: str = "rollout",
    out: str = "explained",
    json: bool = False,
    device: str = "auto",
) -> int:
    """Show where a model looked when it answered: a heat map over each picture, in the picture's own pixels.

        vitrail explain runs/photos cat.jpg
        vitrail explain runs/photos new/ --out figures/

    Parameters
    ----------
    model
        a run folder or a model.safetensors
    pictures
        files, folders, patterns or zip files
    method
        rollout: attention followed through all layers
    out
        folder for the figures
    json
        print one JSON value with the maps, for programs
    device
        auto, cpu, cuda
    """
    from vitrail.cli.output import print_json, say
    from vitrail.core.errors import DataError, SettingError
    from vitrail.explainers.explanation import explain as explain_one
    from vitrail.infer.predictor import Predictor, expand

    if not pictures:
        raise SettingError("Name pictures to look at: vitrail explain runs/photos cat.jpg")
    predictor = Predictor(model, device)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, object]] = []
    for source in expand(pictures):
        try:
            found = explain_one(predictor, source.open(), method)
        except DataError as error:
            results.append({"path": source.name, "error": str(error)})
            say(str(error))
            continue
        figure = found.save(free_name(folder, Path(source.name).stem, method))
        results.append({"path": source.name, "figure": str(figure), **found.to_dict()})
        say(f"{source.name}: {found.prediction} -> {figure}")
    if json:
        print_json(results)
    return 1 if any("error" in one for one in results) else 0


def free_name(folder: Path, stem: str, method: str) -> Path:
    """Return a name in the folder that no figure has yet, so that two pictures called alike both stay."""
    wanted = folder / f"{stem}-{method}.png"
    number = 2
    while wanted.exists():
        wanted = folder / f"{stem}-{method}-{number}.png"
        number += 1
    return wanted
