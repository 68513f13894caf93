"""Defences: spelling put right before any classifier reads, and training examples attacked."""

from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertTokenizer
from rocbert_hf.attackers import AttackerSpec, ModelClassifier
from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.defences import CorrectorSpec, MaskedLMCorrector, PycorrectorCorrector, SpellChecked
from rocbert_hf.defences.spelling import plain_forms, rewritings
from rocbert_hf.evaluation import RobustnessEvaluator
from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer
from rocbert_hf.resources import demo_sentences


class NeighbourLM(torch.nn.Module):
    """A masked language model that counted, in some sentences, which characters stand between which.

    It scores a character by its own frequency and by how often it stood behind its left and before its right
    neighbour; a mask tells nothing.
    """

    def __init__(self, tokenizer, sentences):
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=128)
        self.device = torch.device("cpu")
        single = Counter()
        self.followers, self.leaders = defaultdict(Counter), defaultdict(Counter)
        for ids in tokenizer(list(sentences))["input_ids"]:
            single.update(ids)
            for left, right in pairwise(ids):
                self.followers[left][right] += 1
                self.leaders[right][left] += 1
        self.register_buffer("single", torch.tensor([single[i] + 0.1 for i in range(len(tokenizer))]).log())

    def forward(self, input_ids, **_):
        counts = torch.full((2, *input_ids.shape, len(self.single)), 0.01)
        for row, ids in enumerate(input_ids.tolist()):
            for at, (left, right) in enumerate(pairwise(ids)):
                for table, neighbour, place in ((self.followers, left, at + 1), (self.leaders, right, at)):
                    found = table.get(neighbour, {})
                    side = int(table is self.leaders)
                    counts[side, row, place, list(found)] += torch.tensor(list(found.values()), dtype=torch.float)
        return SimpleNamespace(logits=0.2 * self.single + counts.log().sum(0))


SENTENCES = [sentence for sentence in demo_sentences() if len(sentence) < 60]


@pytest.fixture(scope="module")
def corrector():
    tokenizer = RoCBertTokenizer()
    return MaskedLMCorrector(NeighbourLM(tokenizer, SENTENCES), tokenizer, suspicion=0.3)


def wrong_characters(one, other):
    return sum((Counter(one) - Counter(other)).values())


def test_only_what_is_unlikely_is_looked_at_and_only_what_is_surely_better_is_put_there(corrector):
    attacked = AdversarialSynthesizer({"attacks": ["phonetic"], "q": 1.0}).attack_batch(SENTENCES[:40:10], seed=1)
    texts = [form.text for form in attacked]
    assert corrector.correct(texts) != texts
    model, tokenizer = corrector.model, corrector.tokenizer
    for options in ({"suspicion": 1e-9}, {"suspicion": 0.3, "margin": 50.0}):
        assert MaskedLMCorrector(model, tokenizer, **options).correct(texts) == texts


@pytest.mark.parametrize("attack", ["phonetic", "visual", "split", "to_pinyin", "unicode"])
def test_most_of_what_an_attack_did_is_undone(corrector, attack):
    synthesizer = AdversarialSynthesizer({"attacks": [attack], "q": 1.0})
    sources = SENTENCES[:60:5]
    attacked = [form.text for form in synthesizer.attack_batch(sources, seed=1)]
    corrected = corrector.correct(attacked)
    before = sum(map(wrong_characters, sources, attacked))
    after = sum(map(wrong_characters, sources, corrected))
    assert before > 20
    assert after < 0.7 * before


def test_what_is_right_mostly_stays_right(corrector):
    sources = SENTENCES[:60:5]
    changed = sum(map(wrong_characters, sources, corrector.correct(sources)))
    assert changed < 0.01 * sum(map(len, sources))


def test_corrections_do_not_depend_on_the_batch(corrector):
    texts = [form.text for form in AdversarialSynthesizer().attack_batch(SENTENCES[:6], seed=3)]
    assert corrector.correct(texts) == [corrector.correct([text])[0] for text in texts]


def test_texts_without_anything_to_correct_come_back(corrector):
    texts = ["", " ", "!!!", "ok 123", "[MASK]科[MASK]", "𠮷" * 3, "科" * 300]
    assert corrector.correct(texts) == texts


def test_the_tokenizer_of_bert_will_do():
    tokenizer = character_level_bert_tokenizer()
    corrector = MaskedLMCorrector(NeighbourLM(tokenizer, SENTENCES), tokenizer, suspicion=0.3)
    attacked = [form.text for form in AdversarialSynthesizer().attack_batch(SENTENCES[:5], seed=1)]
    corrected = corrector.correct(attacked)
    before = sum(map(wrong_characters, SENTENCES[:5], attacked))
    assert sum(map(wrong_characters, SENTENCES[:5], corrected)) < before


def test_look_alikes_of_other_scripts_need_no_model():
    assert plain_forms("ｇооd⼒气很*大，\u200b24小时~~") == "good力气很大，24小时~~"
    assert [(place.start, place.end) for place in rewritings("禾斗技ke爱，OK")] == [(0, 2), (3, 5)]
    assert "科" in rewritings("禾斗")[0].candidates
    assert {"科", "可"} <= set(rewritings("ke")[0].candidates)


@pytest.mark.parametrize(
    "text",
    [
        "房间很好——就是有点贵",
        "2010－2015年",
        "二〇一〇年",
        "3×5米，25m²",
        "α粒子和γ射线，σ为2",
        "服务&环境",
        "速度+质量=价格",
        "男<女",
        "国王÷女王",
        "A—B，北京―上海",
        "哈利·波特……《书》、“好”～",
    ],
)
def test_what_people_write_for_its_own_sake_stays(text):
    assert plain_forms(text) == text


def test_forms_that_nobody_writes_for_their_own_sake_are_put_right():
    assert plain_forms("①早餐②ＡＢ１２ 𝖺𝟙 ㊥⼈ Арр ΑΒ") == "1早餐2AB12 a1 中人 App AB"


def test_any_masked_language_model_of_transformers_will_do(tmp_path):
    torch.manual_seed(0)
    RoCBertForMaskedLM(RoCBertConfig.from_preset("tiny")).save_pretrained(tmp_path)
    RoCBertTokenizer().save_pretrained(tmp_path)
    corrector = CorrectorSpec.parse(f"spelling={tmp_path}").load()
    corrector.margin = 0.0  # untrained, it takes any candidate for as good
    assert corrector.correct(["⼒气"]) != ["⼒气"]
    text = "这家店的服务很好"
    (corrected,) = corrector.correct([text])
    assert len(corrected) == len(text)


def test_a_defended_classifier_is_a_classifier(tmp_path, folders, reviews):
    class Undo:
        name = "undo"
        asked = 0

        def correct(self, texts):
            self.asked += len(texts)
            return [text.replace("坏", "好") for text in texts]

    inner, undo = ModelClassifier(folders["bert"]), Undo()
    defended = SpellChecked(inner, undo)
    assert np.array_equal(defended(["坏店", "店"]), inner(["好店", "店"]))
    assert np.array_equal(defended([("坏店", "坏"), ("店", "很")]), inner([("好店", "好"), ("店", "很")]))
    asked = undo.asked
    defended(["坏店", "店"])
    assert undo.asked == asked
    models = {"plain": inner, "defended": defended}
    report = RobustnessEvaluator(
        models, [AttackerSpec("adv")], {"reviews": reviews}, tmp_path, resamples=10, progress=False
    ).run()
    fingerprints = report["settings"]["models"]
    assert fingerprints["plain on reviews"] != fingerprints["defended on reviews"]


def test_a_corrector_that_loses_texts_is_noticed(folders):
    corrector = SimpleNamespace(name="bad", correct=lambda texts: texts[1:])
    with pytest.raises(ValueError, match="one text for each of the 2 texts, got 1"):
        SpellChecked(ModelClassifier(folders["bert"]), corrector)(["好", "坏"])


def test_several_threads_may_ask_a_defended_classifier_at_once():
    """Its cache holds less than one call asks for, so that threads take from it what others have just looked up."""
    corrector = SimpleNamespace(name="upper", correct=lambda texts: [text.upper() for text in texts])
    defended = SpellChecked(lambda texts: np.array([[1.0, text.isupper()] for text in texts]), corrector, cache_size=2)
    asked = [["abcdefgh"[i : i + 3] for i in range(start, 6)] for start in range(4)] * 100
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(defended, asked))
    assert all((answer == 1).all() for answer in answers)


@pytest.mark.parametrize("spec", ["spelling", "spelling=", "grammar", "pycorrector=x"])
def test_unknown_defences_are_named(spec):
    with pytest.raises(ValueError, match="must be spelling=DIR_OR_ID"):
        CorrectorSpec.parse(spec)


def test_bad_options_are_named():
    tokenizer = RoCBertTokenizer()
    with pytest.raises(ValueError, match="tokenizer"):
        MaskedLMCorrector(NeighbourLM(tokenizer, SENTENCES[:3]))
    with pytest.raises(ValueError, match="max_candidates"):
        MaskedLMCorrector(NeighbourLM(tokenizer, SENTENCES[:3]), tokenizer, max_candidates=0)


def test_pycorrector_is_used_where_it_is_installed():
    try:
        import kenlm  # noqa: F401
        from pycorrector import ConfusionCorrector
    except ImportError:
        with pytest.raises(ValueError, match="pip install pycorrector"):
            CorrectorSpec.parse("pycorrector").load()
        pytest.skip("pycorrector and kenlm are not installed")
    corrector = PycorrectorCorrector(ConfusionCorrector({"新情": "心情"}))
    assert corrector.correct(["今天新情很好", "", "好"]) == ["今天心情很好", "", "好"]
    assert corrector.fingerprint != PycorrectorCorrector(ConfusionCorrector({})).fingerprint
    assert corrector.fingerprint != CorrectorSpec.parse("pycorrector").load().fingerprint


def test_what_pycorrector_answers_is_understood():
    found = SimpleNamespace(
        correct_batch=lambda texts: [
            {"source": t, "target": t.replace("新情", "心情"), "errors": [("新情", "心情", 2)]} for t in texts
        ]
    )
    assert PycorrectorCorrector(found).correct(["今天新情很好"]) == ["今天心情很好"]
