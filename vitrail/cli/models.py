"""vitrail models."""

from __future__ import annotations

import sys


def models(pattern: str = "*", /, *, timm: bool = False, json: bool = False) -> int:
    """List the networks that can be trained.

        vitrail models 'vit*'
        vitrail models 'resnet*' --timm

    Parameters
    ----------
    pattern
        only names like this
    timm
        also list timm's networks, which work the same way
    json
        print one JSON value, for programs
    """
    from dataclasses import asdict

    from vitrail.cli.output import print_json, say, table
    from vitrail.core.errors import UnknownNameError
    from vitrail.models.factory import list_models, list_timm

    rows = list_models(pattern)
    others = list_timm(pattern) if timm else []
    if not rows and not others:
        raise UnknownNameError(
            "network", pattern, [row.name for row in list_models()], "timm's are listed with --timm."
        )
    if json:
        print_json([asdict(row) for row in rows] + [{"name": name, "family": "timm"} for name in others])
        return 0
    cells = [[r.name, r.family, f"{r.params / 1e6:.2f} M", "×".join(map(str, r.image))] for r in rows]
    cells += [[name, "timm", "", ""] for name in others]
    sys.stdout.write(table(["name", "family", "parameters", "pixels"], cells, right=(2,)) + "\n")
    if not timm:
        say("timm's networks, such as resnet50 or convnext_tiny, work too: vitrail models 'resnet*' --timm")
    return 0
