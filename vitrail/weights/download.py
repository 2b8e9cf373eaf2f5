"""Download from the hub, or from the mirror in `HF_ENDPOINT`, to the cache: with resume and a check of the hash."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

from vitrail.core.cache import place, places
from vitrail.core.environment import hub_endpoint, offline
from vitrail.core.errors import WeightsError
from vitrail.core.files import make_folder
from vitrail.weights.files import shard_names

SECONDS = 5
"""Timeout of requests to the hub."""


class WeightsUnavailableError(WeightsError):
    """Weights that are not available now: `trouble` says why, `ways` are alternatives with their commands.

    The last one, random weights, helps a training alone.
    """

    def __init__(self, what: str, why: str, repo: str) -> None:
        self.ways = (
            f"Fetch {hub_endpoint()}/{repo} by other means, then: vitrail weights add FOLDER",
            "Use a mirror: HF_ENDPOINT=https://… before the command",
            "Start from random weights: --weights none",
        )
        self.trouble = f"{what} cannot be had: {why}."
        super().__init__(f"{self.trouble} {ways_out(self.ways)}")


def ways_out(ways: Sequence[str]) -> str:
    """Return alternatives as numbered sentences."""
    return "Ways out: " + " ".join(f"({i}) {way}." for i, way in enumerate(ways, 1))


class _Remote(NamedTuple):
    url: str
    etag: str
    size: int | None


def folders(repo: str) -> tuple[Path, ...]:
    """Return the folders in which the files of a repository may be cached."""
    return tuple(place / repo.replace("/", "--") for place in places("weights"))


def cached(repo: str, files: Sequence[str]) -> Path | None:
    """Return the first of these files that is in the cache, with all shards if it is an index, or None."""
    paths = (folder / name for folder in folders(repo) for name in files)
    here = (path for path in paths if os.path.isfile(path))
    return next((p for p in here if all((p.parent / shard).is_file() for shard in _shards(p))), None)


def fetch(repo: str, files: Sequence[str], beside: Sequence[str] = ()) -> Path:
    """Return the first of `files` that a repository has, from the cache or the hub; `beside` are optional files.

    The shards of an index are downloaded with it.

    Raises:
        WeightsUnavailableError: a file is not available.
        WeightsError: a downloaded file does not have the hash that the hub states.
    """
    if found := cached(repo, files):
        return found
    if offline():
        raise WeightsUnavailableError(repo, "HF_HUB_OFFLINE forbids the network", repo)
    for name in beside:
        _fetch(repo, name)
    for name in files:
        if (path := _fetch(repo, name)) is None:
            continue
        if missing := [shard for shard in _shards(path) if _fetch(repo, shard) is None]:
            raise WeightsUnavailableError(repo, f"{hub_endpoint()} lacks {', '.join(missing)}", repo)
        return path
    raise WeightsUnavailableError(repo, f"{hub_endpoint()} has none of {', '.join(files)} in it", repo)


def _shards(path: Path) -> list[str]:
    return shard_names(path) if path.name.endswith(".index.json") else []


def _fetch(repo: str, name: str) -> Path | None:
    """Return one file from the cache or the hub, or None if the repository does not have it."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    if found := next((one for one in folders(repo) if os.path.isfile(one / name)), None):
        return found / name
    if (remote := _look(repo, name)) is None:
        return None
    target = place("weights") / repo.replace("/", "--") / name
    make_folder(target.parent)
    # The name contains the hub's hash, so that a partial file is completed only by the rest of the same file.
    partial = target.with_name(f".{name}.{remote.etag[:16]}.partial")
    try:
        with partial.open("ab") as handle:
            if remote.size is not None and handle.tell() > remote.size:
                handle.truncate(0)
                handle.seek(0)
            start, size = handle.tell(), remote.size
            http_get(remote.url, handle, resume_size=start, headers=build_hf_headers(), expected_size=size)
    except (HfHubHTTPError, HTTPError, OSError) as error:
        why = f"the download broke off ({_brief(error)}); the same command goes on from there"
        raise WeightsUnavailableError(repo, why, repo) from error
    _check(partial, remote, target)
    os.replace(partial, target)
    return target


def _look(repo: str, name: str) -> _Remote | None:
    """Return the hash and size of a file on the hub; None if the repository does not have it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    hub = hub_endpoint()
    url = hf_hub_url(repo, name, endpoint=hub)
    try:
        found = get_hf_file_metadata(url, timeout=SECONDS, endpoint=hub)
    except RemoteEntryNotFoundError:
        return None
    except GatedRepoError as error:
        why = "its owner asks you to accept terms first; do so there and log in with `hf auth login`"
        raise WeightsUnavailableError(repo, why, repo) from error
    except RepositoryNotFoundError as error:
        raise WeightsUnavailableError(repo, f"{hub} knows no such repository", repo) from error
    except (HfHubHTTPError, HTTPError, FileMetadataError, OSError) as error:
        why = f"{hub} did not answer well within {SECONDS} s ({_brief(error)})"
        raise WeightsUnavailableError(repo, why, repo) from error
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", found.etag or ""):
        raise WeightsUnavailableError(repo, f"{hub} states no hash, so {name} could not be checked", repo)
    return _Remote(url, cast(str, found.etag), found.size)


def _check(path: Path, remote: _Remote, target: Path) -> None:
    """Compare a download with the hub's hash: SHA-256 of large files, git's SHA-1 of small ones."""
    blob = b"blob %d\0" % path.stat().st_size  # the prefix that git hashes before the content
    small = len(remote.etag) == 40
    digest = hashlib.sha1(blob, usedforsecurity=False) if small else hashlib.sha256()
    with path.open("rb") as handle:
        while piece := handle.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != remote.etag:
        path.unlink()
        raise WeightsError(
            f"{target.name} from {remote.url} is not what the hub promised (hash {digest.hexdigest()[:12]}…, "
            f"promised {remote.etag[:12]}…); it was removed: try again, or another mirror."
        )


def _brief(error: BaseException) -> str:
    return str(error).partition("\n")[0][:100] or type(error).__name__
