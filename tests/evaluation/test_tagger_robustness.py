"""Measuring taggers: gold spans follow attacks, and the report, the predictions and the scores say the same."""

import json

import pytest

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.attacks.attacked_text import AttackedText, Edit
from rocbert_hf.attacks.synthesizer import AdversarialSynthesizer
from rocbert_hf.data.entities import Entity, EntityText, entities_of, label_names
from rocbert_hf.data.entity_files import read_entities
from rocbert_hf.evaluation.tagger_robustness import (
    TaggedSet,
    TaggerEvaluationOptions,
    attacked_entities,
    evaluate_tagger,
    report,
    run_tagger_evaluation,
)
from rocbert_hf.finetuning import StartOptions
from rocbert_hf.finetuning.tagger import EntityTagger, token_offsets
from rocbert_hf.finetuning.tagging import TaggerOptions, make_tagger


@pytest.fixture(scope="module")
def tagger():
    labels = label_names(["LOC", "ORG", "PER"], "BMES")
    return EntityTagger(*make_tagger(StartOptions(preset="tiny"), TaggerOptions(), labels, "BMES"))


def test_gold_spans_follow_the_characters_as_align_labels_says():
    for text in read_entities("demo").texts[:60]:
        attacked = AdversarialSynthesizer("paper").attack(text.text, seed=1)
        moved = attacked_entities(text, attacked)
        if moved is not None:
            assert moved.tags("BMES") == attacked.align_labels(text.tags("BMES"), "BMES")


def test_a_split_character_grows_its_entity_and_a_deleted_entity_drops_its_text():
    text = EntityText("科比赢了", (Entity(0, 2, "PER"),))
    split = AttackedText("科比赢了", "禾斗比赢了", (Edit((0, 1), (0, 2), ("split",)),))
    assert attacked_entities(text, split).entities == (Entity(0, 3, "PER"),)
    gone = AttackedText("科比赢了", "赢了", (Edit((0, 2), (0, 0), ("delete",)),))
    assert attacked_entities(text, gone) is None
    with pytest.raises(ValueError, match="attacked must be of the text"):
        attacked_entities(EntityText("别的"), split)


def test_a_tagger_that_reads_no_zero_width_characters_can_find_every_entity_among_them():
    tokenizer, synthesizer = RoCBertTokenizer(), AdversarialSynthesizer({"attacks": ["zero_width"], "ratio": 0.5})
    joined = 0
    for text in read_entities("demo").texts[:100]:
        attacked = synthesizer.attack(text.text, seed=0)
        moved = attacked_entities(text, attacked)
        joined += "\u200d" in moved.text
        offsets = token_offsets(tokenizer, moved.text)
        # the tokens are those of the source, and so are their tags
        assert len(offsets) == len(token_offsets(tokenizer, text.text))
        tags = text.tags("BMES", token_offsets(tokenizer, text.text))
        assert entities_of(tags, "BMES", offsets) == moved.entities
    assert joined > 20


def test_the_same_seed_attacks_in_the_same_way_and_unknown_types_are_named(tagger):
    texts = read_entities("demo")
    few = type(texts)("few", texts.texts[:6])
    first, second = (evaluate_tagger(tagger, few, ["phonetic", "all"], seed=3) for _ in "ab")
    assert [part.name for part in first] == ["clean", "phonetic", "all"]
    assert first == second
    assert any(a.text != b.text for a, b in zip(first[0].texts, first[1].texts, strict=True))
    with pytest.raises(ValueError, match="must be one of LOC, ORG, PER, got 'BOOK'"):
        evaluate_tagger(tagger, type(texts)("few", (EntityText("红楼梦", (Entity(0, 3, "BOOK"),)),)))


def test_report_scores_and_predictions_say_the_same(tmp_path, tagger, capsys):
    tagger.model.save_pretrained(tmp_path / "model")
    tagger.tokenizer.save_pretrained(tmp_path / "model")
    options = TaggerEvaluationOptions(
        model=str(tmp_path / "model"), test_file="demo", output_dir=tmp_path / "out", attacks=["visual"], limit=12
    )
    scores = run_tagger_evaluation(options)
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == scores
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    for name in ("clean", "visual"):
        of_set = [row for row in rows if row["set"] == name]
        assert len(of_set) == scores[name]["texts"]
        assert sum(len(row["found"]) for row in of_set) == scores[name]["all"]["found"]
        right = sum(entity in row["entities"] for row in of_set for entity in row["found"])
        assert right == scores[name]["all"]["right"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert f"{scores['visual']['all']['f1']:.4f}" in page
    assert "visual" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_ends_it_before_the_work(tmp_path, tagger, monkeypatch):
    tagger.model.save_pretrained(tmp_path / "model")
    tagger.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "file").touch()
    options = TaggerEvaluationOptions(str(tmp_path / "model"), "demo", output_dir=tmp_path / "file" / "out")
    monkeypatch.setattr("rocbert_hf.evaluation.tagger_robustness.evaluate_tagger", pytest.fail)
    with pytest.raises(OSError, match="file"):
        run_tagger_evaluation(options)
    with pytest.raises(ValueError, match="device must be one that torch can use here, such as cpu, got 'gpu'"):
        TaggerEvaluationOptions("model", "demo", device="gpu")
    with pytest.raises(ValueError, match=r"ratio needs attacks, got 0\.3 without them"):
        TaggerEvaluationOptions("model", "demo", ratio=0.3)


def test_the_report_names_what_cannot_be_seen():
    text = EntityText("李雷\u202e在北京\x1b\ud800", (Entity(0, 2, "PER"),))
    page = report([TaggedSet("clean", (text,), ((),))], "tests", "model")
    assert "<U+202E>在北京<U+001B><U+D800>".replace("<", "&lt;").replace(">", "&gt;") in page
    assert "\u202e" not in page
    page.encode()  # half a surrogate pair cannot be written


def test_the_report_marks_what_was_missed_and_what_was_wrong_and_escapes_texts():
    text = EntityText("<b>李雷在北京", (Entity(3, 5, "PER"), Entity(6, 8, "LOC")))
    page = report([TaggedSet("clean", (text,), ((Entity(3, 5, "ORG"),),))], "<few>", "model")
    assert '<span class="gold wrong">李雷</span><sub>PER</sub>' in page
    assert '<span class="wrong">李雷</span><sub>ORG</sub>' in page
    assert "missed: 北京 (LOC) → nothing" in page
    assert "<b>李" not in page
    assert "<few>" not in page
