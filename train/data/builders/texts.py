"""Texts: in pairs, with a class each, with a tag a word, and passages with questions on them."""

import hashlib
import json
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from train.data import embedded
from train.data.builders.base import TEST_SHARE, Embedded, ragged
from train.data.builders.cloze import cloze


def _read_tsv(filename: str) -> dict[str, np.ndarray]:
    """Columns of text; the first line names them, nothing is quoted."""
    names, *table = [line.split("\t") for line in embedded.read(filename).split("\n") if line]
    columns = zip(*table, strict=True)
    return {n: np.array(c, np.object_) for n, c in zip(names, columns, strict=True)}


class Bible(Embedded):
    """30,121 verses in English and Spanish in the order of the English book, and by whole books."""

    name = "bible"
    # Of each kind of book, and none with a near twin among the others, as the gospels but John are.
    VALID = ("Judg", "Hos", "2Cor")
    TEST = ("Ruth", "Esth", "Eccl", "Dan", "Jonah", "John", "Phil", "Jas")

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        number = tfds.features.Scalar(dtype=np.int32)
        return self._describe(
            {"book": text, "chapter": number, "verse": number, "en": text, "es": text},
            "Verses of the World English Bible beside those of the Reina-Valera of 1909.",
            "https://ebible.org",
            *("en", "es"),
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        columns = _read_tsv("bible_en_es.tsv.xz")
        columns |= {name: columns[name].astype(np.int32) for name in ("chapter", "verse")}
        return columns, {"verses": np.ones(len(columns["book"]), bool), **_by_book(columns["book"])}


def _by_book(books: np.ndarray) -> dict[str, np.ndarray]:
    """Which rows are in which split, by the book that they are of."""
    valid, test = (np.isin(books, names) for names in (Bible.VALID, Bible.TEST))
    return {"train": ~(valid | test), "valid": valid, "test": test}


class BibleCloze(Embedded):
    """Questions made of the English Bible, in the form of SQuAD, and by whole books."""

    name = "bible_cloze"
    PASSAGE = 3  # verses before the one that asks

    def _info(self) -> tfds.core.DatasetInfo:
        text, number = tfds.features.Text(), tfds.features.Scalar(dtype=np.int32)
        return self._describe(
            {
                "id": text,
                "title": text,
                "context": text,
                "question": text,
                "answers": tfds.features.Sequence({"text": text, "answer_start": number}),
            },
            "Verses of the World English Bible from which a phrase is left out that stands in the "
            f"{self.PASSAGE} verses before them, too.",
            "https://ebible.org",
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        verses = _read_tsv("bible_en_es.tsv.xz")
        rows: list[dict[str, Any]] = []
        for i in range(self.PASSAGE, len(verses["en"])):
            book, first = verses["book"][i], i - self.PASSAGE
            name = f"{book} {verses['chapter'][i]}:{verses['verse'][i]}"
            passage = " ".join(verses["en"][first:i])
            if verses["book"][first] == book and (made := cloze(passage, verses["en"][i], name)):
                rows.append({"id": name, "title": book, "context": passage, **made})
        columns = {name: ragged([row[name] for row in rows]) for name in rows[0]}
        return columns, _by_book(columns["title"])


class Vader(Embedded):
    """Sentences of reviews, news and tweets, each rated by about twenty people."""

    name = "vader"

    def _info(self) -> tfds.core.DatasetInfo:
        return self._describe(
            {
                "text": tfds.features.Text(),
                "label": tfds.features.ClassLabel(names=["negative", "positive"]),
                "rating": tfds.features.Scalar(dtype=np.float32),
                "source": tfds.features.Text(),
            },
            "Sentences with the sign of their mean rating (-4 to 4), those near 0 left out; train "
            "and test are of film and product reviews, whole reviews in one of the two.",
            "https://github.com/cjhutto/vaderSentiment",
            *("text", "label"),
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        table = _read_tsv("vader_sentiment.tsv.xz")
        rating = table["rating"].astype(np.float32)
        clear = np.abs(rating) >= 0.5
        reviews = clear & np.isin(table["source"], ("movie", "amazon"))
        digests = [hashlib.sha256(f"vader:{group}".encode()).digest() for group in table["group"]]
        test = np.array([digest[0] < TEST_SHARE * 256 for digest in digests])
        columns = {
            "text": table["text"],
            "label": (rating > 0).astype(np.int64),
            "rating": rating,
            "source": table["source"],
        }
        others = {name: clear & (table["source"] == name) for name in ("nyt", "tweets")}
        return columns, {"train": reviews & ~test, "test": reviews & test, **others}


class Intents(Embedded):
    """20,000 commands to a house: what is wanted, and which words say where, what and how much."""

    name = "intents"

    def _info(self) -> tfds.core.DatasetInfo:
        self._table = [json.loads(line) for line in embedded.read("intents.jsonl.xz").splitlines()]
        label, sequence = tfds.features.ClassLabel, tfds.features.Sequence
        tags = {tag for row in self._table for tag in row["slots"]}
        return self._describe(
            {
                "tokens": sequence(tfds.features.Text()),
                "slots": sequence(label(names=sorted(tags))),
                "intent": label(names=sorted({row["intent"] for row in self._table})),
                "template": tfds.features.Scalar(dtype=np.int32),
            },
            "Commands to a house made from human-written templates, with BIO tags of their slots; "
            "whole templates in one split.",
            "https://github.com/OHF-Voice/intents",
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        table = self._table
        columns = {name: ragged([row[name] for row in table]) for name in ("tokens", "slots")}
        columns |= {name: np.array([row[name] for row in table]) for name in ("intent", "template")}
        splits = np.array([row["split"] for row in table])
        return columns, {name: splits == name for name in ("train", "valid", "test")}


class DebianSynopsis(Embedded):
    """20,000 descriptions of programs, each summed up by its maintainer in one line."""

    name = "debian_synopsis"

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        return self._describe(
            {"description": text, "synopsis": text, "package": text},
            "Descriptions of Debian packages (25 to 200 words) and their synopses (3 to 17); all "
            "packages of one source in one split.",
            "https://www.debian.org/distrib/packages",
            *("description", "synopsis"),
        )

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        table = _read_tsv("debian_synopsis.tsv.xz")
        columns = {name: table[name] for name in ("description", "synopsis", "package")}
        return columns, {name: table["split"] == name for name in ("train", "valid", "test")}
