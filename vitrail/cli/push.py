"""vitrail push."""

from __future__ import annotations

import sys


def push(
    run: str, repository: str, /, *, private: bool = False, pictures: bool = False, json: bool = False
) -> int:
    """Upload a run to the model hub: the model, its card, its scores and its recipe.

    No image, image name or path of this computer is uploaded, unless you add --pictures. The hub is
    huggingface.co, or the mirror that HF_ENDPOINT names; log in once with `hf auth login`.

        vitrail push runs/photos me/photos
        vitrail push runs/photos me/photos --private

    Parameters
    ----------
    run
        a run folder
    repository
        owner/name; it is created if it does not exist
    private
        if it is created: only you can see it
    pictures
        also upload report.html, which shows images, and manifest.csv, which names them
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import run_there

    run_there(run)
    from vitrail.runs.hub import push as push_run
    from vitrail.runs.run import open_run

    pushed = push_run(open_run(run), repository, private=private, pictures=pictures)
    if json:
        print_json(pushed._asdict())
    else:
        say(f"uploaded: {', '.join(pushed.files)}")
        sys.stdout.write(pushed.url + "\n")
    return 0
