"""Words as tokens: the vocabularies of CLIP (Radford et al. 2021) and of sentence encoders or from captions."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vitrail.core.environment import variables
from vitrail.core.errors import DataError, SettingError
from vitrail.core.errors import MissingExtraError as Missing
from vitrail.core.text import reason
from vitrail.data.scripts import scripts_of

CONTEXT = 77
"""The length of a text in tokens, start and end included, as CLIP has it."""
ALPHABET = 256
_MERGES = 49152 - ALPHABET - 2
_SHARE, _PIECES = 0.02, 5
"""The share of its pieces that makes a script known to a vocabulary; the number, if it was learnt from captions."""
# The pattern of CLIP, without its flag for upper case: texts are in lower case. The flag also takes the long s (ſ)
# as an s, and leaves out the sign U+0345, because its upper case is a letter.
_CLIP_WORDS = r"'[sſ]|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}\x{345}]+"
_CLIP_ENDS = ("<|startoftext|>", "<|endoftext|>")
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What makes tokens of texts; `text` is the JSON of the library `tokenizers`, `context` the most tokens."""

    text: str
    context: int
    kind: Literal["clip", "own", "bert"]

    def __post_init__(self) -> None:
        if self.context < 3:
            raise SettingError(
                f"A text of {self.context} tokens has no room for words: start and end take two. Choose at least 3."
            )

    def __getstate__(self) -> dict[str, object]:
        return {"text": self.text, "context": self.context, "kind": self.kind}

    @property
    def of_clip(self) -> bool:
        """Whether it is that of CLIP, whose networks have read captions of every kind."""
        return self.kind == "clip"

    @property
    def size(self) -> int:
        """The number of tokens."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Return int64 (n, context): start, words and end, then zeros; a long text is cut and keeps its end."""
        rows = np.zeros((len(texts), self.context), np.int64)
        start, end = self._ends
        for row, text in zip(rows, texts, strict=True):
            ids = [start, *self._ids(text)[: self.context - 2], end]
            row[: len(ids)] = ids
        return rows

    def cut(self, text: str) -> bool:
        """Return whether a text is longer than the context, so that its last words are not read."""
        return len(self._ids(text)) > self.context - 2

    def pieces(self, text: str) -> tuple[str, ...]:
        """Return the part of the text for which each token between start and end stands, cut as `tokens` cuts it."""
        cleaned = self._clean(text)
        offsets = self._tokenizer.encode(cleaned, add_special_tokens=False).offsets
        return tuple(cleaned[first:last].strip() for first, last in offsets[: self.context - 2])

    @cached_property
    def scripts(self) -> frozenset[str]:
        """The scripts in which it has words: Latin, Chinese, Cyrillic…"""
        counts = Counter(script for piece in self._readable_pieces() for script in scripts_of(piece))
        least = _PIECES if self.kind == "own" else _SHARE * counts.total()
        return frozenset(script for script, count in counts.items() if count >= least)

    def unknown(self, text: str) -> tuple[str, ...]:
        """Return the scripts of a text for which it has hardly any pieces: such words fall into single bytes."""
        return tuple(script for script in scripts_of(text) if script not in self.scripts)

    def warning(self, text: str) -> str:
        """Return a sentence for users if it cannot read a text, "" if it can."""
        scripts = self.unknown(text)
        if not scripts:
            return ""
        own = " and ".join(sorted(self.scripts)) or "no script"
        return f"The text has {' and '.join(scripts)} letters, but the text tower has learnt words in {own} only."

    def _clean(self, text: str) -> str:
        """Return a text as it is read: entities of HTML resolved, spaces simple, lower case; "bert" has own rules."""
        if self.kind == "bert":
            return _SURROGATES.sub("\ufffd", text)
        if self.kind == "clip":
            text = _package("ftfy").fix_text(text)
        text = unescape(unescape(text)).strip()
        return _SURROGATES.sub("\ufffd", " ".join(text.split()).lower())

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(self._clean(text), add_special_tokens=False).ids)

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = _package("tokenizers").Tokenizer.from_str(self.text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _ends(self) -> tuple[int, int]:
        if self.kind == "bert":
            start, end = self._tokenizer.encode("").ids
            return start, end
        return self.size - 2, self.size - 1

    def _readable_pieces(self) -> Iterator[str]:
        """Yield each piece that is text by itself, and not a part of a letter."""
        pieces = self._tokenizer.get_vocab(with_added_tokens=False)
        if self.kind == "bert":
            yield from pieces
            return
        of_sign = {sign: byte for byte, sign in _signs().items()}
        for piece in pieces:
            raw = (of_sign.get(sign) for sign in piece.removesuffix("</w>"))
            try:
                yield bytes(byte for byte in raw if byte is not None).decode()
            except UnicodeDecodeError:
                continue


def clip_vocabulary(context: int = CONTEXT) -> Vocabulary:
    """Return the vocabulary of CLIP, 49,408 tokens, from the file of the package open_clip_torch.

    Raises:
        MissingExtraError: a package is missing.
    """
    package = find_spec("open_clip")
    file = (
        Path(package.origin).parent / "bpe_simple_vocab_16e6.txt.gz" if package and package.origin else None
    )
    if file is None or not file.is_file():
        raise Missing(
            "The vocabulary of CLIP needs the package open_clip_torch: pip install 'vitrail[words]'."
        )
    with gzip.open(file, "rt", encoding="utf-8", newline="\n") as lines:
        merges = lines.read().split("\n")[1 : _MERGES + 1]
    return _of_merges([tuple(merge.split()) for merge in merges], context)


def learnt_vocabulary(captions: Iterable[str], size: int = 4096, context: int = CONTEXT) -> Vocabulary:
    """Return a vocabulary of at most `size` tokens, learnt from captions by byte pairs; no text is unknown to it.

    The same captions, in any order, give the same vocabulary.

    Raises:
        SettingError: `size` has no room for the 256 bytes, start and end.
        MissingExtraError: a package is missing.
    """
    if size < ALPHABET + 2:
        raise SettingError(
            f"A vocabulary of {size} tokens is too small: 256 bytes, start and end need 258. Choose 1000 or more."
        )
    tokenizers = _package("tokenizers")
    empty = Vocabulary(text="", context=context, kind="own")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.normalizer = tokenizers.normalizers.NFC()
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    # No end-of-word pieces: the library would number these in the order of a hash table.
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size - 2,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=list(_signs().values()),
    )
    # After threads of the library, each process that is forked prints a warning.
    with variables({"TOKENIZERS_PARALLELISM": "false"}):
        model.train_from_iterator((empty._clean(caption) for caption in captions), trainer)
    stored = json.loads(model.to_str())
    pieces = stored["model"]["vocab"]
    for name in ("<start>", "<end>"):  # pieces that no text can spell: its bytes are other signs
        pieces[f" {name}"] = len(pieces)
    return Vocabulary(text=_compact(stored), context=context, kind="own")


def read_vocabulary(path: Path, context: int | None = None) -> Vocabulary:
    """Return the vocabulary of a folder with a `tokenizer.json`, or of such a file; its context if none is given.

    Raises:
        DataError: there is no such file, it is broken, or of a kind that is not supported.
        MissingExtraError: a package is missing.
    """
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        stored = json.loads(file.read_text("utf-8"))
        model = stored["model"]
    except FileNotFoundError as error:
        raise DataError(
            f"There is no tokenizer.json in {path}. Choose the folder of a text encoder."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} cannot be read as a vocabulary ({reason(error)}). Choose another file."
        ) from error
    length = context or _stated_context(file, stored)
    if model.get("type") == "BPE" and model.get("end_of_word_suffix") == "</w>":
        merges = [
            tuple(merge.split()) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]
        ]
        return _of_merges(merges, length)
    _package("tokenizers")
    vocabulary = Vocabulary(text=_compact(stored), context=length, kind="bert")
    try:
        ends = vocabulary._ends
        pads = vocabulary._tokenizer.id_to_token(0)
    except Exception as error:  # the library raises plain exceptions of many kinds
        raise DataError(
            f"{file} cannot be used as a vocabulary ({reason(error)}). Choose another."
        ) from error
    if 0 in ends or str(pads).lower() not in {"[pad]", "<pad>"}:
        raise DataError(
            f"{file} has no padding as its first token, as vocabularies of BERT do. Choose another."
        )
    return vocabulary


def _stated_context(file: Path, stored: dict[str, Any]) -> int:
    """Return how long a text may be: what the sentence encoder says, else what the tokenizer says."""
    try:
        return int(
            json.loads((file.parent / "sentence_bert_config.json").read_text("utf-8"))["max_seq_length"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return int((stored.get("truncation") or {}).get("max_length") or CONTEXT)


def _of_merges(merges: Sequence[tuple[str, ...]], context: int) -> Vocabulary:
    signs = list(_signs().values())
    pieces = [*signs, *(f"{sign}</w>" for sign in signs), *("".join(merge) for merge in merges)]
    pieces += _CLIP_ENDS
    words = {"type": "Split", "pattern": {"Regex": _CLIP_WORDS}, "behavior": "Removed", "invert": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ends = [{"id": pieces.index(end), "content": end, **flags} for end in _CLIP_ENDS]
    stored = {
        "version": "1.0",
        "added_tokens": ends,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [words, level]},
        "model": {
            "type": "BPE",
            "end_of_word_suffix": "</w>",
            "vocab": {piece: number for number, piece in enumerate(pieces)},
            "merges": [" ".join(merge) for merge in merges],
        },
    }
    return Vocabulary(text=_compact(stored), context=context, kind="clip")


def _compact(stored: dict[str, Any]) -> str:
    return json.dumps(stored, ensure_ascii=False, separators=(",", ":"))


def _signs() -> dict[int, str]:
    """Return byte -> sign, in the order of GPT-2 and CLIP: printable bytes first, then the others from U+0100 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(ALPHABET) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(ALPHABET + n) for n, byte in enumerate(others)
    }


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise Missing(f"Words need the package {name}: pip install 'vitrail[words]'.") from error
