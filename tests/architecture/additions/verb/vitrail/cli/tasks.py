"""vitrail tasks."""

from __future__ import annotations

import sys


def tasks(pattern: str = "*", /, *, json: bool = False) -> int:
    """List the tasks that a training can learn.

        vitrail tasks
        vitrail tasks 'classify*'

    Parameters
    ----------
    pattern
        only names like this
    json
        print one JSON value, for programs
    """
    from fnmatch import fnmatchcase

    from vitrail.cli.output import print_json
    from vitrail.core.catalog import SETTINGS

    found = [name for name in SETTINGS if fnmatchcase(name, pattern)]
    if json:
        print_json(found)
    else:
        sys.stdout.write("".join(f"{name}\n" for name in found))
    return 0
