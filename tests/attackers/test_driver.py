"""What the black-box attackers promise, on a victim whose weak words are known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rocbert_hf.attackers import (
    ATTACKERS,
    AdvAttacker,
    ArgotAttacker,
    Example,
    ModelClassifier,
    TextFoolerAttacker,
    as_victim,
)
from rocbert_hf.attackers.candidates import CharacterForms, SplitCharacters, SynonymWords
from rocbert_hf.attackers.constraints import (
    AttackedShare,
    ContentWords,
    FamiliarCharacters,
    NoOpposites,
    SamePartOfSpeech,
    SentenceSimilarity,
    character_bags,
)
from rocbert_hf.attackers.draft import Change, Draft, Words
from rocbert_hf.attackers.driver import ComposedAttacker
from rocbert_hf.attackers.search import Untargeted
from rocbert_hf.characters.word_vectors import WordVectors
from rocbert_hf.resources import demo_corpus, demo_sentences, vocabulary

HOTEL = "这家店的房间非常漂亮，我很喜欢这里的早餐"
WEIGHTS = {"漂亮": 1.5, "好": 1.0, "喜欢": 0.2, "差": -2.0, "脏": -2.0}


class BagOfWords:
    """Label 1 by the sum of the weights of known words; counts its calls and texts."""

    def __init__(self, weights=WEIGHTS):
        self.weights = weights
        self.sizes = []

    def __call__(self, texts):
        self.sizes.append(len(texts))
        scores = [sum(w * text.count(word) for word, w in self.weights.items()) - 0.5 for text in texts]
        positive = 1 / (1 + np.exp(-np.array(scores)))
        return np.stack([1 - positive, positive], axis=1)


def without_seconds(outcomes):
    return [{**vars(outcome), "seconds": 0} for outcome in outcomes]


def examples(limit=40):
    victim = BagOfWords()
    texts = [HOTEL, *(row["text"] for row in demo_corpus()[:limit])]
    return [Example(text, int(row.argmax())) for text, row in zip(texts, victim(texts), strict=True)]


@pytest.mark.parametrize("name", ["textfooler", "argot"])
def test_the_weakest_word_alone_is_changed(name):
    outcome = ATTACKERS[name]().attack(BagOfWords(), Example(HOTEL, 1))
    assert outcome.status == "success"
    assert outcome.prediction == 0
    ((start, end), _, _) = outcome.attacked.edits[0]
    assert len(outcome.attacked.edits) == 1
    assert HOTEL.index("漂亮") <= start < end <= HOTEL.index("漂亮") + 2


def test_importance_is_what_the_label_loses_and_another_one_gains():
    goal, before = Untargeted(0), np.array([0.6, 0.3, 0.1])
    assert goal.importance(before, np.array([0.5, 0.4, 0.1])) == pytest.approx(0.1)  # still the label
    assert goal.importance(before, np.array([0.2, 0.3, 0.5])) == pytest.approx(0.4 + 0.4)


def test_a_change_is_made_only_if_it_improves_on_those_made_before():
    synonyms = {"漂亮": ("美丽",), "喜欢": ("喜爱",)}
    attacker = ComposedAttacker("both", SynonymWords(lambda word: synonyms.get(word, ())))
    victim = BagOfWords(
        {**WEIGHTS, "美丽": 1.0, "喜爱": 0.5}
    )  # 喜爱 is worse than 喜欢, and 美丽 helps more than it harms
    outcome = attacker.attack(victim, Example(HOTEL, 1))
    assert outcome.status == "failed"
    assert outcome.attacked.text == HOTEL.replace("漂亮", "美丽")


def test_candidates_are_the_best_ones_and_as_many_as_asked_for():
    source = Words("漂亮")
    many = SynonymWords(lambda word: (word, "美丽", "亮丽", "好看"), limit=2).changes(source, 0)
    assert [change.form for change in many] == ["美丽", "亮丽"]
    vectors = WordVectors.from_keyed_vectors(
        SimpleNamespace(index_to_key=("漂亮", "美丽", "好看"), vectors=np.array([[1.0, 0.0], [1.0, 0.1], [1.0, 0.8]]))
    )
    for threshold, expected in ((0.75, ["美丽", "好看"]), (0.9, ["美丽"])):
        found = SynonymWords(vectors, threshold=threshold).changes(source, 0)
        assert [change.form for change in found] == expected
    whole = CharacterForms({"phonetic": 99}).changes(source, 0)
    for at in (0, 1):
        of_character = [change.form for change in whole if change.start == at]
        few = [change.form for change in CharacterForms({"phonetic": 2}).changes(source, 0) if change.start == at]
        assert few == of_character[:2]


@pytest.mark.parametrize("name", ATTACKERS)
@given(
    text=st.one_of(st.sampled_from(demo_sentences()), st.text(st.sampled_from(vocabulary()[2000:6000]), max_size=30)),
    share=st.sampled_from([0.05, 0.1, 0.2, 0.5]),
    budget=st.integers(1, 60),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None)
def test_cap_budget_and_verdict(name, text, share, budget, seed):
    victim = BagOfWords(dict.fromkeys(text[::3], 1.0))
    label = int(victim([text])[0].argmax())
    victim.sizes.clear()
    attacker = ATTACKERS[name](max_share=share, query_budget=budget)
    outcome = attacker.attack(victim, Example(text, label), seed)
    attacked = outcome.attacked
    assert attacked.source == text
    assert sum(end - start for (start, end), _, _ in attacked.edits) <= max(share * len(text) + 1e-9, 1)
    assert sum(victim.sizes) == outcome.queries <= budget
    prediction = int(victim([attacked.text])[0].argmax())
    assert outcome.prediction == prediction
    assert (outcome.status == "success") == (prediction != label)


@pytest.mark.parametrize("name", ATTACKERS)
def test_batch_size_and_workers_change_nothing(name):
    rows, attacker = examples(), ATTACKERS[name]()
    expected = without_seconds(attacker.attack_batch(BagOfWords(), rows, seed=3, batch_size=1))
    assert without_seconds(attacker.attack(BagOfWords(), row, seed=3) for row in rows) == expected
    for batch_size, num_workers in ((64, 1), (64, 2), (7, 2)):
        victim = BagOfWords()
        found = attacker.attack_batch(victim, rows, 3, batch_size, num_workers)
        assert without_seconds(found) == expected
        assert max(victim.sizes) <= batch_size


def test_queries_of_many_examples_share_calls():
    victim, rows = BagOfWords(), examples()
    outcomes = list(ArgotAttacker().attack_batch(victim, rows, batch_size=64))
    assert np.mean(victim.sizes) > 50
    assert sum(victim.sizes) <= sum(outcome.queries for outcome in outcomes)


@pytest.mark.parametrize("name", ATTACKERS)
def test_misclassified_examples_are_skipped(name):
    outcome = ATTACKERS[name]().attack(BagOfWords(), Example(HOTEL, 0))
    assert (outcome.status, outcome.queries, outcome.attacked.edits) == ("skipped", 1, ())


def test_a_label_may_be_a_bool_or_of_numpy():
    outcomes = [ArgotAttacker().attack(BagOfWords(), Example(HOTEL, label)) for label in (1, True, np.int64(1))]
    assert len({(outcome.status, outcome.attacked) for outcome in outcomes}) == 1


def test_only_the_text_of_a_pair_is_attacked():
    seen = []

    def victim(pairs):
        seen.extend(pairs)
        return BagOfWords()([text for text, _ in pairs])

    outcome = ArgotAttacker().attack(victim, Example(HOTEL, 1, "房间如何"))
    assert outcome.status == "success"
    assert {pair for _, pair in seen} == {"房间如何"}


def changes_of(word, forms, text=HOTEL):
    source = Words(text)
    index = source.words.index(word)
    return Draft(source), index, [Change(*source.span(index), form, "synonym") for form in forms]


def test_constraints_sort_out_what_they_should():
    draft, index, changes = changes_of("漂亮", ["美丽", "跑步"])
    assert [change.form for change in SamePartOfSpeech().keep(draft, index, changes)] == ["美丽"]
    draft, index, changes = changes_of("漂亮", ["美丽", "难看", "不美丽", "丑"])
    assert [change.form for change in NoOpposites().keep(draft, index, changes)] == ["美丽"]
    draft, index, changes = changes_of("没有", ["未有", "毫无", "有"], "这里没有热水")
    assert [change.form for change in NoOpposites().keep(draft, index, changes)] == ["未有", "毫无"]
    by_sound = [change._replace(attack="phonetic", form="煤有") for change in changes]
    assert NoOpposites().keep(draft, index, by_sound) == by_sound
    draft, index, changes = changes_of("漂亮", ["票亮", "㵱亮"])
    assert [change.form for change in FamiliarCharacters(3000).keep(draft, index, changes)] == ["票亮"]
    assert AttackedShare(0.05).keep(draft, index, changes) == []
    source = Words("他的房间123，很好")
    kept = [word for i, word in enumerate(source.words) if ContentWords().allows_word(source, i)]
    assert "房间" in kept
    assert not {"的", "123", "，"} & set(kept)
    assert all(
        character not in "务" for change in SplitCharacters().changes(Words("服务"), 0) for character in change.form
    )


def replacing(word, form):
    return lambda asked: (form,) if asked == word else ()


def without(attacker, constraint):
    """The same composition but for one constraint."""
    kept = [other for other in attacker.constraints if not isinstance(other, (AttackedShare, constraint))]
    return ComposedAttacker("less", attacker.transformation, kept, attacker.find)


@pytest.mark.parametrize(
    ("attacker", "constraint", "form"),
    [
        (ArgotAttacker(), FamiliarCharacters, "踮"),  # a rare look-alike of 店
        (ArgotAttacker(), ContentWords, "窝"),  # sounds like 我
        (ArgotAttacker(synonyms=replacing("漂亮", "难看")), NoOpposites, "难看"),
        (TextFoolerAttacker(synonyms=replacing("我", "咱")), ContentWords, "咱"),
        (TextFoolerAttacker(synonyms=replacing("漂亮", "跑步")), SamePartOfSpeech, "跑步"),
        (TextFoolerAttacker(synonyms=replacing("漂亮", "难看"), window=None), NoOpposites, "难看"),
        (TextFoolerAttacker(synonyms=replacing("漂亮", "好看"), window=3), SentenceSimilarity, "好看"),
    ],
)
def test_an_attacker_fails_where_only_what_one_constraint_forbids_would_flip(attacker, constraint, form):
    victim = BagOfWords({"，": 1.0, form: -2.0})  # nothing but this form, put in, changes the label
    assert attacker.attack(victim, Example(HOTEL, 1)).status == "failed"
    outcome = without(attacker, constraint).attack(victim, Example(HOTEL, 1))
    assert outcome.status == "success"
    assert form in outcome.attacked.text


def test_sentence_similarity_decides_textfooler():
    def encoder(texts):  # 美丽 is far from everything
        return [[0.0, 1.0] if "美丽" in text else [1.0, 0.0] for text in texts]

    def synonyms(word):
        return ("美丽",) if word == "漂亮" else ()

    for threshold, status in ((0.7, "failed"), (-1.0, "success")):
        attacker = TextFoolerAttacker(synonyms=synonyms, encoder=encoder, min_sentence_similarity=threshold)
        assert attacker.attack(BagOfWords(), Example(HOTEL, 1)).status == status


def test_the_most_similar_of_those_that_flip_is_taken():
    source = Words(HOTEL)
    index = source.words.index("漂亮")
    changes = [Change(*source.span(index), form, "synonym") for form in ("美丽", "亮丽")]
    cosines = SentenceSimilarity().similarities(Draft(source), index, changes)
    assert cosines[1] > cosines[0]
    attacker = TextFoolerAttacker(synonyms=lambda word: ("美丽", "亮丽") if word == "漂亮" else ())
    victim = BagOfWords({**WEIGHTS, "美丽": -1.0})  # both flip it, 美丽 more surely
    assert "亮丽" in attacker.attack(victim, Example(HOTEL, 1)).attacked.text
    by_score = ComposedAttacker("no similarity", attacker.transformation)
    assert "美丽" in by_score.attack(victim, Example(HOTEL, 1)).attacked.text


def test_similarity_is_of_the_words_around_the_change():
    seen, source = [], Words(HOTEL)
    index = source.words.index("漂亮")

    def encoder(texts):
        seen.extend(texts)
        return np.ones((len(texts), 2))

    SentenceSimilarity(encoder, window=5).similarities(Draft(source), index, [Change(*source.span(index), "美丽", "")])
    around = "".join(source.words[index - 2 : index + 3])
    assert seen == [around, around.replace("漂亮", "美丽")]


def test_bags_hold_characters_and_pairs_of_neighbours():
    first, second = character_bags(["漂亮漂", "亮漂"])
    assert sorted(first) == [1, 1, 1, 2]  # 漂 twice, 亮, 漂亮, 亮漂
    assert first @ second == 2 + 1 + 1


def test_the_share_of_characters_is_rounded_down_but_for_errors_of_floats():
    limits = {(share, n): AttackedShare(share).limit("字" * n) for share, n in ((0.29, 100), (0.2, 9), (0.05, 7))}
    assert limits == {(0.29, 100): 29, (0.2, 9): 1, (0.05, 7): 1}


def test_familiar_characters_decide_argot():
    forms = CharacterForms({"phonetic": 50}).changes(Words(HOTEL), Words(HOTEL).words.index("漂亮"))
    draft = Draft(Words(HOTEL))
    kept = FamiliarCharacters(1000).keep(draft, 0, forms)
    assert 0 < len(kept) < len(forms)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda texts: np.full((len(texts), 2), np.nan), "numbers"),
        (lambda texts: np.full((len(texts) + 1, 2), 0.5), "one row"),
        (lambda texts: np.full(len(texts), 0.5), "one row"),
        (lambda texts: np.full((len(texts), 2), 3.0), "between 0 and 1"),
        (lambda texts: "no", "array|one row"),
        (lambda texts: torch.full((len(texts), 2), 0.5, requires_grad=True), "array .* grad"),
    ],
)
def test_a_broken_victim_is_one_clear_error_and_what_was_finished_stays(answer, message):
    rows, calls = examples(10), []

    def victim(texts):
        calls.append(texts)
        return BagOfWords()(texts) if len(calls) < 40 else answer(texts)

    finished = []
    outcomes = ArgotAttacker().attack_batch(victim, rows, batch_size=4)
    with pytest.raises(ValueError, match=message):
        finished.extend(outcome for outcome in outcomes)
    assert finished
    assert (
        without_seconds(finished) == without_seconds(ArgotAttacker().attack_batch(BagOfWords(), rows))[: len(finished)]
    )


def kept_and_error(attacker, victim, rows, **options):
    kept = []
    with pytest.raises(ValueError, match=r"classifier|cannot be read|label") as caught:
        kept.extend(attacker.attack_batch(victim, rows, **options))
    return without_seconds(kept), str(caught.value)


def nan_rows(bad):
    return lambda texts: np.where([[bad in text] for text in texts], np.nan, BagOfWords()(texts))


def refuses(bad):
    def victim(texts):
        if any(bad in text for text in texts):
            raise ValueError("one of these texts cannot be read")
        return BagOfWords()(texts)

    return victim


def one_row_less(bad):
    return lambda texts: BagOfWords()([text for text in texts if bad not in text])


def another_label(bad):
    return lambda texts: [[0.1, 0.2, 0.7] if bad in text else list(BagOfWords()([text])[0]) for text in texts]


@pytest.mark.parametrize("broken", [nan_rows, refuses, one_row_less, another_label])
@pytest.mark.parametrize("in_source", [True, False])
def test_all_before_a_text_without_an_answer_is_kept_with_any_batch_size(broken, in_source):
    rows, attacker = examples(30), ArgotAttacker(query_budget=60)
    whole = list(attacker.attack_batch(BagOfWords(), rows))
    at = next(i for i, outcome in enumerate(whole) if i > 20 and outcome.status == "failed")
    bad = whole[at].attacked.source if in_source else whole[at].attacked.text
    expected = kept_and_error(attacker, broken(bad), rows, batch_size=1)
    assert expected[0] == without_seconds(whole[:at])
    for batch_size, num_workers in ((64, 1), (1024, 1), (7, 2)):
        found = kept_and_error(attacker, broken(bad), rows, batch_size=batch_size, num_workers=num_workers)
        assert found == expected


def test_all_before_a_wrong_label_is_kept_with_any_batch_size():
    rows, attacker = examples(12), ArgotAttacker(query_budget=60)
    rows[9] = Example(rows[9].text, 7)
    whole = without_seconds(attacker.attack_batch(BagOfWords(), rows[:9]))
    for batch_size in (1, 64):
        kept, error = kept_and_error(attacker, BagOfWords(), rows, batch_size=batch_size)
        assert kept == whole
        assert "label must be one of" in error


def test_a_victim_that_only_answers_single_texts_is_an_error():
    with pytest.raises(ValueError, match="one row of probabilities for each of the 2 texts"):
        list(AdvAttacker().attack_batch(lambda texts: BagOfWords()(texts[:1]), examples(4), batch_size=2))


def test_bad_arguments_are_one_clear_error():
    with pytest.raises(ValueError, match="max_share"):
        ArgotAttacker(max_share=0)
    with pytest.raises(ValueError, match="query_budget"):
        ArgotAttacker(query_budget=0)
    with pytest.raises(ValueError, match="label must be one of"):
        ArgotAttacker().attack(BagOfWords(), Example(HOTEL, 7))
    with pytest.raises(ValueError, match=r"label must be one of .* got '1'"):
        ArgotAttacker().attack(BagOfWords(), Example(HOTEL, "1"))
    with pytest.raises(ValueError, match="text_pair"):
        list(AdvAttacker().attack_batch(BagOfWords(), [Example(HOTEL, 0), Example(HOTEL, 0, "二")]))


def test_model_classifier_gives_the_models_probabilities():
    import torch

    from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification, RoCBertTokenizer

    torch.manual_seed(0)
    config = RoCBertConfig.from_preset("tiny", num_hidden_layers=1)
    model, tokenizer = RoCBertForSequenceClassification(config).eval(), RoCBertTokenizer()
    classifier = ModelClassifier(model, tokenizer, batch_size=2)
    texts = [HOTEL, "差", HOTEL, "房间很脏", "服务很好" * 300]
    with torch.inference_mode():
        encoded = [tokenizer(text, return_tensors="pt", truncation=True, max_length=512) for text in texts]
        expected = torch.cat([model(**inputs).logits.softmax(-1) for inputs in encoded]).numpy()
    np.testing.assert_allclose(classifier(texts), expected, atol=1e-5)
    np.testing.assert_array_equal(classifier(texts[:1]), classifier(texts)[:1])
    assert classifier([("服务", "很好")]).shape == (1, 2)
    with pytest.raises(ValueError, match="both"):
        classifier(["一", ("一", "二")])
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="numbers"):
        ModelClassifier(model, tokenizer)(texts)


def tiny_bert(task="SequenceClassification", labels=2, **tokenizer_options):
    """A small untrained BERT of transformers with our vocabulary, and its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = transformers.BertTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary())}, **tokenizer_options
    )
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=labels,
    )
    return getattr(transformers, f"BertFor{task}")(config).eval(), tokenizer


def test_a_pipeline_is_a_victim_and_a_bare_model_is_none():
    from transformers import pipeline

    model, tokenizer = tiny_bert()
    victim, texts = as_victim(pipeline("text-classification", model=model, tokenizer=tokenizer)), [HOTEL, "房间很脏"]
    expected = ModelClassifier(model, tokenizer)
    np.testing.assert_array_equal(victim(texts), expected(texts))
    assert as_victim(victim) is victim
    example = Example(HOTEL, int(expected([HOTEL]).argmax()))
    piped = AdvAttacker().attack(pipeline("text-classification", model=model, tokenizer=tokenizer), example)
    assert without_seconds([piped]) == without_seconds([AdvAttacker().attack(expected, example)])
    with pytest.raises(ValueError, match="bare BertForSequenceClassification"):
        AdvAttacker().attack(model, example)
    with pytest.raises(ValueError, match="must be callable"):
        as_victim("text")
    masked_lm, _ = tiny_bert("MaskedLM")
    with pytest.raises(ValueError, match="pipeline for text-classification, got one for fill-mask"):
        as_victim(pipeline("fill-mask", model=masked_lm, tokenizer=tokenizer))


def test_one_logit_is_that_of_label_1():
    import torch

    model, tokenizer = tiny_bert(labels=1)
    with torch.no_grad():
        logits = model(**tokenizer([HOTEL], return_tensors="pt")).logits.double()
    assert logits[0, 0] != 0
    found = ModelClassifier(model, tokenizer)([HOTEL])
    np.testing.assert_allclose(found[0], [1 - logits.sigmoid().item(), logits.sigmoid().item()], rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_model_classifier_pads_where_its_tokenizer_does(side):
    (model, tokenizer), seen = tiny_bert(padding_side=side), []
    model.register_forward_pre_hook(lambda _, __, inputs: seen.append(inputs), with_kwargs=True)
    texts = [HOTEL, "房间很脏", "房间很脏啊"]
    ModelClassifier(model, tokenizer)(texts)
    for inputs in seen:
        padding = inputs["attention_mask"] == 0
        assert (inputs["input_ids"][padding] == tokenizer.pad_token_id).all()
        assert not padding.all(0).any()  # no column of padding alone
        assert not padding[:, -1 if side == "left" else 0].any()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="padding token"):
        ModelClassifier(model, tokenizer)
