"""Files of named entities: columns with a tag per character, JSON lines with spans, and datasets of Hugging Face."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..files import open_packed, text_lines
from ..resources import path as resource
from .entities import KINDS, SCHEMES, Entity, EntityText, EntityTexts, check_tags, entities_of
from .tables import read_rows, table_format

TAG = re.compile(r"O|[BIMES]-\S+")
DEMO = "demo"


def read_entities(
    source: str | os.PathLike, scheme: str | None = None, split: str | None = None, skip_malformed: bool = False
) -> EntityTexts:
    """
    Read texts with their entities.

    Args:
        source: a file, plain or packed (.gz, .xz, .bz2, .zst), or "demo", the packaged sentences. JSON lines (.jsonl), or
            a JSON list (.json), are objects with `text` and `entities`, a list of `{"start", "end", "type"}` or of `[start, end, type]`, in
            characters. Every other file has columns: a character (or word), then its tag in the last column, divided by
            spaces or tabs; a blank line ends a sentence. A folder is a dataset that `datasets` saved.
        scheme: "BIO", "BMES" or "IOBES"; by default recognised from the tags of the file.
        split: of a dataset with several.
        skip_malformed: leave out sentences whose tags break the scheme, and warn how many, instead of stopping at the
            first.

    Raises:
        OSError: there is no such file, or it is damaged.
        ValueError: something in the file is wrong; the message names file and line.
    """
    if source == DEMO:
        source = resource("demo_entities.jsonl")
    path = Path(source)
    if path.is_dir():
        return _read_saved_dataset(path, scheme, split, skip_malformed)
    if not path.exists():
        raise OSError(f"there is no file {path}")
    if table_format(path) in (".jsonl", ".json"):
        read = EntityTexts(path.name, tuple(_from_spans(row.values, row.where) for row in read_rows(path)))
    else:
        with open_packed(path) as stream:
            lines = [line.rstrip("\r\n") for _, line in text_lines(stream, path)]
        read = _columns(lines, path, scheme, skip_malformed)
    if not read.texts:
        raise ValueError(f"{path} has no sentence")
    return read


def from_dataset(
    dataset: Iterable[Mapping[str, Any]], name: str, scheme: str | None = None, skip_malformed: bool = False
) -> EntityTexts:
    """
    The rows of a dataset, which have either `tokens` and `ner_tags`, or `text` and `entities`.

    Args:
        dataset: a `Dataset` of Hugging Face, or any rows. Tags may be numbers if the dataset's features name them.
        name: for messages.
        scheme, skip_malformed: as for `read_entities`.

    Raises:
        ValueError: something in a row is wrong; the message names the row.
    """
    names = _tag_names(dataset)
    rows = list(dataset)
    if rows and "tokens" not in rows[0]:
        return EntityTexts(name, tuple(_from_spans(row, f"{name} row {i}") for i, row in enumerate(rows)))
    sentences = []
    for number, row in enumerate(rows):
        where = f"{name} row {number}"
        if "tokens" not in row or "ner_tags" not in row:
            raise ValueError(f"{where} must have tokens and ner_tags, it has {', '.join(row)}")
        tags = [names[tag] if names is not None and isinstance(tag, int) else str(tag) for tag in row["ner_tags"]]
        if len(tags) != len(row["tokens"]):
            raise ValueError(
                f"{where} must have one tag per token, got {len(tags)} tags for {len(row['tokens'])} tokens"
            )
        for tag in tags:
            _check_tag(tag, where)
        sentences.append((list(row["tokens"]), tags, [where] * max(len(tags), 1)))
    return _of_sentences(sentences, name, scheme, skip_malformed)


def _read_saved_dataset(path: Path, scheme: str | None, split: str | None, skip_malformed: bool) -> EntityTexts:
    from datasets import DatasetDict, load_from_disk

    try:
        dataset = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise OSError(f"{path} is no dataset that `datasets` has saved: {error}") from error
    if isinstance(dataset, DatasetDict):
        if split not in dataset:
            raise ValueError(f"split of {path} must be one of {', '.join(dataset)}, got {split!r}")
        dataset = dataset[split]
    name = path.name if split is None else f"{path.name} {split}"
    return from_dataset(dataset, name, scheme, skip_malformed)


def _tag_names(dataset: Any) -> list[str] | None:
    feature = (getattr(dataset, "features", None) or {}).get("ner_tags")
    return getattr(getattr(feature, "feature", None), "names", None)


# ---------------------------------------------------------------------------------------------- spans


def _from_spans(record: Mapping[str, Any], where: str) -> EntityText:
    text = record.get("text")
    if not isinstance(text, str):
        raise ValueError(f"{where}: `text` must be a string, got {text!r}")
    entities = record.get("entities")
    if not isinstance(entities, list):
        raise ValueError(f"{where}: `entities` must be a list, got {entities!r}")
    return EntityText(text, tuple(sorted(_entity(given, where) for given in entities)), where)


def _entity(given: Any, where: str) -> Entity:
    if isinstance(given, Mapping):
        given = [given.get("start"), given.get("end"), given.get("type", given.get("label"))]
    if not isinstance(given, list | tuple) or len(given) != 3:
        raise ValueError(f"{where}: an entity must have start, end and type, got {given!r}")
    start, end, type_ = given
    if not (type(start) is int and type(end) is int):
        raise ValueError(f"{where}: start and end of an entity must be whole numbers, got {start!r} and {end!r}")
    if not isinstance(type_, str) or not type_ or any(char.isspace() for char in type_):
        raise ValueError(f"{where}: the type of an entity must be a word without spaces, got {type_!r}")
    return Entity(start, end, type_)


# ---------------------------------------------------------------------------------------------- columns


def _columns(lines: list[str], path: Path, scheme: str | None, skip_malformed: bool) -> EntityTexts:
    sentences: list[tuple[list[str], list[str], list[str]]] = []
    tokens: list[str] = []
    tags: list[str] = []
    places: list[str] = []
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        return EntityTexts(path.name, (), scheme)
    for number, line in enumerate([*lines, ""], 1):
        where = f"{path} line {number}"
        if not line.strip():
            if not tokens:
                raise ValueError(f"{where}: the sentence is empty: there is a blank line too many")
            sentences.append((tokens, tags, places))
            tokens, tags, places = [], [], []
            continue
        columns = line.split()
        if len(columns) < 2:
            raise ValueError(f"{where}: there must be a character and its tag, got {line!r}")
        _check_tag(columns[-1], where)
        tokens.append(columns[0])
        tags.append(columns[-1])
        places.append(where)
    return _of_sentences(sentences, path.name, scheme, skip_malformed)


def _check_tag(tag: str, where: str) -> None:
    if not TAG.fullmatch(tag):
        raise ValueError(f"{where}: a tag must be O, or B, I, M, E or S with a type, such as B-PER, got {tag!r}")


def _of_sentences(
    sentences: list[tuple[list[str], list[str], list[str]]], name: str, scheme: str | None, skip_malformed: bool
) -> EntityTexts:
    scheme = _scheme_of(sentences, scheme)
    texts, skipped = [], []
    for tokens, tags, places in sentences:
        if not tokens:
            raise ValueError(f"{places[0]}: the sentence is empty")
        try:
            check_tags(tags, scheme, places)
        except ValueError as error:
            if not skip_malformed:
                raise
            skipped.append(error)
            continue
        offsets, at = [], 0
        for token in tokens:
            offsets.append((at, at + len(token)))
            at += len(token)
        texts.append(EntityText("".join(tokens), entities_of(tags, scheme, offsets), places[0]))
    if skipped:
        warnings.warn(
            f"{len(skipped)} malformed sentences are left out, the first because of {skipped[0]}", stacklevel=2
        )
    return EntityTexts(name, tuple(texts), scheme)


def _scheme_of(sentences: list[tuple[list[str], list[str], list[str]]], given: str | None) -> str:
    """The scheme that was given, or the only one that allows all kinds of tags that occur."""
    if given is not None and given not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {given!r}")
    allowed = [given] if given else ["BIO", "BMES", "IOBES"]
    seen = "O"
    for _, tags, places in sentences:
        for tag, place in zip(tags, places, strict=True):
            left = [scheme for scheme in allowed if tag[0] in KINDS[scheme] + "O"]
            if not left:
                kind = f"the scheme {given}" if given else f"one scheme with the tags before it ({', '.join(seen)})"
                raise ValueError(f"{place}: {tag} does not belong to {kind}; schemes must not be mixed")
            allowed = left
            if tag[0] not in seen:
                seen += tag[0]
    return allowed[0]
