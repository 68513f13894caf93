"""The evaluator: the matrix end to end, going on after a kill, and one clear error for what does not fit."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import BertConfig, pipeline

from rocbert_hf import RoCBertTokenizer
from rocbert_hf.attackers import AdvAttacker, AttackerSpec, Example, GivenAttacks, ModelClassifier
from rocbert_hf.attacks import AttackedText
from rocbert_hf.data import LabelledTexts
from rocbert_hf.evaluation import MeanPooledEncoder, RobustnessEvaluator
from rocbert_hf.evaluation.metrics import mcnemar
from rocbert_hf.evaluation.records import JsonLines
from rocbert_hf.files import written_whole

GOOD = "好很喜值棒推满美"


def word_counter(queries):
    """A transparent victim: the more praise, the more positive. Of pairs it reads both texts."""
    counts = np.array([sum(text.count(char) for char in GOOD) for text in map("".join, queries)])
    positive = 1 / (1 + np.exp(1.0 - counts))
    return np.stack([1 - positive, positive], axis=1)


class ThreeLabels:
    """Says that it has three labels, and gives two."""

    model = SimpleNamespace(config=BertConfig(num_labels=3))

    def __call__(self, queries):
        return word_counter(queries)


class LabelsFromOne(ThreeLabels):
    """Numbers its two labels 1 and 2."""

    model = SimpleNamespace(config=BertConfig(id2label={1: "a", 2: "b"}))


def evaluate(models, tasks, folder, attackers=("adv", "argot"), **options):
    if not isinstance(attackers, dict):
        attackers = list(map(AttackerSpec.parse, attackers))
    return RobustnessEvaluator(models, attackers, tasks, folder, resamples=100, progress=False, **options).run()


def records_in(folder):
    return [json.loads(line) for line in (folder / "examples.jsonl").read_text(encoding="utf-8").splitlines()]


def reports_in(folder):
    return {name: (folder / name).read_bytes() for name in ("report.json", "report.md", "report.html")}


def test_models_of_any_library_end_to_end(tmp_path, folders, reviews):
    reviews = reviews.rows(range(0, len(reviews), 2))
    attackers = ["adv", "textfooler", "argot", "adv:split", "argot@0.1"]
    classifier = pipeline("text-classification", model=folders["bert"])
    models = {**folders, "pipeline": ModelClassifier(classifier), "words": word_counter}
    report = evaluate(models, {"reviews": reviews}, tmp_path, attackers)
    records = records_in(tmp_path)
    assert len(records) == len(reviews) * len(models) * len(attackers)
    for record in records:
        AttackedText.from_dict(record)
        assert record["perturbed"] <= (0.1 if record["attacker"] == "argot@0.1" else 0.2)
        assert (record["status"] == "skipped") == (record["prediction_before"] != record["label"])
        assert (record["status"] == "failed") == (record["prediction"] == record["label"])
    for attacker in attackers:
        for model in models:
            rows = [r for r in records if (r["attacker"], r["model"]) == (attacker, model)]
            numbers = report["attacked"]["reviews"][attacker][model]
            assert numbers["accuracy"]["value"] == pytest.approx(
                np.mean([r["prediction"] == r["label"] for r in rows]), abs=1e-6
            )
            assert numbers["accuracy"]["low"] <= numbers["accuracy"]["value"] <= numbers["accuracy"]["high"]
            assert sum(numbers["outcomes"].values()) == len(reviews)
            assert numbers["accuracy"]["value"] <= report["clean"]["reviews"][model]["accuracy"]["value"]
            successes, failures = numbers["outcomes"]["success"], numbers["outcomes"]["failed"]
            assert numbers["success_rate"]["value"] == pytest.approx(successes / (successes + failures), abs=1e-6)
            attacked = [r for r in rows if r["status"] != "skipped"]
            succeeded = [r for r in rows if r["status"] == "success"]
            for name, of, column in (
                ("perturbed_share", succeeded, "perturbed"),
                ("attempted_share", attacked, "perturbed"),
                ("similarity", succeeded, "similarity"),
                ("queries", attacked, "queries"),
            ):
                mean = pytest.approx(np.mean([r[column] for r in of]), abs=1e-6) if of else None
                assert numbers[name]["value"] == mean
            for name, counts in numbers["edits"].items():
                holding = [r for r in attacked if any(name in edit["attacks"] for edit in r["edits"])]
                assert counts == {"texts": len(holding), "successes": sum(r in succeeded for r in holding)}
            for label, kept in enumerate(numbers["kept"]):
                before = [r for r in rows if r["label"] == r["prediction_before"] == label]
                still = [r for r in before if r["prediction"] == label]
                assert kept == (pytest.approx(len(still) / len(before), abs=1e-6) if before else None)
    for name in ("clean", *attackers):  # the same model by another way is the same model
        of = report["clean"]["reviews"] if name == "clean" else report["attacked"]["reviews"][name]
        assert of["bert"] == of["pipeline"]
    (compared,) = [
        found for found in report["significance"] if (found["attacker"], found["models"]) == ("adv", ["ours", "words"])
    ]
    right = {
        model: [r["prediction"] == r["label"] for r in records if (r["attacker"], r["model"]) == ("adv", model)]
        for model in ("ours", "words")
    }
    assert compared["p_value"] == pytest.approx(mcnemar(right["ours"], right["words"]), abs=1e-6)
    pairs = list(zip(right["ours"], right["words"], strict=True))
    assert (compared["only_first_right"], compared["only_second_right"]) == (
        pairs.count((True, False)),
        pairs.count((False, True)),
    )
    difference = np.mean(right["ours"]) - np.mean(right["words"])
    assert compared["accuracy_difference"]["value"] == pytest.approx(difference, abs=1e-6)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report


def test_the_report_does_not_depend_on_how_the_victim_is_asked(tmp_path, reviews):
    both, met = threading.Barrier(2, timeout=30), []

    def endpoint(queries):
        if threading.current_thread() is not threading.main_thread() and len(met) < 2:
            met.append(both.wait())  # for a second call while this one is not answered
        return word_counter(queries)

    for size in (1, 64):
        evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path / str(size), batch_size=size)
    evaluate({"words": endpoint}, {"reviews": reviews}, tmp_path / "two", ["adv"], batch_size=4, num_workers=2)
    assert sorted(met) == [0, 1]
    evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path / "two")  # goes on, one call at a time
    assert reports_in(tmp_path / "1") == reports_in(tmp_path / "64") == reports_in(tmp_path / "two")


def test_an_evaluation_goes_on_wherever_it_was_cut_off(tmp_path, reviews):
    rng = random.Random(0)
    evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path)
    reports, lines = reports_in(tmp_path), (tmp_path / "examples.jsonl").read_bytes()
    whole = [{**record, "seconds": 0} for record in records_in(tmp_path)]
    for position in (0, 1, len(lines) - 1, *(rng.randrange(len(lines)) for _ in range(4))):
        (tmp_path / "examples.jsonl").write_bytes(lines[:position])  # mostly in the middle of a line
        (tmp_path / "report.json").unlink()
        evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path)
        assert reports_in(tmp_path) == reports
        assert [{**record, "seconds": 0} for record in records_in(tmp_path)] == whole


def test_a_finished_evaluation_asks_nothing(tmp_path, reviews):
    asked = []

    def counting(queries):
        asked.extend(queries)
        return word_counter(queries)

    evaluate({"words": counting}, {"reviews": reviews}, tmp_path)
    assert len(asked) > 100
    asked.clear()
    evaluate({"words": counting}, {"reviews": reviews}, tmp_path)
    assert len(asked) == 1  # for the number of its labels


def test_what_a_killed_run_left_half_written_is_removed_and_nothing_else(tmp_path, reviews):
    evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["adv"])
    whole, left = {file.name for file in tmp_path.iterdir()}, set()
    for name in whole - {"examples.jsonl"}:
        content = (tmp_path / name).read_bytes()
        with written_whole(tmp_path / name, binary=True) as stream:
            stream.write(content)
            (unfinished,) = {file.name for file in tmp_path.iterdir()} - whole - left
        left.add(unfinished)
    for name in left:  # as if each of them had been killed in between
        (tmp_path / name).write_text("half")
    own = {"report.md.bak", "notes.txt.abcdefgh", "report.html~"}
    for name in own:
        (tmp_path / name).write_text("mine")
    evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["adv"])
    assert {file.name for file in tmp_path.iterdir()} == whole | own


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs that are killed are forks of this one")
def test_killed_at_any_moment_and_started_again_it_ends_with_the_same_files(tmp_path, reviews):
    def run(folder):
        evaluate({"words": word_counter}, {"reviews": reviews}, folder, ["adv*3", "argot", "argot@0.1"])

    start = time.monotonic()
    run(tmp_path / "whole")
    seconds, whole = time.monotonic() - start, reports_in(tmp_path / "whole")
    names = {file.name for file in (tmp_path / "whole").iterdir()}
    random_moments = random.Random(os.getpid())
    for number in range(20):
        folder = tmp_path / str(number)
        child = multiprocessing.get_context("fork").Process(target=run, args=(folder,))
        child.start()
        child.join(random_moments.uniform(0, 1.1 * seconds))
        child.kill()
        child.join()
        run(folder)
        assert reports_in(folder) == whole
        assert {file.name for file in folder.iterdir()} == names


SCRIPT = """
import sys
from rocbert_hf.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_report(tmp_path, folders, reviews):
    data = tmp_path / "reviews.jsonl"
    rows = [{"text": text, "label": label} for text, label in zip(reviews.texts, reviews.labels, strict=True)]
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-c", SCRIPT, "evaluate", "--data", str(data), "--attackers", "adv,argot"]
    command += ["--model", folders["ours"], "--model", folders["bert"], "--output-dir"]
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True)
    lines = tmp_path / "killed" / "examples.jsonl"
    for enough in random.Random(os.getpid()).sample(range(1, len(reviews) * 3), 2):
        process = subprocess.Popen(
            [*command, tmp_path / "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and (not lines.exists() or lines.read_bytes().count(b"\n") < enough):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, tmp_path / "killed"], check=True, capture_output=True)
    assert reports_in(tmp_path / "killed") == reports_in(tmp_path / "whole")


def test_models_and_attackers_may_be_added_but_nothing_else_may_change(tmp_path, reviews):
    def constant(queries):
        return np.tile([0.3, 0.7], (len(queries), 1))

    evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["adv"])
    before = records_in(tmp_path)
    evaluate({"words": word_counter, "constant": constant}, {"reviews": reviews}, tmp_path, ["adv", "argot"])
    after = records_in(tmp_path)
    assert after[: len(before)] == before
    assert len(after) == 4 * len(before)
    evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["argot"])
    assert records_in(tmp_path) == after
    for named, changed in (
        ("seed was 0 and is 1", {"seed": 1}),
        ("tasks reviews was", {"tasks": {"reviews": reviews.rows(range(5))}}),
        ("attackers adv was", {"attackers": {"adv": AdvAttacker(max_share=0.1)}}),
    ):
        options = {"tasks": {"reviews": reviews}, "attackers": ["adv"]} | changed
        with pytest.raises(ValueError, match=named):
            evaluate({"words": word_counter}, folder=tmp_path, **options)
    (tmp_path / "settings.json").unlink()  # the lines know by themselves what they are of
    with pytest.raises(ValueError, match=r"examples.jsonl line 1 was measured with other settings"):
        evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["adv"], seed=1)
    assert records_in(tmp_path) == after


def test_another_model_under_the_same_name_is_noticed(tmp_path, folders, reviews):
    evaluate({"mine": folders["bert"]}, {"reviews": reviews.rows(range(3))}, tmp_path, ["adv"])
    with pytest.raises(ValueError, match="models mine on reviews was"):
        evaluate({"mine": folders["ours"]}, {"reviews": reviews.rows(range(3))}, tmp_path, ["adv"])


def test_pairs_are_judged_as_pairs_and_the_second_text_stays(tmp_path, folders, reviews):
    pairs = replace(reviews, pairs=tuple(reversed(reviews.texts))).rows(range(8))
    models = {"bert": folders["bert"], "words": word_counter}
    evaluate(models, {"pairs": pairs}, tmp_path, ["argot"])
    for record in records_in(tmp_path):
        if record["model"] == "words":
            pair = pairs.pairs[record["index"]]
            expected = word_counter([(record["text"], pair)])[0]
            assert record["probabilities_after"] == pytest.approx(expected.tolist(), abs=1e-5)
    classifier = ModelClassifier(folders["bert"])
    for record in records_in(tmp_path):
        if record["model"] == "bert":
            expected = classifier([(record["text"], pairs.pairs[record["index"]])])[0]
            assert record["probabilities_after"] == pytest.approx(expected.tolist(), abs=1e-4)


def test_labels_are_matched_by_name_whatever_their_order(tmp_path, folders, reviews):
    names = {"0": "负面", "1": "正面"}
    reviews = replace(reviews, labels=tuple(names[label] for label in reviews.labels))
    one, other = ModelClassifier(folders["bert"]), ModelClassifier(folders["bert"])
    one.model.config.id2label = {0: "负面", 1: "正面"}
    report = evaluate({"one": one}, {"reviews": reviews}, tmp_path / "one", ["adv"])
    # the same model with its labels turned around: answers and names both
    other.model.config.id2label = {0: "正面", 1: "负面"}
    other.model.classifier.weight.data = other.model.classifier.weight.data.flip(0)
    other.model.classifier.bias.data = other.model.classifier.bias.data.flip(0)
    both = evaluate({"one": one, "other": other}, {"reviews": reviews}, tmp_path / "both", ["adv"])
    assert both["attacked"]["reviews"]["adv"]["other"] == report["attacked"]["reviews"]["adv"]["one"]
    other.model.config.id2label = {0: "好评", 1: "差评"}
    with pytest.raises(ValueError, match="other has 好评, 差评 where another has 负面, 正面"):
        evaluate({"one": one, "other": other}, {"reviews": reviews}, tmp_path / "wrong", ["adv"])


def test_the_order_of_the_models_decides_nothing(tmp_path, folders, reviews):
    reviews = reviews.rows(range(6))
    named = ModelClassifier(folders["bert"])
    named.model.config.id2label = {0: "负面", 1: "正面"}
    words = replace(reviews, labels=tuple("负面正面"[2 * int(label) :][:2] for label in reviews.labels), names=None)
    models = {"unnamed": folders["ours"], "endpoint": word_counter, "named": named}
    one = evaluate(models, {"reviews": words}, tmp_path / "one", ["adv"])
    other = evaluate(dict(reversed(models.items())), {"reviews": words}, tmp_path / "other", ["adv"])
    assert one["clean"] == other["clean"]
    assert one["tasks"]["reviews"]["labels"] == ["负面", "正面"]
    # names that come with a model that is added are no other settings
    alone = evaluate({"unnamed": folders["ours"]}, {"reviews": reviews}, tmp_path / "added", ["adv"])
    assert alone["tasks"]["reviews"]["labels"] == ["0", "1"]
    added = evaluate({"named": named, "unnamed": folders["ours"]}, {"reviews": reviews}, tmp_path / "added", ["adv"])
    assert added["tasks"]["reviews"]["labels"] == ["负面", "正面"]
    assert (
        added["clean"]["reviews"]["unnamed"]
        == alone["clean"]["reviews"]["unnamed"]
        == one["clean"]["reviews"]["unnamed"]
    )
    # but a model whose answers are put in another order by them is
    turned = ModelClassifier(folders["bert"])
    turned.model.config.id2label = {0: "正面", 1: "负面"}
    with pytest.raises(ValueError, match="models named on reviews was"):
        evaluate({"turned": turned, "named": named}, {"reviews": reviews}, tmp_path / "added", ["adv"])


def test_labels_of_an_endpoint_do_not_depend_on_the_sample(tmp_path):
    def endpoint(queries):
        return np.tile([0.5, 0.3, 0.2], (len(queries), 1))

    def numbers(rows):
        evaluator = RobustnessEvaluator({"m": endpoint}, [AttackerSpec("adv")], {"x": rows}, tmp_path)
        return [example.label for example in evaluator.tasks["x"].examples]

    rows = LabelledTexts("x", tuple("好坏中很"), ("1", "2", "3", "1"))
    assert numbers(rows) == [0, 1, 2, 0]
    assert numbers(rows.rows([1])) == [1]
    assert numbers(LabelledTexts("x", tuple("好坏"), ("0", "1"))) == [0, 1]  # numbers, though there is none of label 2
    with pytest.raises(
        ValueError, match=r"give 3 probabilities per text, but x has 2 labels \(1, 2\), and nothing says"
    ):
        numbers(LabelledTexts("x", tuple("好坏"), ("1", "2")))


def test_classes_of_a_dataset_go_with_models_without_names(tmp_path, folders, reviews):
    names = ("negative", "a positive one")  # not in alphabetical order
    labels = tuple(names[int(label)] for label in reviews.labels)
    classes = replace(reviews, labels=labels, names=names, numbered=True).rows(range(6))
    report = evaluate(folders | {"words": word_counter}, {"reviews": classes}, tmp_path / "classes", ["adv"])
    expected = evaluate(
        folders | {"words": word_counter}, {"reviews": reviews.rows(range(6))}, tmp_path / "numbers", ["adv"]
    )
    assert report["tasks"]["reviews"]["labels"] == list(names)
    assert report["clean"] == expected["clean"]
    # files have no numbers for their labels: there it would be a guess
    with pytest.raises(ValueError, match="labels of reviews must be among the 2"):
        evaluate(folders, {"reviews": replace(classes, numbered=False)}, tmp_path / "guess", ["adv"])


def test_a_pipeline_is_a_victim(tmp_path, folders, reviews):
    reviews = reviews.rows(range(4))
    classifier = pipeline("text-classification", model=folders["bert"])
    report = evaluate({"folder": folders["bert"], "pipeline": classifier}, {"reviews": reviews}, tmp_path, ["adv"])
    assert report["attacked"]["reviews"]["adv"]["pipeline"] == report["attacked"]["reviews"]["adv"]["folder"]
    with pytest.raises(ValueError, match="models: bare: classifier must take texts, got a bare BertFor"):
        evaluate({"bare": classifier.model}, {"reviews": reviews}, tmp_path / "bare", ["adv"])


def test_unseen_labels_end_it_before_any_attack(tmp_path, folders):
    rows = LabelledTexts("reviews.tsv", ("很好", "不好"), ("1", "2"))
    with pytest.raises(ValueError, match=r"labels of reviews.tsv must be among the 2 .*\(0, 1\), got 2"):
        evaluate(folders, {"reviews": rows}, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_texts_longer_than_the_model_are_an_error_or_cut(tmp_path, folders, reviews):
    texts = (*reviews.texts[:3], "这家店的服务员态度特别好，房间也干净整洁，下次还会再来住的。" * 3)
    rows = LabelledTexts("reviews", texts, (*reviews.labels[:3], "1"))
    models = {name: ModelClassifier(folder, max_length=40) for name, folder in folders.items()}
    count = sum(len(text) > 38 for text in texts)
    with pytest.raises(ValueError, match=rf"{count} of the 4 texts of reviews are longer than the 40 tokens that ours"):
        evaluate(models, {"reviews": rows}, tmp_path / "report")
    assert not (tmp_path / "report").exists()
    evaluate(models, {"reviews": rows}, tmp_path / "report", long_texts="cut")
    sources = {record["index"]: record["source"] for record in records_in(tmp_path / "report")}
    assert sources[3] == texts[3][:38]
    pairs = LabelledTexts("pairs", texts, rows.labels, texts)
    evaluate(models, {"pairs": pairs}, tmp_path / "pairs", ["adv"], long_texts="cut")
    sources = {record["index"]: record["source"] for record in records_in(tmp_path / "pairs")}
    assert 16 <= len(sources[3]) <= 20


def test_a_given_attacked_form_is_cut_where_its_text_is(tmp_path):
    class Reader:
        tokenizer = RoCBertTokenizer()

        def __init__(self, max_length):
            self.max_length = max_length

        def __call__(self, queries):
            return word_counter([text[: self.max_length - 2] for text in queries])

    source, attacked = "这里的人都很好很好，不过房间太小", "这里的人者阝很好很女子，不过房间太小很好很好"
    rows = [Example(source, 1, None, attacked)]
    models = {"short": Reader(10), "long": Reader(64)}
    evaluate(models, {"rows": rows}, tmp_path, {"given": GivenAttacks()}, long_texts="cut")
    for record in records_in(tmp_path):
        assert (record["source"], record["text"]) == ("这里的人都很好很", "这里的人者阝很好很"), record["model"]
        assert record["perturbed"] == 1 / 8


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda answer: answer * np.nan, "classifier must return numbers"),
        (lambda answer: answer[1:], "one row of probabilities for each"),
        (lambda answer: answer * 3, "between 0 and 1"),
    ],
)
def test_a_victim_that_goes_wrong_on_the_way_leaves_what_was_measured(tmp_path, reviews, spoil, named):
    asked = 0

    def spoilt(queries):
        nonlocal asked
        asked += 1
        return spoil(word_counter(queries)) if asked > 25 else word_counter(queries)

    with pytest.raises(ValueError, match=rf"words under argot on reviews, after \d+ of \d+ examples: .*{named}"):
        evaluate({"words": spoilt}, {"reviews": reviews}, tmp_path, ["argot"], batch_size=8)
    kept = records_in(tmp_path)
    assert kept
    evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["argot"])
    assert records_in(tmp_path)[: len(kept)] == kept
    evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path / "whole", ["argot"])
    assert reports_in(tmp_path) == reports_in(tmp_path / "whole")


def test_a_damaged_line_is_named(tmp_path, reviews):
    evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["adv"])
    lines = (tmp_path / "examples.jsonl").read_bytes().split(b"\n")
    lines[1] = lines[1][:-5]
    (tmp_path / "examples.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"examples.jsonl line 2 is not JSON"):
        evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["adv"])


def test_two_evaluations_do_not_write_into_one_folder(tmp_path, reviews):
    evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["adv"])
    before = records_in(tmp_path)
    with JsonLines(tmp_path / "examples.jsonl"), pytest.raises(OSError, match="another process is writing"):
        evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["adv", "argot"])
    assert records_in(tmp_path) == before


def test_similarity_is_by_the_encoder_that_was_given(tmp_path, folders, reviews):
    encoder = MeanPooledEncoder(folders["ours"])
    texts = ["很好", "房间太小，味道难闻"]  # of different lengths, so that one is padded
    for text, vector in zip(texts, encoder(texts), strict=True):
        states = encoder.model(**encoder.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        np.testing.assert_allclose(vector, states.mean(0).detach(), atol=1e-5)
    report = evaluate({"words": word_counter}, {"reviews": reviews}, tmp_path, ["argot"], encoder=encoder)
    assert report["settings"]["encoder"] == folders["ours"]
    changed = [record for record in records_in(tmp_path) if record["text"] != record["source"]]
    for record in changed[:3]:
        source, text = encoder([record["source"], record["text"]])
        cosine = source @ text / np.linalg.norm(source) / np.linalg.norm(text)
        assert record["similarity"] == pytest.approx(cosine, abs=1e-5)
    assert [r["similarity"] for r in records_in(tmp_path) if r["text"] == r["source"]] == [1.0] * (
        len(reviews) - len(changed)
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"models": {}}, "models must not be empty"),
        ({"attackers": {"clean": AdvAttacker()}}, "attackers must not be called 'clean'"),
        ({"tasks": {"x": ()}}, "at least one example"),
        ({"models": {"x": 3}}, "must be a folder, a Hub id or callable"),
        ({"models": {"x": {"other": word_counter}}}, "no classifier for the task 'x'"),
        (
            {
                "models": {"x": lambda queries: np.ones((len(queries), 3)) / 3},
                "tasks": {"x": LabelledTexts("x", ("好", "坏"), ("a", "b"))},
            },
            r"give 3 probabilities per text, but x has 2 labels \(a, b\)",
        ),
        ({"tasks": {"x": [Example("很好", 1), Example("好", 2)]}}, "numbers from 0 to 1, got 2 in example 1"),
        ({"tasks": {"x": [Example("很好", 1), Example("好", "1")]}}, "numbers from 0 to 1, got '1' in example 1"),
        (
            {"tasks": {"x": [Example("好", 1, "是"), Example("好", 1)]}},
            "all have a text_pair or none .* 0 and 1 differ",
        ),
        ({"tasks": {"x": [Example("好", 1), Example(None, 1)]}}, r"texts must be strings, got \[None\] in example 1"),
        ({"tasks": {"x": ["好", "坏"]}}, "x must hold Examples, got '好' as number 0"),
        ({"attackers": ["adv"]}, "attackers must be AttackerSpecs, or attackers by name in a dict, got 'adv'"),
        ({"models": {"x": LabelsFromOne()}}, "x: a classifier's config must number its labels from 0"),
        ({"models": {"x": ThreeLabels()}}, r"x gives 2 probabilities per text, but its config has 3 labels"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"num_workers": 0}, "num_workers must be at least 1"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        (
            {"models": {"x": word_counter, "y": lambda queries: np.ones((len(queries), 3)) / 3}},
            "y gives 3 probabilities per text, but x has 2 labels",
        ),
        ({"models": {"x": lambda queries: np.full((len(queries), 2), np.nan)}}, "must return numbers"),
        ({"long_texts": "ignore"}, "long_texts"),
    ],
)
def test_bad_arguments_are_named(tmp_path, changed, named):
    arguments = {
        "models": {"x": word_counter},
        "attackers": [AttackerSpec("adv")],
        "tasks": {"x": [Example("很好", 1)]},
    } | changed
    with pytest.raises(ValueError, match=named):
        RobustnessEvaluator(output_dir=tmp_path / "report", **arguments)
    assert not (tmp_path / "report").exists()
