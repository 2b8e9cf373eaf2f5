"""Vocabularies: equal to the published ones on odd texts, the same from captions in any order, honest about scripts."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitrail.core.errors import DataError, MissingExtraError, SettingError
from vitrail.data.vocabulary import clip_vocabulary, learnt_vocabulary, read_vocabulary

pytest.importorskip("tokenizers")
pytest.importorskip("ftfy")

CAPTIONS = (
    "a red bus in the rain",
    "two red buses beside a green tree",
    "一辆红色的公共汽车在雨里",
    "一辆绿色的公共汽车在树旁边",
    "une voiture rouge près de l’arbre",
    "a green car, a red car and a bus",
)
"""Captions in three languages; words come more than once."""
ODD = (
    tuple(chr(code) for code in range(32, 127)),
    tuple(chr(code) for code in range(0x0250)),
    ("'s", "'t", "'LL", "'re", "'ve", "'m", "'D", "it's", "'ſ", "ſ", "\u212a", "İ", "ß", "ﬆ", "ŉ"),
    ("🐈\u200d⬛", "🚀", "👨\u200d👩\u200d👧", "🇩🇪", "☕\ufe0f", "🏳\ufe0f\u200d🌈"),
    tuple(chr(code) for code in range(0x0300, 0x0370)),
    ("&lt;", "&amp;amp;", "&nbsp;", "&#x27;s", "&#8203;", "&eacute;", "&bogus;"),
    tuple(chr(code) for code in range(0x4E00, 0x4F00)),
    tuple(chr(code) for code in range(0x0620, 0x06D4)),
    ("\u200b", "\u200c", "\u200d", "\ufeff", "\u2060", "\xad"),
    tuple("0123456789٣४Ⅷ½²"),
    ("\x00", "\x1b[0m", "\x1c", "\x85", "\u2028", "\x7f", "\t", "\n", "\r\n"),
    ("hello", " ", "world", "Ã©", "â€œ", "_", "...", "!!!"),
)
"""Parts of odd texts."""


def odd_texts(number: int) -> list[str]:
    draw = random.Random(7)
    texts = ["", " ", "a" * 3000, "ab" * 2000, "\x00", "猫" * 100, "🚀" * 100]
    while len(texts) < number:
        parts = [sign for pool in draw.sample(ODD, draw.randint(1, 4)) for sign in pool]
        texts.append("".join(draw.choices(parts, k=draw.choice((1, 3, 10, 30, 200)))))
    return texts


def newer_than_python(text: str) -> bool:
    return any(unicodedata.category(sign) == "Cn" for sign in text)


@pytest.fixture(scope="module")
def clip():
    try:
        return clip_vocabulary()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def own():
    return learnt_vocabulary(CAPTIONS * 3, 500, context=24)


def test_the_original_tokenizer(clip, shared):
    golden = json.loads(shared("goldens/clip_tokenizer.json").read_text())
    assert clip.size == golden["vocab"]
    wide = replace(clip, context=400)
    for case in golden["cases"]:
        row = wide.tokens([case["text"]])[0]
        assert row[: len(case["ids"]) + 2].tolist() == [golden["sot"], *case["ids"], golden["eot"]], case[
            "text"
        ]
        assert not row[len(case["ids"]) + 2 :].any()


def test_a_thousand_odd_texts_as_open_clip(clip):
    reference = pytest.importorskip("open_clip.tokenizer").SimpleTokenizer()
    # A letter that Unicode got later than this Python is a letter for some of the packages only.
    texts = [text for text in odd_texts(1100) if not newer_than_python(reference.clean_fn(text))][:1000]
    assert len(texts) == 1000
    assert len(set(texts)) > 900
    assert np.array_equal(clip.tokens(texts), reference(texts).numpy())
    assert [clip.cut(text) for text in texts] == [len(reference.encode(text)) > 75 for text in texts]


def test_a_long_text_is_cut_and_keeps_its_end(clip):
    short, long = clip.tokens(["a cat " * 37 + "cat", "a cat " * 38])
    assert clip.tokens(["x"]).dtype == np.int64
    assert short[-1] == long[-1] == clip.size - 1
    assert short[:-2].tolist() == long[:-2].tolist()
    assert not clip.cut("a cat " * 37 + "cat")
    assert clip.cut("a cat " * 38)
    assert len(clip.pieces("a cat " * 100)) == 75


def test_nothing_is_imported_that_is_slow(clip):
    code = (
        "import sys; from vitrail.data.vocabulary import clip_vocabulary; clip_vocabulary().tokens(['a cat']);"
        "sys.exit(bool({'torch', 'open_clip', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pieces_are_the_words_of_the_text(clip):
    assert clip.pieces("A  RED bus, it's") == ("a", "red", "bus", ",", "it", "'s")


def test_scripts_that_the_tower_of_clip_cannot_read(clip):
    assert clip.unknown("a red bus, 1 % 🚀") == ()
    assert clip.unknown("") == ()
    assert clip.unknown("一辆红色的公共汽车") == ("Chinese",)
    assert clip.unknown("赤い bus и автобус") == ("Chinese", "Japanese", "Cyrillic")
    assert "Chinese letters" in clip.warning("红色的公共汽车")
    assert "Latin only" in clip.warning("红色的公共汽车")
    assert clip.warning("un café près d’un œuf") == ""


def test_captions_in_any_order_give_the_same_vocabulary(own):
    assert learnt_vocabulary(reversed(CAPTIONS * 3), 500, context=24) == own
    code = (
        "import sys; from vitrail.data.vocabulary import learnt_vocabulary as l;"
        f"sys.stdout.buffer.write(l(sorted({CAPTIONS!r}) * 3, 500, 24).text.encode())"
    )
    for seed in ("1", "2"):
        other = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        assert other.stdout.decode() == own.text


def test_a_learnt_vocabulary_is_small_and_knows_every_text(own):
    assert 258 < own.size <= 500
    assert len(own.text) < 10_000
    red = own.tokens(["a red bus"])[0]
    assert (red > 0).sum() == 5
    assert red.max() == own.size - 1
    texts = [*odd_texts(200), "\ud800 lone", "<start> <end>"]
    rows = own.tokens(texts)
    assert rows.shape == (202, 24)
    assert (rows < own.size).all()
    assert (rows == own.size - 1).sum() == 202
    assert (rows[:, 0] == own.size - 2).all()
    assert (own.tokens(["A  RED\tbus"])[0] == red).all()
    assert not (own.tokens(["a red zebra"])[0] == own.tokens(["a red zebru"])[0]).all()


def test_scripts_of_a_learnt_vocabulary(own):
    assert own.scripts >= {"Latin", "Chinese"}
    assert own.unknown("红色") == ()
    assert own.unknown("красный") == ("Cyrillic",)
    english = learnt_vocabulary([text for text in CAPTIONS * 3 if text.isascii()], 500)
    assert english.unknown("红色的汽车") == ("Chinese",)


def test_a_vocabulary_is_small_when_pickled(own):
    own.tokens(["a"])
    copy = pickle.loads(pickle.dumps(own))
    assert copy == own
    assert (copy.tokens(["a red"]) == own.tokens(["a red"])).all()
    assert len(pickle.dumps(own)) < len(own.text.encode()) + 500


def test_too_small_a_vocabulary_or_context():
    with pytest.raises(SettingError, match="258"):
        learnt_vocabulary(CAPTIONS, 100)
    with pytest.raises(SettingError, match="no room for words"):
        learnt_vocabulary(CAPTIONS, 500, context=2)


def bert(folder: Path, pad: str = "[PAD]") -> Path:
    """Write the vocabulary of a small sentence encoder."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    names = [pad, "[UNK]", "[CLS]", "[SEP]", "a", "red", "bus", "##es"]
    model = Tokenizer(
        models.WordPiece({name: number for number, name in enumerate(names)}, unk_token="[UNK]")
    )
    model.normalizer = normalizers.BertNormalizer()
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    model.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    model.enable_truncation(16)
    model.enable_padding(length=16)
    folder.mkdir()
    model.save(str(folder / "tokenizer.json"))
    return folder


def test_a_sentence_encoder(tmp_path):
    folder = bert(tmp_path / "minilm")
    vocabulary = read_vocabulary(folder)
    assert vocabulary.kind == "bert"
    assert vocabulary.context == 16
    assert vocabulary.size == 8
    assert vocabulary.tokens(["A red  buses!"])[0].tolist() == [2, 4, 5, 6, 7, 1, 3, *[0] * 9]
    assert replace(vocabulary, context=4).tokens(["a red bus"])[0].tolist() == [2, 4, 5, 3]
    assert vocabulary.unknown("红") == ("Chinese",)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 12}')
    assert read_vocabulary(folder / "tokenizer.json").context == 12
    assert read_vocabulary(folder, context=9).context == 9


def test_the_sentence_encoder_of_a_package():
    minilm = Path(os.environ.get("VITRAIL_MINILM", "/nowhere"))
    if not (minilm / "tokenizer.json").is_file():
        pytest.skip("VITRAIL_MINILM names no folder of a sentence encoder")
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoTokenizer.from_pretrained(minilm)
    vocabulary = read_vocabulary(minilm, context=64)
    texts = odd_texts(300)
    expected = reference(texts, padding="max_length", truncation=True, max_length=64)["input_ids"]
    assert vocabulary.tokens(texts).tolist() == expected


def test_folders_without_a_vocabulary_of_ours(tmp_path):
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        read_vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a vocabulary"):
        read_vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(DataError, match="cannot be used as a vocabulary"):
        read_vocabulary(tmp_path)
    with pytest.raises(DataError, match="padding as its first token"):
        read_vocabulary(bert(tmp_path / "other", pad="first"))


def test_the_file_of_clip_by_transformers_is_the_vocabulary_of_clip(clip, tmp_path):
    stored = json.loads(clip.text)
    stored["model"]["merges"] = [merge.split(" ") for merge in stored["model"]["merges"]]
    stored["normalizer"] = {"type": "NFC"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    assert read_vocabulary(tmp_path) == clip
