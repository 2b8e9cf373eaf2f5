"""Refuse trainings on named bands that start from weights of other bands: what those give is unknown until measured."""

from __future__ import annotations

from vitrail.core.environment import expanded
from vitrail.core.errors import UsageError
from vitrail.data.labels import shorten
from vitrail.data.prepare import Prepared
from vitrail.runs.train_options import TrainOptions
from vitrail.training.network_choice import DRAFT_MODEL, named_network
from vitrail.training.raster_recipe import measured_weights
from vitrail.training.resolve_recipe import from_scratch
from vitrail.weights import checkpoints
from vitrail.weights.first_layer import COLOUR_NAMES, said_of_bands
from vitrail.weights.pretrained import Pretrained
from vitrail.weights.resolve import added, find_weights


def refuse_guess(prepared: Prepared, options: TrainOptions) -> None:
    """Refuse (UsageError) weights that were trained on other bands; name the comparison that measures them.

    Weights of the same bands are none to measure, and a recipe of a comparison has measured its own.
    """
    raster = prepared.layout.raster
    if raster is None or from_scratch(prepared.source, options, raster=True) or measured_weights(options):
        return
    bands = [band.name for band in raster.bands]
    here = _here(options)
    if here is not None and (same_bands(bands, here.bands) or _in_order(bands, here)):
        return
    network, weights = _network(options, here), options.weights or "auto"
    models = f"{network}={weights},{network}=none"
    raise UsageError(
        f"These weights know other bands than {shorten(bands)}: {said_of_bands(bands, here.bands if here else ())} "
        "Whether that helps is a guess until it is measured. Measure it against a start from nothing, in equal "
        f"minutes: {prepared.command('compare', '--models', models)}"
    )


def same_bands(bands: list[str], known: tuple[str, ...]) -> bool:
    """Tell whether weights were trained on exactly these bands, in any order."""
    return bool(known) and sorted(map(str.casefold, bands)) == sorted(map(str.casefold, known))


def _in_order(bands: list[str], here: Pretrained) -> bool:
    """Tell whether weights without names of bands read as many, in order; raise UsageError for another number.

    Three channels without names are those of photographs. Keras' files of WetMapFormer name no bands.
    """
    count = here.config.channels
    if here.bands or count == len(COLOUR_NAMES):
        return False
    if count != len(bands):
        raise UsageError(
            f"The weights {here.name} read {count} bands, which they do not name; there are {len(bands)} here: "
            f"{', '.join(bands)}. Give the {count} bands of their training in its order, or start from nothing: "
            "--weights none"
        )
    return True


def _here(options: TrainOptions) -> Pretrained | None:
    """Return the weights if they are on this machine by their own name or path; published ones are not opened."""
    source = options.weights or "auto"
    if source == "auto" or not (added(source) or expanded(source).exists()):
        return None
    named = named_network(options)
    return find_weights(source, named.name, named.settings)


def _network(options: TrainOptions, here: Pretrained | None) -> str:
    """Return the name of the network that the weights are of."""
    if (name := named_network(options).name) is not None:
        return name
    if here is not None:
        return here.network_name
    row = checkpoints.find(options.weights) if options.weights else None
    return row.model if row is not None and row.model else DRAFT_MODEL
