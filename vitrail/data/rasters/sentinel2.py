"""What a SAFE folder of Sentinel-2 says of its files: reflectance of stored numbers, and clouds.

From processing baseline 04.00 on, reflectance is (number + offset) / quantification, with an offset of -1000 in
`MTD_MSIL2A.xml`; the scene classification (SCL), or else the cloud probability (MSK_CLDPRB), tells what is no ground
(ESA, Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import DataError

_HEADERS = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_NO_GROUND = (
    0,
    1,
    3,
    8,
    9,
    10,
)  # no data, saturated, cloud shadow, clouds of medium and high probability, cirrus
_CLOUDY = 50  # per cent
_SCL = "*_SCL_20m.jp2"
_PROBABILITY = "MSK_CLDPRB_20m.jp2"

NO_DATA = 0
"""The stored number of pixels without data."""


class Product(NamedTuple):
    """A SAFE folder: the quantification, the offset of each band, and the file that tells clouds, if there is one."""

    folder: Path
    quantification: float
    offsets: dict[str, float]
    clouds: Path | None

    def reflectance(self, band: str) -> tuple[float, float]:
        """Return the (scale, offset) that turn the numbers of a band into reflectance."""
        return 1 / self.quantification, self.offsets.get(band, 0.0) / self.quantification

    def note(self) -> str:
        """Return a sentence on what is done with the numbers of the files."""
        without = (
            f"places that {self.clouds.name} calls clouds or shadows are missing data"
            if self.clouds
            else ("no file tells where clouds are")
        )
        return f"{self.folder.name}: the stored numbers become reflectance as its header says; {without}."


def product_of(path: Path) -> Product | None:
    """Return the product in whose granule a band lies, or None.

    Raises:
        DataError: the header of the product is broken.
    """
    if path.parent.name != "IMG_DATA" and path.parent.parent.name != "IMG_DATA":
        return None
    data = path.parent if path.parent.name == "IMG_DATA" else path.parent.parent
    granule, folder = data.parent, data.parent.parent.parent
    header = next((folder / name for name in _HEADERS if (folder / name).is_file()), None)
    if header is None:
        return None
    try:
        root = ElementTree.fromstring(header.read_bytes())
        stated = {one.tag: one for one in root.iter() if one.tag.endswith("QUANTIFICATION_VALUE")}
        value = next(
            stated[key] for key in ("BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE") if key in stated
        )
        quantification = float(value.text or "")
        offsets = {
            _BANDS[int(one.get("band_id", ""))]: float(one.text or "")
            for one in root.iter()
            if one.tag in {"BOA_ADD_OFFSET", "RADIO_ADD_OFFSET"}
        }
    except (ElementTree.ParseError, OSError, ValueError, IndexError, StopIteration) as error:
        raise DataError(
            f"{header.name} of {folder.name} does not say how numbers become reflectance ({error}). Download the "
            "product again."
        ) from error
    return Product(folder, quantification, offsets, _clouds(granule))


def _clouds(granule: Path) -> Path | None:
    classified = sorted(granule.glob(f"IMG_DATA/R20m/{_SCL}"))
    probable = granule / "QI_DATA" / _PROBABILITY
    return classified[0] if classified else probable if probable.is_file() else None


def is_no_ground(values: NDArray[np.float32], clouds: Path) -> NDArray[np.bool_]:
    """Return which pixels of the file of clouds show no ground."""
    if "_SCL_" in clouds.name:
        return np.isin(values, _NO_GROUND)
    return np.asarray(values > _CLOUDY)
