"""vitrail demo."""

from __future__ import annotations


def demo(*, out: str = "demo", minutes: float = 1.5, json: bool = False) -> int:
    """See everything once: real handwritten digits are checked, learned, compared, explained.

    Faults are planted and found, a vision transformer and a convolutional network train for as many minutes, a
    training is killed and resumed to the same bits, new images are asked about, and one page shows it all.

    Parameters
    ----------
    out
        folder for the data, the runs and demo.html; what an earlier demo left there is replaced
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
