"""The OpenAPI document of a server, tried by schemathesis: its requests, and what its checks say of the answers."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from bench.fuzz_client import Address

NOT_OURS = "positive_data_acceptance"
"""The one check that is left out: bytes that the document allows are still no image, and are refused with 422."""


class Tried(NamedTuple):
    """What schemathesis found: answers by code, failures in its words, and requests that it could not make."""

    codes: Counter[str]
    failures: list[str]
    errors: list[str]

    @property
    def count(self) -> int:
        return sum(self.codes.values())


def tried(address: Address, examples: int, seed: int = 0) -> Tried:
    """Send so many generated requests to every operation of the document, valid and invalid ones."""
    import schemathesis
    from schemathesis.engine import events, from_schema

    config = schemathesis.Config.from_dict(
        {
            "seed": seed,
            "base-url": address.link,
            "headers": {"Authorization": f"Bearer {address.token}"} if address.token else {},
            "request-timeout": 60,
            "continue-on-failure": True,
            "checks": {NOT_OURS: {"enabled": False}},
            "generation": {"max-examples": examples, "database": "none", "no-shrink": True},
            "phases": {"stateful": {"enabled": False}},
        }
    )
    schema = schemathesis.openapi.from_url(f"{address.link}/openapi.json", config=config)
    found = Tried(Counter(), [], [])
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            _note(event.recorder, found)
        elif isinstance(event, events.NonFatalError):
            found.errors.append(f"{event.label}: {event.value}")
        elif isinstance(event, events.FatalError):
            raise event.exception
    return found


def _note(recorder, found: Tried) -> None:  # type: ignore[no-untyped-def]
    for number, interaction in recorder.interactions.items():
        response = interaction.response
        found.codes[str(response.status_code) if response is not None else "silent"] += 1
        for check in recorder.checks.get(number, ()):
            if check.failure_info is not None:
                failure, case = check.failure_info.failure, recorder.cases[number].value
                request = interaction.request
                found.failures.append(
                    f"{recorder.label}, {check.name}: {failure.title}: {failure.message[:300]!r}; {request.method} "
                    f"{request.uri[:200]} {case.media_type} {(request.body or b'')[:100]!r} → "
                    f"{response.status_code if response else None}"
                )
