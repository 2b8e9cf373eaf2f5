"""Sample images that came with a packed run: seen, and tried."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from vitrail.core.errors import DataError
from vitrail.studio.app_parts import studio_of
from vitrail.studio.images import encoded, image_of_file, missing

router = APIRouter(prefix="/runs/{name}")


@router.get("/samples/{file}")
def sample_image(request: Request, name: str, file: str) -> Response:
    """Return a sample image that came with the run, decoded and encoded again."""
    run = studio_of(request).run(name)
    path = next((one for one in run.samples() if one.name == file), None)
    try:
        return encoded(image_of_file(run, path), 512) if path else missing()
    except DataError:
        return missing()


@router.post("/samples/{file}")
def predict_sample(request: Request, name: str, file: str) -> Response:
    """Go to the answer for a sample image that came with the run."""
    studio = studio_of(request)
    run = studio.run(name)
    path = next((one for one in run.samples() if one.name == file), None)
    if path is None:
        raise DataError(f"{name} has no sample image {file!r}.")
    picture = studio.pictures.add(path.name, path.read_bytes(), run.bands())
    return RedirectResponse(f"../predict/{picture.key}", 303)
