"""vitrail augment."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from vitrail.data.options import DEFAULTS, LayoutOptions
from vitrail.studies.augment_options import AugmentOptions


def augment(
    data: str,
    /,
    *,
    name: Annotated[str, Parameter(name="--class")],
    generator: Annotated[str, Parameter(name="--with")],
    wanted: Annotated[AugmentOptions, Parameter(name="*")] = AugmentOptions(),
    options: Annotated[LayoutOptions, Parameter(name="*")] = DEFAULTS,
    out: str = "",
    json: bool = False,
) -> int:
    """Add generated images of a class to the training images, only if real accuracy rises by it.

    Networks are trained with the generated images and, for as many steps, without them; both are tested on the same
    real images, which the generator never saw. Generated images that are copies of real ones are left out. The images
    are admitted if the whole 95 % interval of the gain is above 0; the exit code is 1 if they are refused.

        vitrail augment photos/ --class rare --with runs/generated
        vitrail augment photos/ --class rare --with runs/generated --n 200 --seeds 5

    Parameters
    ----------
    data
        images with one class each, as for training
    name
        the class of which images are generated
    generator
        a run of --task generate, trained on the same images with the same --seed
    out
        folder for the images, the report and the table to train on, runs/augment-<data>-<class> by default
    json
        print one JSON value, for programs
    """
    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import data_there, run_there

    data_there(data)
    run_there(generator)
    from vitrail.studies.augment.gate import Asked, gate
    from vitrail.studies.augment.generator import generator_of
    from vitrail.studies.augment_options import train_options

    asked = Asked(data, name, train_options(wanted, options), wanted.n, wanted.seeds)
    opened = generator_of(generator, name, wanted.seed, wanted.device)
    found = gate(asked, opened, say, out)
    if json:
        print_json(found.report | {"folder": found.folder.as_posix()})
    else:
        sys.stdout.write("\n".join(found.lines) + "\n")
    say(f"page    {found.folder}/augment.html")
    if found.admitted and not json:
        say(f"next    {found.report['next']}")
    return 0 if found.admitted else 1
