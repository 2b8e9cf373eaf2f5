"""An open loop of requests to `vitrail serve`, each of its points fixed, a queue-length governor and LitServe.

`python -m bench.serve RUN IMAGES [--lit PYTHON] [--out LINES.jsonl]`. Every server runs on core 0 and the generator
on core 1, with a thread each for OpenMP. First the capacity of the full and of the cheapest point (a closed loop with
32 outstanding, on servers without a promise), then the loads of `bench.serve_loads`. Ours runs each of them
`--repeats` times, first of all and last of all; what is beside it once and for `--baseline-seconds`, which are
cut until the plan fits into `--minutes`; of a longer front six points are taken. A latency counts from the scheduled
time; a refused request is not in time; accuracy is the mean score of the points that answered in time. `--lit` is the
Python of an environment with LitServe (see `bench.litserve_side`). What `--out` holds already is not run again;
`--tables` only prints it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench.load_numbers import scores_of
from bench.serve_loads import Load, Setup, loads
from bench.serve_tables import tables
from bench.served import OWN_CORE, Served, another_program, generated, got, served

OUTSTANDING = 32
ROOT = Path(__file__).resolve().parents[1]
AROUND, STARTS = 5, 25
"""Seconds that a load takes besides its own, and that a server takes to start and end."""

FIXED = 6
"""At most so many points of the front are put beside ours."""

LEAST = 15
"""Fewest seconds of a load of what is beside ours."""

SERVE = f"{shlex.quote(sys.executable)} -m vitrail.cli.main serve"
HEALTH = {"litserve": "/health"}


SEED = 0
"""All systems get the same arrivals, every time."""


class Job(NamedTuple):
    """A system, for how long it gets every load, and which time this is.

    Of ours the `first` seconds are told, too: these are the arrivals that the others get.
    """

    system: str
    repeat: int
    seconds: float
    first: float = 0.0


def started(options: argparse.Namespace, system: str, setup: Setup | None, point: str = "") -> Any:
    """Return the context of a running server; without a setup it makes no promise."""
    promise = ["--latency", f"{setup.promise:g}ms"] if setup else []
    words = [options.run, "--port", "{port}", *promise]
    environment: Mapping[str, str] = {}
    if system == "governor":
        command = [sys.executable, "-m", "bench.queue_governor", *words]
    elif system == "litserve":
        path = os.pathsep.join([str(ROOT), *(one for one in sys.path if one.endswith("site-packages"))])
        environment = {"PYTHONPATH": path}
        images = ["--images", str(options.images)]
        command = [options.lit, "-m", "bench.litserve_side", options.run, "--port", "{port}", *images]
    else:
        point = point or system.partition(":")[2]
        command = [*shlex.split(options.serve), *words, *(["--point", point] if point else [])]
    return served(command, HEALTH.get(system, "/health/ready"), environment)


def closed(options: argparse.Namespace, one: Served, outstanding: int, seconds: float) -> dict[str, Any]:
    return generated(one, options.images, ["--closed", str(outstanding), "--seconds", f"{seconds:g}"])


def measured(options: argparse.Namespace) -> Setup:
    """Measure the full and the cheapest point, each on a server that makes no promise."""
    from bench.pairs import machine

    # Without a promise a server answers at the whole network alone.
    with started(options, "ours", None) as one:
        whole = card_of(one)
        closed(options, one, 1, 2)
        single = closed(options, one, 1, 4)["middle_ms"]
        full_rate = closed(options, one, OUTSTANDING, options.capacity_seconds)["rate"]
    full = whole["points"][0]["point"]
    setup = Setup(
        machine=machine(), run=Path(options.run).name, promise=options.promise or round(3 * single), single=single,
        full=full, cheapest=full, full_rate=full_rate, cheapest_rate=full_rate, scores=scores_of(whole), front=(full,),
        seconds=options.seconds,
    )  # fmt: skip
    with started(options, "ours", setup) as one:
        dial = card_of(one)
    cheapest = max(dial["points"], key=lambda row: row["images_per_second"])["point"]
    with started(options, "ours", None, cheapest) as one:
        closed(options, one, 1, 2)
        cheapest_rate = closed(options, one, OUTSTANDING, options.capacity_seconds)["rate"]
    return replace(
        setup, cheapest=cheapest, cheapest_rate=cheapest_rate, scores={**setup.scores, **scores_of(dial)},
        front=tuple(row["point"] for row in dial["points"]),
    )  # fmt: skip


def card_of(one: Served) -> dict[str, Any]:
    return dict(json.loads(got(one.url, "/card")[1]))


def systems(options: argparse.Namespace, setup: Setup) -> list[str]:
    """Return the names of all systems that were asked for."""
    points = dict.fromkeys([setup.full, *(options.points or spread(setup.front, FIXED))])
    fixed = [f"fixed:{point}" for point in points]
    every = ["ours", *fixed, "governor", *(["litserve"] if options.lit else [])]
    kinds = {"ours": every[:1], "beside": every[1:]}
    wanted = [
        name
        for name in kinds.get(options.only, every)
        if not options.systems or _named(name, options.systems)
    ]
    if not wanted:
        raise SystemExit(f"There are: {', '.join(every)}")
    return wanted


def spread(points: Sequence[str], most: int) -> list[str]:
    """Return at most so many points, evenly spaced, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)]


def _named(name: str, wanted: Sequence[str]) -> bool:
    return name in wanted or name.partition(":")[0] in wanted


def plan(options: argparse.Namespace, setup: Setup) -> list[Job]:
    """Return the jobs in their order: ours first and last, so that a change of the machine is seen."""
    wanted = systems(options, setup)
    ours = [Job("ours", number, options.seconds) for number in range(options.repeats) if "ours" in wanted]
    beside = [Job(name, 0, options.baseline_seconds) for name in wanted if name != "ours"]
    if beside:
        count = len(options.loads)
        left = (
            60 * options.minutes
            - took(ours, count)
            - took([one._replace(seconds=0) for one in beside], count)
        )
        most = int(left / (len(beside) * count))
        seconds = min(options.baseline_seconds, max(LEAST, most))
        beside = [one._replace(seconds=seconds) for one in beside]
        ours = [one._replace(first=seconds) for one in ours]
    return [*ours[:1], *beside, *ours[1:]]


def took(jobs: Sequence[Job], count: int) -> float:
    """Return the seconds that jobs of so many loads take, about."""
    return sum(STARTS + count * (job.seconds + AROUND) for job in jobs)


def loaded(
    options: argparse.Namespace, setup: Setup, one: Served, load: Load, job: Job, points: Mapping[str, float]
) -> dict[str, Any]:
    """Run a load, after a moment with one request at a time, in which what waits from before is answered.

    `points`: the scores of all points that may answer.
    """
    closed(options, one, 1, 2)
    with tempfile.TemporaryDirectory() as folder:
        arrivals, scores = Path(folder) / "arrivals.json", Path(folder) / "scores.json"
        times = load.arrivals(job.seconds, SEED)
        arrivals.write_text(json.dumps(times.tolist()))
        scores.write_text(json.dumps(dict(points)))
        words = ["--arrivals", str(arrivals), "--scores", str(scores), "--promise", f"{setup.promise:g}"]
        if job.first and not load.shaped:
            words += ["--first", f"{job.first:g}"]
        return generated(one, options.images, words, partial(taken, job.seconds) if load.falls else None)


def taken(seconds: float) -> None:
    """Let another program run on the server's core in the middle half of so many seconds."""
    time.sleep(seconds / 4)
    with another_program():
        time.sleep(seconds / 2)


def run(options: argparse.Namespace, setup: Setup, kept: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for every load of every job that is not kept already."""
    every = loads(setup)
    for job in plan(options, setup):
        done = {row["load"] for row in kept if (row["system"], row["repeat"]) == (job.system, job.repeat)}
        names = [name for name in options.loads if name not in done]
        if not names:
            continue
        with started(options, job.system, setup) as one:
            # A server measures its points when it starts, and may serve others than the one before.
            served_here = {} if job.system == "litserve" else scores_of(card_of(one))
            for name in names:
                numbers = loaded(options, setup, one, every[name], job, {**setup.scores, **served_here})
                yield {"load": name, **job._asdict(), **numbers, "serves": list(served_here)}


def asked() -> argparse.Namespace:
    words = argparse.ArgumentParser(prog="bench.serve", description=__doc__)
    words.add_argument("run", help="a run whose points are measured")
    words.add_argument("images", type=Path, help="a folder of photographs")
    words.add_argument("--seconds", type=float, default=60, help="of a load, for ours")
    words.add_argument("--repeats", type=int, default=2, help="how often ours gets every load")
    words.add_argument(
        "--baseline-seconds", type=float, default=30, help="of a load, for what is beside ours"
    )
    words.add_argument("--capacity-seconds", type=float, default=6)
    words.add_argument("--minutes", type=float, default=41, help="that the loads may take")
    words.add_argument(
        "--promise", type=float, help="milliseconds (default: 3 × one image alone at the full point)"
    )
    words.add_argument("--only", choices=("ours", "beside"))
    words.add_argument(
        "--systems", nargs="+", default=[], help="ours, fixed, fixed:POINT, governor, litserve"
    )
    words.add_argument(
        "--points", nargs="+", default=[], help="to fix (default: those that the server chose)"
    )
    words.add_argument(
        "--loads", nargs="+", default=["poisson08", "poisson15", "cheapest09", "gamma8", "step", "falls"]
    )
    words.add_argument("--lit", help="the Python of an environment with LitServe")
    words.add_argument("--serve", default=SERVE, help="the command that serves a run")
    words.add_argument("--out", type=Path, help="lines of JSON: what is there is not run again")
    words.add_argument("--tables", action="store_true", help="only print what --out holds")
    return words.parse_args()


def main() -> None:
    options = asked()
    out = options.out or Path(tempfile.mkdtemp()) / "serve.jsonl"
    kept = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if not kept and options.tables:
        raise SystemExit(f"{out} holds nothing.")
    os.sched_setaffinity(0, {OWN_CORE})
    if not kept:
        kept = [measured(options).to_dict()]
        out.write_text(json.dumps(kept[0]) + "\n")
    setup, rows = Setup.of(kept[0]), kept[1:]
    if options.promise and options.promise != setup.promise:
        raise SystemExit(f"{out} is of a promise of {setup.promise:g} ms. Name another file with --out.")
    if not options.tables:
        jobs = plan(options, setup)
        minutes = took(jobs, len(options.loads)) / 60
        lengths = ", ".join(f"{job.system} {job.seconds:.0f} s" for job in jobs)
        print(f"{len(options.loads)} loads, about {minutes:.0f} minutes: {lengths}. {out}", flush=True)
        for row in run(options, setup, rows):
            with out.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            rows.append(row)
            print(f"{row['system']}, {row['load']}: {row['attainment']:.1%} in time", flush=True)
    print(tables(setup, rows))


if __name__ == "__main__":
    main()
