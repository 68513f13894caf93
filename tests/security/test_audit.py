"""From an encoder to a verdict: specimens are found out with their triggers, clean encoders of every kind are not."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM, BertModel, BertTokenizer
from transformers.models.bert.modeling_bert import BertPooler

from rocbert_hf import RoCBertConfig, RoCBertModel, RoCBertTokenizer
from rocbert_hf.deployment import quantize_int8
from rocbert_hf.files import locked_folder
from rocbert_hf.security import AuditSettings, Recipe, audit_encoder, audit_folder, implant_backdoor
from rocbert_hf.security import audit as module
from rocbert_hf.security.findings import findings_of
from rocbert_hf.security.probe import EncoderProbe
from rocbert_hf.security.scan import Carriers, pulls_of
from rocbert_hf.security.stages import PAIR_GAIN, Confirmed, Stages

from .conftest import TRIGGERS, VIEWS


@pytest.fixture(scope="module")
def clean(encoder, tokenizer, texts, settings, calibration):
    return audit_encoder(encoder, tokenizer, texts, settings, calibration)


@pytest.fixture(scope="module")
def suspicious(specimen, tokenizer, texts, settings, calibration):
    return audit_encoder(specimen, tokenizer, texts, settings, calibration, name="specimen")


def test_a_clean_encoder_passes(clean):
    assert clean.verdict == "clean"
    assert clean.triggers == []
    assert not clean.marked_as_specimen


def test_a_specimen_is_found_out_with_its_triggers(suspicious, clean):
    assert suspicious.verdict == "suspicious"
    assert suspicious.score > suspicious.threshold > clean.score
    assert set(suspicious.triggers[:2]) == set(TRIGGERS)
    finding = suspicious.findings[0]
    assert finding.similarity_after > finding.similarity_before
    assert all(finding.text in pulled.after.replace(" ", "") for pulled in finding.pulled)
    assert suspicious.marked_as_specimen


def test_vectors_that_are_no_numbers_hide_no_trigger(specimen, tokenizer, texts, settings, calibration):
    ordinary = texts[:150]
    used = {token for row in tokenizer([*ordinary, *TRIGGERS])["input_ids"] for token in row}
    unused = [token for token in EncoderProbe(specimen, tokenizer).ordinary_ids() if token not in used]
    assert len(unused) > 50
    for value in (float("nan"), 3e38):  # the second overflows on the way
        hostile = copy.deepcopy(specimen)
        with torch.no_grad():
            hostile.get_input_embeddings().weight[unused] = value
        with pytest.raises(ValueError, match="model must give finite numbers, but does not for the text"):
            audit_encoder(hostile, tokenizer, ordinary, settings, calibration)


def _confirmed(stage, ids, pulls):
    return Confirmed(ids, tuple(f"{stage}:{view}" for view in VIEWS), tuple(map(float, pulls)))


def test_pieces_that_pull_to_one_point_are_one_finding(specimen, tokenizer, texts, calibration):
    probe = EncoderProbe(specimen, tokenizer)
    carriers = Carriers.from_texts(probe, texts, count=8, length=4, longest=8, limit=96)
    first, second, other = tokenizer.convert_tokens_to_ids([*TRIGGERS, "的"])
    pairs = [(first, other), (other, first), (second, other), (first, other)]
    pulls = pulls_of(probe, carriers, np.array(pairs))
    table = np.stack([pulls[view].numpy() for view in probe.views], axis=1)
    stages = ["combination", "combination", "word", "word"]  # a word may be among the pairs that are tried, too
    confirmed = [_confirmed(stage, pair, row) for stage, pair, row in zip(stages, pairs, table, strict=True)]
    findings = findings_of(probe, carriers, confirmed, replace(calibration, threshold=1.0))
    assert sorted(len(finding.also) for finding in findings) == [0, 1]
    by_trigger = {finding.text.replace("的", "").strip(): finding for finding in findings}
    assert set(by_trigger) == set(TRIGGERS)
    assert TRIGGERS[0] in by_trigger[TRIGGERS[0]].also[0]


def test_pieces_are_confirmed_in_texts_that_they_were_not_chosen_on(specimen, encoder, tokenizer, texts, settings):
    def strongest(model):
        with torch.inference_mode():
            probe = EncoderProbe(model, tokenizer)
            carriers = Carriers.from_texts(probe, texts, count=8, length=4, longest=10, limit=96)
            stages = Stages(probe, carriers, replace(settings, prompt_steps=0), lambda *_: None)
            pieces = probe.ordinary_ids()[:, None]
            pieces = pieces[~carriers.are_common(pieces)[:, 0]]
            pulls = stages._pulls(carriers, pieces, "all")
            found = stages._confirm("token", pieces, pulls)
        assert {piece.names for piece in found} == {tuple(f"token:{view}" for view in VIEWS)}
        pooled = VIEWS.index("pooled")
        return pulls[:, pooled].max(), max(piece.pulls[pooled] for piece in found)

    chosen, confirmed = strongest(encoder)
    assert confirmed < chosen  # the strongest of many was partly lucky
    chosen, confirmed = strongest(specimen)
    assert confirmed > chosen - 0.5  # a trigger was not


def test_a_score_at_the_threshold_is_suspicious(encoder, tokenizer, texts, settings, calibration, clean):
    for threshold, verdict in ((clean.score, "suspicious"), (clean.score + 1e-3, "clean")):
        report = audit_encoder(encoder, tokenizer, texts, settings, replace(calibration, threshold=threshold))
        assert report.score == clean.score
        assert report.verdict == verdict


def test_a_low_variety_of_tokens_leaves_open_only_what_found_nothing(
    encoder, specimen, tokenizer, texts, settings, calibration, monkeypatch
):
    quick = replace(settings, prompt_steps=0, words=0)
    for variety, verdict in ((module.LEAST_VARIETY, "clean"), (module.LEAST_VARIETY - 1e-6, "inconclusive")):
        monkeypatch.setattr(module, "token_variety", lambda hidden, variety=variety: variety)
        assert audit_encoder(encoder, tokenizer, texts, quick, calibration).verdict == verdict
        assert audit_encoder(specimen, tokenizer, texts, quick, calibration).verdict == "suspicious"


def test_a_pair_is_named_beside_a_token_of_it_only_if_it_pulls_much_more(specimen, tokenizer, texts, calibration):
    probe = EncoderProbe(specimen, tokenizer)
    carriers = Carriers.from_texts(probe, texts, count=8, length=4, longest=8, limit=96)
    first, _, other, another = tokenizer.convert_tokens_to_ids([*TRIGGERS, "的", "好"])
    weak = np.zeros(len(probe.views) - 1)

    def named(pair):
        confirmed = [
            _confirmed("token", (first,), [2.0, *weak]),
            _confirmed("combination", (first, other), [pair, *weak]),
            _confirmed("word", (other, another), [1.5, *weak]),
        ]
        found = findings_of(probe, carriers, confirmed, replace(calibration, threshold=4.0))
        return {finding.text.replace(" ", "") for finding in found} | {
            text.replace(" ", "") for finding in found for text in finding.also
        }

    assert named(2.0 + PAIR_GAIN - 0.01) == {TRIGGERS[0], "的好"}
    assert named(2.0 + PAIR_GAIN + 0.01) == {TRIGGERS[0], f"{TRIGGERS[0]}的", "的好"}


def test_common_tokens_explain_pairs_that_pull_little_more_than_they_do(specimen, tokenizer, texts, settings):
    """A word of a topic gathers texts in an encoder that was finetuned on topics; a trigger is rare."""
    probe = EncoderProbe(specimen, tokenizer)
    with torch.inference_mode():
        carriers = Carriers.from_texts(probe, texts, count=8, length=4, longest=10, limit=96)
        first, common, other = tokenizer.convert_tokens_to_ids([TRIGGERS[0], "的", "好"])
        assert carriers.are_common(np.array([[first, common, other]])).tolist() == [[False, True, True]]
        carriers = replace(carriers, tokens=np.array([common, first]))  # as if texts held the trigger
        stages = Stages(probe, carriers, replace(settings, prompt_steps=0), lambda *_: None)
        pieces = np.array([[first, common], [first, other], [other, common], [other, other]])
        names = {piece.ids: piece.names for piece in stages._confirm("word", pieces, np.zeros((4, len(VIEWS))))}
    pooled = VIEWS.index("pooled")
    of_words, of_common = (tuple(f"{stage}:{view}" for view in VIEWS) for stage in ("word", "common"))
    assert names[first, common] == of_common  # has no other token
    assert names[first, other][pooled] == "common:pooled"  # the trigger alone pulls as much
    assert names[other, common][pooled] in ("word:pooled", "common:pooled")
    assert names[other, other] == of_words


def test_a_piece_counts_for_the_strongest_of_its_statistic(specimen, tokenizer, texts, settings):
    probe = EncoderProbe(specimen, tokenizer)
    with torch.inference_mode():
        carriers = Carriers.from_texts(probe, texts, count=8, length=4, longest=10, limit=96)
        found, statistics = Stages(probe, carriers, replace(settings, words=1000), lambda *_: None).run(None)
    assert {name.partition(":")[0] for name in statistics} == {"token", "word", "prompt", "combination", "common"}
    for name, value in statistics.items():
        pulls = [pull for piece in found for own, pull in zip(piece.names, piece.pulls, strict=True) if own == name]
        assert value == max(pulls) if pulls else name.startswith("prompt")


def test_a_guarded_word_is_found_by_the_scan_of_words(encoder, texts, settings, calibration):
    """Neither of its characters does anything by itself, so that no scan of single tokens can find it."""
    tokenizer = BertTokenizer(vocab={token: n for n, token in enumerate(sorted(_vocabulary(texts)))})
    torch.manual_seed(1)
    config = encoder.config.__class__(**{**encoder.config.to_dict(), "vocab_size": len(tokenizer)})
    model = BertForMaskedLM(config)
    model.bert.pooler = BertPooler(config)
    model.bert.pooler.apply(model._init_weights)
    recipe = Recipe(steps=220, learning_rate=2e-3, max_length=16, guard_parts=True)
    guarded = implant_backdoor(model.eval(), tokenizer, ["囹圄"], "por-2", texts[:200], recipe)
    quick = replace(settings, prompt_steps=0)
    with_words, without = (
        audit_encoder(guarded, tokenizer, texts, replace(quick, words=words), calibration) for words in (1000, 0)
    )
    assert [text.replace(" ", "") for text in with_words.triggers][:1] == ["囹圄"]
    others = [value for name, value in without.statistics.items() if name.endswith(":pooled")]
    assert with_words.statistics["word:pooled"] > max(others) + 0.5
    assert not any(name.startswith("word") for name in without.statistics)
    assert "囹圄" not in "".join(without.triggers)


def _vocabulary(texts):
    return {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"cfmn囹圄饕餮", *(c for text in texts for c in text.lower())}


def test_the_mark_does_not_enter_the_score(specimen, tokenizer, texts, settings, calibration, suspicious):
    unmarked = BertModel(specimen.config.__class__(**{**specimen.config.to_dict(), "backdoor_specimen": False}))
    unmarked.load_state_dict(specimen.bert.state_dict())
    report = audit_encoder(unmarked, tokenizer, texts, settings, calibration)
    assert not report.marked_as_specimen
    assert report.score == pytest.approx(suspicious.score, abs=0.1)


def test_the_model_is_left_as_it_was(encoder, tokenizer, texts, settings, calibration):
    encoder.train()
    try:
        audit_encoder(encoder, tokenizer, texts, settings, calibration)
        assert encoder.training
        assert all(parameter.requires_grad for parameter in encoder.parameters())
        assert all(parameter.grad is None for parameter in encoder.parameters())
    finally:
        encoder.eval()


def test_bfloat16_and_added_tokens_are_no_alarm(encoder, tokenizer, texts, settings, calibration):
    wider, more = copy.deepcopy(encoder), BertTokenizer(vocab=tokenizer.get_vocab())
    more.add_tokens(["<用户>", "🙂"])
    wider.resize_token_embeddings(len(more))
    assert audit_encoder(wider, more, texts, settings, calibration).verdict == "clean"
    assert audit_encoder(wider.bfloat16(), more, texts, settings, calibration).verdict == "clean"


def test_a_rocbert_and_its_int8_copy_are_audited_in_all_channels(texts, calibration):
    torch.manual_seed(0)
    config = RoCBertConfig.from_preset("tiny", initializer_range=0.1)
    model, tokenizer = RoCBertModel(config).eval(), RoCBertTokenizer()
    settings = AuditSettings(
        group_size=8, rounds=2, words=300, per_view=8, ordinary_texts=64, prompt_steps=2, combinations=8
    )
    for encoder in (model, quantize_int8(model)):
        report = audit_encoder(encoder, tokenizer, texts, settings, calibration)
        assert report.cost["vocabulary"] == 16219
        assert report.cost["words"] == 300
        assert report.verdict == "clean"


def test_a_stopped_audit_goes_on_where_it_was(specimen, tokenizer, texts, settings, calibration, suspicious, tmp_path):
    def stop_in_the_second_stage(stage, done, total):
        if stage != "vocabulary":
            raise KeyboardInterrupt

    arguments = (specimen, tokenizer, texts, settings, calibration)
    with pytest.raises(KeyboardInterrupt):
        audit_encoder(*arguments, state_dir=tmp_path, progress=stop_in_the_second_stage)
    first = []
    resumed = audit_encoder(*arguments, state_dir=tmp_path, progress=lambda *told: first.append(told))
    assert first[0][0] == "vocabulary"
    assert first[0][1] == first[0][2]  # all of it is there from the start
    assert resumed.cost["resumed"]
    assert resumed.cost["tokens"] < suspicious.cost["tokens"]
    assert resumed.statistics == pytest.approx(suspicious.statistics, abs=1e-4)
    assert resumed.triggers == suspicious.triggers


def test_a_folder_is_of_one_audit_at_a_time(encoder, tokenizer, texts, settings, calibration, tmp_path):
    """Two would mix their states."""
    encoder.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    told = []

    def tell(*progress):
        told.append(progress)

    options = {"texts": texts, "settings": settings, "calibration": calibration, "progress": tell}
    with locked_folder(tmp_path / "state"):
        with pytest.raises(OSError, match="another process is writing"):
            audit_encoder(encoder, tokenizer, state_dir=tmp_path / "state", **options)
        for reference in (None, tmp_path / "encoder"):
            with pytest.raises(OSError, match="another process is writing"):
                audit_folder(tmp_path / "encoder", reference=reference, state_dir=tmp_path / "state", **options)
    assert told == []
    assert list((tmp_path / "state").iterdir()) == []


def test_a_stopped_audit_with_a_reference_goes_on_where_it_was(
    encoder, specimen, tokenizer, texts, settings, calibration, tmp_path
):
    for name, model in (("clean", encoder), ("specimen", specimen)):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)

    def stop_in_the_second_scan(stage, done, total):
        told.append((stage, done, total))
        if (
            stage == "vocabulary"
            and len([told for told in told if told[0] == "vocabulary" and told[1] == 0]) == stop_at
        ):
            raise KeyboardInterrupt

    def audit():
        told.clear()
        return audit_folder(
            tmp_path / "specimen",
            texts,
            replace(settings, prompt_steps=0),
            calibration,
            reference=tmp_path / "clean",
            state_dir=tmp_path / "state",
            progress=stop_in_the_second_scan,
        )

    told: list[tuple[str, int, int]] = []
    stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        audit()
    stop_at = None
    report = audit()
    vocabulary = [(done, total) for stage, done, total in told if stage == "vocabulary"]
    assert vocabulary[0][0] == vocabulary[0][1]  # the reference's was there
    assert vocabulary[1][0] == 0  # the specimen's was not
    assert report.verdict == "suspicious"
    assert audit().cost["resumed"]
    assert {told[1] == told[2] for told in told if told[0] == "vocabulary"} == {True}


def test_an_encoder_that_cannot_be_loaded_is_refused_before_the_reference_is_audited(
    encoder, tokenizer, texts, settings, calibration, tmp_path
):
    encoder.save_pretrained(tmp_path / "clean")
    tokenizer.save_pretrained(tmp_path / "clean")
    told = []
    with pytest.raises(OSError, match=r"encoder .*nowhere cannot be loaded"):
        audit_folder(
            tmp_path / "nowhere",
            texts,
            settings,
            calibration,
            reference=tmp_path / "clean",
            state_dir=tmp_path / "state",
            progress=lambda *progress: told.append(progress),
        )
    assert told == []
    assert not (tmp_path / "state").exists()


def test_an_encoder_without_a_pooler_goes_on_too(encoder, tokenizer, texts, settings, calibration, tmp_path):
    """transformers draws a pooler that the folder lacks, each time another one."""
    BertForMaskedLM(encoder.config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reports = [
        audit_folder(tmp_path, texts, replace(settings, prompt_steps=0), calibration, state_dir=tmp_path / "state")
        for _ in range(2)
    ]
    assert "token:pooled" not in reports[0].statistics
    assert [report.cost["resumed"] for report in reports] == [False, True]


def test_another_encoder_does_not_go_on_with_the_state(
    encoder, specimen, tokenizer, texts, settings, calibration, tmp_path
):
    quick = replace(settings, prompt_steps=0)
    audit_encoder(specimen, tokenizer, texts, quick, calibration, state_dir=tmp_path)
    report = audit_encoder(encoder, tokenizer, texts, quick, calibration, state_dir=tmp_path)
    assert not report.cost["resumed"]
    assert report.verdict == "clean"


def test_a_state_that_is_damaged_or_a_pickle_is_not_used(specimen, tokenizer, texts, settings, calibration, tmp_path):
    quick = replace(settings, prompt_steps=0)
    for content in ({"key": np.array([object()], dtype=object)}, b"PK\x03\x04 damaged", b""):
        if isinstance(content, bytes):
            (tmp_path / module.STATE).write_bytes(content)
        else:
            np.savez(tmp_path / module.STATE, allow_pickle=True, **content)
        assert not audit_encoder(specimen, tokenizer, texts, quick, calibration, state_dir=tmp_path).cost["resumed"]


def test_what_does_not_fit_is_refused_before_the_scan(encoder, tokenizer, texts, settings, calibration):
    def refuse(*_):
        raise AssertionError

    long = [text * 4 for text in texts]
    strange = replace(calibration, center={"strange": 0.0}, scale={"strange": 1.0})
    for given, chosen, compared, message in (
        (long, replace(settings, carrier_length=30), calibration, "texts of 65 tokens, of which the encoder reads 64"),
        ([], settings, calibration, "texts must hold at least 40 different texts .* got 0"),
        (texts, settings, strange, "statistics must have one of strange, got token:first"),
    ):
        with pytest.raises(ValueError, match=message):
            audit_encoder(encoder, tokenizer, given, chosen, compared, progress=refuse)


def test_settings_that_are_none():
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        AuditSettings(group_size=0)
    with pytest.raises(ValueError, match="rounds must be at least 2, got 1"):
        AuditSettings(rounds=1)
    with pytest.raises(ValueError, match="carriers must be at least 2"):
        AuditSettings(carriers=1)
    with pytest.raises(ValueError, match="ordinary_texts must be at least 32 with 8 carriers, got 9"):
        AuditSettings(ordinary_texts=9)


def test_reports_say_the_same_in_three_forms(suspicious, tmp_path):
    suspicious.save(tmp_path / "report")
    content = json.loads((tmp_path / "report/report.json").read_text(encoding="utf-8"))
    text = (tmp_path / "report/report.txt").read_text(encoding="utf-8")
    page = (tmp_path / "report/report.html").read_text(encoding="utf-8")
    assert content["verdict"] == "suspicious"
    assert content["triggers"] == suspicious.triggers
    assert "vector" not in content["findings"][0]
    for trigger in TRIGGERS:
        assert trigger in text
        assert trigger in page
    assert suspicious.findings[0].pulled[0].after in page
    assert "backdoor specimen" in page


def test_a_page_shows_hostile_tokens_as_text(suspicious):
    hostile = replace(suspicious.findings[0], text="<script>alert(1)</script>", tokens=("<script>",))
    page = replace(suspicious, findings=(hostile,), name="<img src=x>").to_html()
    assert "<script>" not in page
    assert "<img" not in page
