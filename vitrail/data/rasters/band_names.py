"""Names of bands that file names state: Sentinel-2 (`T20TLR_…_B02_10m.jp2`), Sentinel-1 (`…-vv-….tiff`), Landsat."""

from __future__ import annotations

import re

_SENTINEL2 = re.compile(r"(?:^|[_\-. ])(B0[1-9]|B8A|B1[0-2]|AOT|WVP|SCL)(?=[_\-. ]|$)", re.IGNORECASE)
_SENTINEL1 = re.compile(r"(?:^|[_\-. ])(VV|VH|HH|HV)(?=[_\-. ]|$)", re.IGNORECASE)
_LANDSAT = re.compile(r"(?:^|[_\-. ])((?:SR_|ST_)?B(?:1[01]|[1-9]))(?=[_\-. ]|$)", re.IGNORECASE)


def name_of_file(name: str) -> str:
    """Return the band that the name of a file with one band states, or ""."""
    stem = name.rpartition(".")[0] or name
    for pattern in (_SENTINEL2, _SENTINEL1, _LANDSAT):
        found = pattern.findall(stem)
        if found:
            return str(found[-1]).upper()
    return ""
