"""vitrail serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from vitrail.serve.options import ServeOptions

if TYPE_CHECKING:
    from vitrail.serve.front import Service
    from vitrail.serve.messages import Facts


def serve(
    model: str,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    options: Annotated[ServeOptions, Parameter(name="*")] = ServeOptions(),
    dockerfile: bool = False,
    json: bool = False,
) -> int:
    """Serve a model over HTTP: predictions, explanations, its card, metrics, and the Open Inference Protocol.

    With --latency the server keeps its promise under load: each batch is computed at the most accurate operating point
    that leaves all waiting requests their time, and what cannot be answered in time is refused at once. Every answer
    says at which point it was computed. Measure the points first: vitrail eval RUN --points all

        vitrail serve runs/photos --latency 50ms
        curl -T cat.jpg localhost:8000/predict
        curl -F file=@a.jpg -F file=@b.jpg localhost:8000/predict
        vitrail serve runs/photos --host 0.0.0.0 --token-file token.txt
        vitrail serve runs/photos --dockerfile > Dockerfile

    Parameters
    ----------
    model
        a run folder, a model.safetensors, an exported .onnx, .xml or .pt2, or published weights
    host
        the address to listen at; others than 127.0.0.1 can be reached by other machines and need a token
    port
        the port; 0 is any that is free
    dockerfile
        print a Dockerfile that serves this model, and end
    json
        print one JSON value, for programs
    """
    import sys
    from pathlib import Path

    from vitrail.cli.output import print_json, say
    from vitrail.cli.path_checks import model_file, model_there
    from vitrail.core.errors import RunError

    model_there(model)
    model = model_file(model)
    if dockerfile:
        from vitrail.serve.dockerfile import dockerfile as text_of

        sys.stdout.write(text_of(Path(model), options.latency))
        return 0
    try:
        from vitrail.serve.server import Place, run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vitrail"):
            raise
        raise RunError(f"The server needs {error.name}: pip install 'vitrail[serve]'") from error
    place = Place(host, port)
    token, made = _token(options.token_file, place.open_to_others)
    service = _service(model, token, options)

    def ready(link: str, facts: Facts) -> None:
        for note in facts.notes:
            say(note)
        if json:
            print_json({"link": link, **({"token": token} if made else {})})
        else:
            say(_described(service, facts))
            say(_to_try(link, token if made else ""))
            sys.stdout.write(link + "\n")
        sys.stdout.flush()

    say(f"Opening {model}; the first time on a machine it is checked and measured, which takes a minute …")
    run(service, place, ready)
    return 0


def _to_try(link: str, token: str) -> str:
    """Return a command that tries a server, with the token, if it was made just now."""
    head = f' -H "Authorization: Bearer {token}"' if token else ""
    said = "Requests need this token. " if token else ""
    return f"{said}Try it: curl -T cat.jpg{head} {link}predict    Ctrl-C ends it."


def _token(file: str | None, open_to_others: bool) -> tuple[str, bool]:
    """Return the token, empty if none is needed, and whether it was made here."""
    from pathlib import Path

    from vitrail.core.access import new_token
    from vitrail.core.environment import serve_token
    from vitrail.core.errors import DataError

    if file is not None:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file} cannot be read: {error}. Name a file with the token in it.") from error
        if not token:
            raise DataError(
                f"{file} is empty. Write a token into it, such as the output of: openssl rand -hex 24"
            )
        return token, False
    token = serve_token()
    if token or not open_to_others:
        return token, False
    return new_token(), True


def _service(model: str, token: str, options: ServeOptions) -> Service:
    """Return what is served; raise a SettingError for numbers that make no sense."""
    import re

    from vitrail.core.environment import cores
    from vitrail.core.errors import SettingError
    from vitrail.infer.predict_options import read_latency
    from vitrail.serve.front import Limits, Service
    from vitrail.serve.messages import Model

    for name in ("workers", "batch", "max_mb", "max_pixels", "max_images", "max_seconds"):
        if not getattr(options, name) > 0:
            raise SettingError(f"--{name.replace('_', '-')} is more than 0, not {getattr(options, name)}.")
    promise = None if options.latency is None else read_latency(options.latency) / 1000
    hosts = tuple(one.strip() for one in options.allow_urls.split(",") if one.strip())
    for one in hosts:
        if not re.fullmatch(r"[\w.-]+|[0-9a-fA-F:]+", one):
            raise SettingError(f"--allow-urls takes names of hosts, such as images.example, not {one}.")
    limits = Limits(
        options.max_mb * 1_000_000,
        int(options.max_pixels * 1e6),
        options.max_images,
        options.max_seconds,
        hosts,
    )
    opened = Model(
        model,
        options.device,
        in_time=promise is not None,
        point=options.point,
        exact=options.exact,
        trust=options.trust,
        threads=max(1, cores() // options.workers),
    )
    return Service(opened, promise, options.workers, options.batch, token, limits)


def _described(service: Service, facts: Facts) -> str:
    """Return in a sentence how the server answers."""
    names = [one.name for one in facts.points]
    backend = facts.points[0].backend
    if service.promise is None:
        return f"Answers at {names[0]} in {backend}."
    singles = [1000 * one.line.seconds(1) for one in facts.points]
    quick, slow = min(singles), max(singles)
    spread = f"{slow:.0f} ms" if len(names) == 1 else f"{quick:.0f} to {slow:.0f} ms of network for an image"
    return (
        f"Answers within {1000 * service.promise:g} ms at {', '.join(names)} ({spread}, in {backend}); refuses at once "
        "what it cannot."
    )
