"""The files of a map, written as a stream of tiles and put in place at the end, all or none.

They grow in a hidden folder beside the map. Whatever happens before the end, the files of an earlier map stay as they
are; a folder that a killed process left is removed by the next one. Written are cloud-optimised GeoTIFFs, by GDAL's
own driver: it keeps the grid as it is, also of rotated rasters.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from vitrail.core.errors import RunError
from vitrail.core.files import writing
from vitrail.data.rasters.grid import Grid, Window
from vitrail.data.rasters.open_files import rasterio
from vitrail.infer.rasters.tiles import BLOCK

NO_DATA = 0
"""The number of pixels without data in a map of classes; class i has the number i + 1."""

SCALE, GAP = 65534, 65535
"""Probabilities and entropies are stored as whole numbers of 1/65,534; 65,535 is no data."""

FULLEST = 254
"""Classes that fit into one byte beside no data."""

CACHE = 128 << 20
"""Bytes of blocks that GDAL keeps while it writes."""

Colour = tuple[int, int, int]


class MapClasses(NamedTuple):
    """What the numbers of a map mean, from 1 on: names and colours."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    @property
    def dtype(self) -> str:
        """The type of the numbers."""
        return "uint8" if len(self.names) <= FULLEST else "uint16"


class MapPaths(NamedTuple):
    """The files of a map beside one another."""

    classes: Path
    names: Path
    probability: Path
    entropy: Path
    areas: Path
    preview: Path

    @classmethod
    def of(cls, out: Path) -> MapPaths:
        """Return the files of a map called `out`."""
        stem, suffix = out.stem, out.suffix
        beside = [f"{out.name}.aux.xml", f"{stem}-probability{suffix}", f"{stem}-entropy{suffix}"]
        return cls(out, *(out.with_name(one) for one in (*beside, f"{stem}-areas.csv", f"{stem}.png")))


class MapDrafts:
    """The growing files of a map: `write` takes tiles in any order, `finish` makes the final files in `folder`."""

    def __init__(
        self, folder: Path, grid: Grid, classes: MapClasses, bands: Sequence[str], tags: Mapping[str, str]
    ) -> None:
        self.folder, self.classes, self.tags = folder, classes, dict(tags)
        self.counts: NDArray[np.int64] = np.zeros((grid.height, len(classes.names) + 1), np.int64)
        self._kinds = {
            "classes": (classes.dtype, NO_DATA, ("class",)),
            "probability": ("uint16", GAP, ("probability of the class", *bands)),
            "entropy": ("uint16", GAP, ("entropy",)),
        }
        self._open = {name: self._draft(name, grid) for name in self._kinds}

    def _draft(self, name: str, grid: Grid) -> Any:
        dtype, gap, bands = self._kinds[name]
        module = rasterio()
        crs = module.crs.CRS.from_wkt(grid.crs) if grid.located else None
        made = module.open(
            self.folder / f"{name}.draft.tif", "w", driver="GTiff", dtype=dtype, nodata=gap, count=len(bands),
            height=grid.height, width=grid.width, crs=crs, transform=module.Affine(*grid.transform), tiled=True,
            blockxsize=BLOCK, blockysize=BLOCK, compress="deflate", zlevel=1, bigtiff="if_safer", interleave="band",
        )  # fmt: skip
        made.descriptions = bands
        made.update_tags(**self.tags)
        if name == "classes":
            colours = {i: (*colour, 255) for i, colour in enumerate(self.classes.colours, 1)}
            made.write_colormap(1, {NO_DATA: (0, 0, 0, 0), **colours})
        else:
            made.scales = [1 / SCALE] * len(bands)
        return made

    def write(
        self,
        core: Window,
        classes: NDArray[np.integer[Any]],
        probability: NDArray[np.float32],
        entropy: NDArray[np.float32],
    ) -> None:
        """Write a tile: numbers (height, width), probabilities (bands, height, width) and entropy, NaN without data."""
        left, top, right, bottom = core
        view = import_module("rasterio.windows").Window(left, top, right - left, bottom - top)
        self._open["classes"].write(classes.astype(self.classes.dtype), 1, window=view)
        self._open["probability"].write(_stored(probability), window=view)
        self._open["entropy"].write(_stored(entropy), 1, window=view)
        many = self.counts.shape[1]
        for row, line in enumerate(classes, top):
            self.counts[row] += np.bincount(line, minlength=many)

    def finish(self, paths: MapPaths) -> dict[Path, Path]:
        """Close the drafts and make the final files; return draft → place.

        Raises:
            RunError: the map that was written is not the one that was computed, as on a full disk.
        """
        self.close()
        made = {}
        for name, place in (("probability", paths.probability), ("entropy", paths.entropy)):
            made[self._optimised(name, "average")] = place
        names = self.folder / "names.xml"
        names.write_text(names_xml(self.classes.names), encoding="utf-8")
        whole = self._optimised("classes", "mode")
        self._refuse_other_counts(whole, paths.classes)
        return {**made, names: paths.names, whole: paths.classes}

    def _optimised(self, name: str, resampling: str) -> Path:
        """Make a cloud-optimised file of a draft, and remove the draft."""
        draft, made = self.folder / f"{name}.draft.tif", self.folder / f"{name}.tif"
        predictor = "NO" if name == "classes" else "YES"
        import_module("rasterio.shutil").copy(
            draft, made, driver="COG", compress="deflate", predictor=predictor, blocksize=BLOCK,
            overview_resampling=resampling, bigtiff="if_safer",
        )  # fmt: skip
        draft.unlink()
        return made

    def _refuse_other_counts(self, made: Path, place: Path) -> None:
        found = np.zeros(self.counts.shape[1], np.int64)
        with rasterio().open(made) as opened:
            for _, view in opened.block_windows(1):
                found += np.bincount(opened.read(1, window=view).ravel(), minlength=len(found))[: len(found)]
        if (found != self.counts.sum(0)).any():
            raise RunError(
                f"{place} was not written as it was computed. Free some disk space, then try again."
            )

    def close(self) -> None:
        """Close the drafts."""
        for one in self._open.values():
            one.close()


def _stored(shares: NDArray[np.float32]) -> NDArray[np.uint16]:
    gaps = np.isnan(shares)
    return np.where(gaps, GAP, np.round(np.where(gaps, 0, shares).clip(0, 1) * SCALE)).astype(np.uint16)


def names_xml(names: Sequence[str]) -> str:
    """Return GDAL's side file with the names of the classes, which QGIS and GDAL show as the legend."""
    lines = "".join(f"      <Category>{escape(name)}</Category>\n" for name in ("no data", *names))
    return (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{lines}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )


@contextmanager
def drafts_beside(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside a file, and remove it at the end; folders of killed processes are removed first."""
    digest = blake2b(os.fsencode(out.name), digest_size=6).hexdigest()
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        for old in out.parent.glob(f".{digest}.*.map"):
            if not _alive(old.name.split(".")[2]):
                shutil.rmtree(old, ignore_errors=True)
        folder = out.with_name(f".{digest}.{os.getpid()}.map")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            with rasterio().Env(GDAL_CACHEMAX=CACHE, GDAL_NUM_THREADS="ALL_CPUS"):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _alive(process: str) -> bool:
    import psutil

    return process.isdigit() and psutil.pid_exists(int(process))


def put_in_place(made: Mapping[Path, Path]) -> None:
    """Move finished files to their places, the map itself last."""
    for draft in made:
        with draft.open("rb+") as handle:
            os.fsync(handle.fileno())
    for draft, place in made.items():
        os.replace(draft, place)


def refuse_full_disk(out: Path, grid: Grid, classes: MapClasses, bands: int) -> None:
    """Raise a RunError if the drafts and the files may need more than the disk has free, before any work."""
    pixels = grid.height * grid.width
    each = np.dtype(classes.dtype).itemsize + 2 * (2 + bands)
    need = pixels * each * 2 + (
        8 << 20
    )  # uncompressed: drafts, and files with overviews of a third, one by one
    existing = next(one for one in (out.absolute().parent, *out.absolute().parents) if one.exists())
    free = shutil.disk_usage(existing).free
    if free < need:
        raise RunError(
            f"{out} may need {need / 1e9:.2g} GB while it is written, {free / 1e9:.2g} GB are free in {existing}. Free "
            "some disk space, or choose another place."
        )
