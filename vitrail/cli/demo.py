"""vitrail demo."""

from __future__ import annotations


def demo(*, out: str = "demo", minutes: float = 1.5, json: bool = False) -> int:
    """Show every feature once, on real handwritten digits: check, train, compare, explain.

    Data errors are planted and found, a vision transformer and a convolutional network are trained for the same
    time, a training is killed and resumed bit by bit, new images are predicted, and one page shows everything.

    Parameters
    ----------
    out
        folder for the data, the runs and demo.html; results of an earlier demo are replaced
    minutes
        training time of each network
    json
        print one JSON value, for programs
    """
    from pathlib import Path

    from vitrail.cli.output import print_json, say
    from vitrail.studies.demo import demo as run_demo
    from vitrail.training.progress import Teller

    with Teller(say) as teller:
        page = run_demo(Path(out), minutes, teller.say, [teller])
    if json:
        print_json({"page": str(page)})
    return 0
