"""Entity files: what is read, what is refused and where, cutting, and scores equal to seqeval's and nervaluate's."""

import gzip
import json
import random
import re

import pytest
from datasets import ClassLabel, Dataset, Features, Sequence, Value

from rocbert_hf.data.entities import SCHEMES, Entity, EntityText, cut, entities_of, label_names
from rocbert_hf.data.entity_files import from_dataset, read_entities
from rocbert_hf.data.entity_metrics import NOTHING, entity_errors, entity_scores, type_confusion

TEXT = EntityText("李雷在北京大学读书", (Entity(0, 2, "PER"), Entity(3, 7, "ORG")))


def columns(tmp_path, lines: str, name="some.txt"):
    file = tmp_path / name
    file.write_text(lines, encoding="utf-8")
    return file


def as_columns(text: EntityText, scheme: str) -> str:
    return "".join(f"{char} {tag}\n" for char, tag in zip(text.text, text.tags(scheme), strict=True))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tags_and_entities_are_each_other_in_every_scheme(tmp_path, scheme):
    longer = EntityText(TEXT.text + "张" + TEXT.text, (*TEXT.entities, Entity(9, 10, "PER"), Entity(10, 12, "PER")))
    file = tmp_path / "packed.bmes.gz"
    file.write_bytes(gzip.compress((as_columns(TEXT, scheme) + "\n" + as_columns(longer, scheme)).encode()))
    read = read_entities(file)
    assert read.scheme == scheme
    assert [text.entities for text in read.texts] == [TEXT.entities, longer.entities]
    assert read.texts[1].where.endswith("line 11")
    assert entities_of(longer.tags(scheme), scheme) == longer.entities


def test_json_lines_and_datasets_give_the_same_texts(tmp_path):
    spans = [{"start": e.start, "end": e.end, "type": e.type} for e in TEXT.entities]
    file = columns(tmp_path, json.dumps({"text": TEXT.text, "entities": spans}) + "\n", "a.jsonl")
    assert read_entities(file).texts[0].entities == TEXT.entities
    names = label_names(["PER", "ORG"], "BIO")
    features = Features({"tokens": Sequence(Value("string")), "ner_tags": Sequence(ClassLabel(names=list(names)))})
    row = {"tokens": list(TEXT.text), "ner_tags": [names.index(tag) for tag in TEXT.tags("BIO")]}
    dataset = Dataset.from_list([row], features=features)
    assert from_dataset(dataset, "d").texts[0].entities == TEXT.entities
    dataset.save_to_disk(str(tmp_path / "saved"))
    assert read_entities(tmp_path / "saved").texts[0].text == TEXT.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "大 B-LOC\n连 E-LOC\n\n李 B-PER\n在 O\n",
            "line 5: the entity that B-PER belongs to has no end in the scheme BMES",
        ),
        ("李 B-PER\n雷 M-PER\n", "line 2: the entity that M-PER belongs to has no end in the scheme BMES"),
        ("李 O\n雷 I-PER\n", "line 2: I-PER cannot follow O in the scheme BIO"),
        ("李 B-PER\n雷 E-LOC\n", "line 2: E-LOC cannot follow B-PER in the scheme BMES"),
        (
            "李 B-PER\n雷 I-PER\n\n王 B-PER\n小 M-PER\n",
            "line 5: M-PER does not belong to one scheme with the tags before",
        ),
        ("李 O\n\n\n在 O\n", "line 3: the sentence is empty"),
        ("李 PER\n", "line 1: a tag must be O, or B, I, M, E or S with a type, such as B-PER, got 'PER'"),
        ("李\n", "line 1: there must be a character and its tag, got '李'"),
    ],
)
def test_malformed_columns_are_refused_with_file_and_line(tmp_path, lines, message):
    with pytest.raises(ValueError, match=re.escape(f"some.txt {message}")) as error:
        read_entities(columns(tmp_path, lines))
    assert "\n" not in str(error.value)


def test_a_file_without_sentences_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"some.txt has no sentence"):
        read_entities(columns(tmp_path, "\n"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"text": "李雷", "entities": [[0, 2, "PER"], [1, 2, "LOC"]]},
            "must not overlap, got '李雷' (0..2) and '雷' (1..2)",
        ),
        ({"text": "李雷", "entities": [[0, 3, "PER"]]}, "must lie in 0..2"),
        ({"text": "李雷", "entities": [[1, 1, "PER"]]}, "at least one character"),
        ({"text": "cafe\u0301店", "entities": [[0, 4, "LOC"]]}, "splits a character: U+0301"),
        ({"text": "李\U0001f469\u200d\U0001f680", "entities": [[0, 2, "PER"]]}, "splits a character: U+200D at 2"),
        (
            {"text": "\U0001f469\U0001f3fd\u200d\U0001f680李", "entities": [[3, 5, "PER"]]},
            "splits a character: U+1F680",
        ),
        ({"text": "", "entities": []}, "the sentence is empty"),
        ({"text": "李雷", "entities": [[0, "2", "PER"]]}, "must be whole numbers"),
        ({"text": "李雷", "entities": [[0, 2]]}, "must have start, end and type"),
        ({"text": "李雷"}, "`entities` must be a list"),
        ({"entities": []}, "`text` must be a string"),
    ],
)
def test_malformed_spans_are_refused_with_file_and_line(tmp_path, record, message):
    good = json.dumps({"text": TEXT.text, "entities": []})
    with pytest.raises(ValueError, match=rf"a.jsonl line 2.*{re.escape(message)}"):
        read_entities(columns(tmp_path, good + "\n" + json.dumps(record) + "\n", "a.jsonl"))


def test_a_joiner_between_other_characters_than_emoji_joins_nothing():
    text = "在\u200d北京\u200d看"
    assert EntityText(text, (Entity(2, 4, "LOC"),)).entities[0].end == 4
    assert [piece.text for _, piece in cut(EntityText(text), 2)] == ["在\u200d", "北京", "\u200d看"]


def test_unknown_types_and_files_are_named(tmp_path):
    read = read_entities(columns(tmp_path, as_columns(TEXT, "BMES")))
    with pytest.raises(ValueError, match=r"line 1: the type of an entity must be one of LOC, PER, got 'ORG'"):
        read.check_types(["LOC", "PER"])
    with pytest.raises(OSError, match="there is no file"):
        read_entities(tmp_path / "nothing.bmes")


def test_malformed_sentences_can_be_left_out_with_a_warning(tmp_path):
    file = columns(tmp_path, as_columns(TEXT, "BMES") + "\n李 B-PER\n在 O\n")
    with pytest.warns(UserWarning, match="1 malformed sentences are left out, the first because of .*line 12"):
        assert len(read_entities(file, skip_malformed=True)) == 1


def test_the_packaged_sentences_are_200_with_three_types():
    read = read_entities("demo")
    assert len({text.text for text in read.texts}) == 200
    assert read.types() == ("LOC", "ORG", "PER")


def test_long_texts_are_cut_at_sentence_ends_and_never_inside_an_entity():
    rng = random.Random(0)
    for _ in range(50):
        text, entities = "", []
        for _ in range(rng.randint(5, 20)):
            text += "字" * rng.randint(0, 12)
            if rng.random() < 0.7:
                entities.append(Entity(len(text), len(text) + rng.randint(1, 6), "X"))
                text += "名" * (entities[-1].end - entities[-1].start)
            text += rng.choice(["。", "，", ""])
        whole, limit = EntityText(text, tuple(entities)), rng.randint(8, 30)
        pieces = cut(whole, limit)
        assert "".join(piece.text for _, piece in pieces) == text
        assert all(len(piece.text) <= limit for _, piece in pieces)
        found = [Entity(e.start + at, e.end + at, e.type) for at, piece in pieces for e in piece.entities]
        assert found == entities
    ends = [piece.text[-1] for _, piece in cut(EntityText("他来了。" * 10), 10)]
    assert set(ends) == {"。"}


def test_an_entity_that_fits_nowhere_is_an_error():
    with pytest.raises(ValueError, match=r"f.txt, line 3: an entity must fit into 4 tokens"):
        cut(EntityText("在" + "名" * 6, (Entity(1, 7, "X"),), "f.txt, line 3"), 4)


def random_answers(seed: int):
    rng = random.Random(seed)
    gold, found = [], []
    for _ in range(60):
        spans, at = [], 0
        while at < 20:
            start = at + rng.randint(0, 4)
            spans.append(Entity(start, start + rng.randint(1, 4), rng.choice("XYZ")))
            at = spans[-1].end
        gold.append(tuple(spans))
        answers = []
        for span in spans:
            draw = rng.random()
            if draw < 0.5:
                answers.append(span)
            elif draw < 0.65:
                answers.append(span._replace(type=rng.choice("XYZ")))
            elif draw < 0.8 and span.end - span.start > 1:
                answers.append(span._replace(start=span.start + 1, type=rng.choice("XYZ")))
        found.append(tuple(answers))
    return gold, found


def test_scores_are_seqevals_in_strict_mode():
    metrics = pytest.importorskip("seqeval.metrics")
    from seqeval.scheme import IOBES

    gold, found = random_answers(0)
    tags = [[EntityText("字" * 40, e).tags("IOBES") for e in part] for part in (gold, found)]
    scores = entity_scores(gold, found)
    for name in ("precision", "recall", "f1"):
        expected = getattr(metrics, f"{name}_score")(*tags, mode="strict", scheme=IOBES)
        assert getattr(scores, name) == pytest.approx(expected)
    report = metrics.classification_report(*tags, mode="strict", scheme=IOBES, output_dict=True)
    for type_ in "XYZ":
        assert entity_scores(gold, found, type_).f1 == pytest.approx(report[type_]["f1-score"])


def test_errors_are_nervaluates():
    nervaluate = pytest.importorskip("nervaluate")
    gold, found = random_answers(1)
    as_dicts = [
        [[{"label": e.type, "start": e.start, "end": e.end - 1} for e in row] for row in part] for part in (gold, found)
    ]
    result = nervaluate.Evaluator(*as_dicts, tags=list("XYZ"), loader="dict").evaluate()["overall"]
    errors = entity_errors(gold, found)
    assert errors.correct == result["strict"].correct
    assert errors.missed == result["strict"].missed
    assert errors.spurious == result["strict"].spurious
    assert errors.correct + errors.type == result["exact"].correct
    assert errors.correct + errors.boundary == result["ent_type"].correct


def test_confusion_counts_what_was_found_for_each_entity():
    gold = [(Entity(0, 2, "PER"), Entity(3, 7, "ORG"))]
    found = [(Entity(0, 2, "LOC"), Entity(8, 9, "PER"))]
    assert type_confusion(gold, found) == {("PER", "LOC"): 1, ("ORG", NOTHING): 1, (NOTHING, "PER"): 1}
