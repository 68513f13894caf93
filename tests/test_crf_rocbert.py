"""The tagging head: CRF against pytorch-crf and brute force, BiLSTM against torch's, schemes, padding on either side."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from rocbert_hf.configuration_rocbert import RoCBertConfig
from rocbert_hf.crf_rocbert import RoCBertBiLSTM, RoCBertCRF, max_marginals, scheme_penalties, tag_order, viterbi
from rocbert_hf.data.entities import check_tags, label_names
from rocbert_hf.modeling_rocbert import RoCBertForTokenClassification

LENGTHS = torch.tensor([6, 1, 4, 2])


def a_batch(labels: int, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    emissions = torch.randn(4, 6, labels, generator=generator, dtype=dtype)
    tags = torch.randint(labels, (4, 6), generator=generator)
    return emissions, tags, torch.arange(6) < LENGTHS[:, None]


def a_crf(labels, scheme=None) -> RoCBertCRF:
    torch.manual_seed(1)
    crf = RoCBertCRF(labels, scheme).double()
    for parameter in crf.parameters():
        nn.init.normal_(parameter)
    return crf


def test_loss_gradients_and_path_are_those_of_pytorch_crf():
    torchcrf = pytest.importorskip("torchcrf")
    emissions, tags, mask = a_batch(5)
    ours, theirs = a_crf("OABCD"), torchcrf.CRF(5, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())
    a, b = emissions.clone().requires_grad_(), emissions.clone().requires_grad_()
    loss, expected = ours(a, tags, mask), -theirs(b, tags, mask=mask, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs.get_parameter(name).grad, rtol=1e-10, atol=1e-12)
    path = ours.decode(emissions, mask)
    assert [row[:n].tolist() for row, n in zip(path, LENGTHS, strict=True)] == theirs.decode(emissions, mask=mask)


@pytest.mark.parametrize("tied", [False, True])
def test_any_shape_gets_a_path_that_scores_as_pytorch_crf_s(tied):
    torchcrf = pytest.importorskip("torchcrf")
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        numbers = torch.randn(*shape, generator=generator)
        return numbers.sign().clamp(min=0) if tied else numbers

    for size, batch, length, same in itertools.product((1, 2, 5), (1, 3), (1, 2, 3, 8, 9), (False, True)):
        ours, theirs = RoCBertCRF("OABCDE"[:size]), torchcrf.CRF(size, batch_first=True)
        ours.load_state_dict({name: draw(*value.shape) for name, value in ours.state_dict().items()})
        theirs.load_state_dict(ours.state_dict())
        lengths = torch.randint(1, length + 1, (1 if same else batch,), generator=generator).expand(batch)
        emissions, mask = draw(batch, length, size), torch.arange(length) < lengths[:, None]
        path, through = ours.decode(emissions, mask), ours.max_marginals(emissions, mask)
        rows = [torch.tensor(row) for row in theirs.decode(emissions, mask)]
        expected = nn.functional.pad(nn.utils.rnn.pad_sequence(rows, batch_first=True), (0, length))[:, :length]
        torch.testing.assert_close(ours(emissions, path, mask), ours(emissions, expected, mask))
        assert not path[~mask].any()
        assert not through[~mask].any()
        assert torch.equal(through.max(-1)[0], torch.zeros(batch, length))
        if not tied:
            assert torch.equal(path, expected)
            assert torch.equal(through.argmax(-1), expected)


@pytest.mark.parametrize("scheme", [None, "BIO", "BMES", "IOBES"])
def test_the_path_is_the_best_that_the_scheme_allows(scheme):
    labels = label_names(["X"], scheme or "BMES")
    emissions, _, mask = a_batch(len(labels))
    crf = a_crf(labels, scheme)
    start, transitions, end = (
        p.detach().numpy() for p in (crf.start_transitions, crf.transitions, crf.end_transitions)
    )
    path, through = crf.decode(emissions, mask), crf.max_marginals(emissions, mask)
    for row, n in enumerate(LENGTHS.tolist()):
        scored = {}
        for tags in itertools.product(range(len(labels)), repeat=n):
            if scheme is not None:
                try:
                    check_tags([labels[tag] for tag in tags], scheme, [""] * n)
                except ValueError:
                    continue
            score = start[tags[0]] + end[tags[-1]] + sum(transitions[a, b] for a, b in itertools.pairwise(tags))
            scored[tags] = score + sum(emissions[row, at, tag].item() for at, tag in enumerate(tags))
        best = max(scored, key=scored.get)
        assert tuple(path[row, :n].tolist()) == best
        assert tuple(through[row, :n].argmax(-1).tolist()) == best
        for at, tag in itertools.product(range(n), range(len(labels))):
            via = [score for tags, score in scored.items() if tags[at] == tag]
            if via:  # otherwise the scheme forbids it
                assert through[row, at, tag].item() == pytest.approx(max(via) - scored[best], abs=1e-4)
            else:
                assert through[row, at, tag] < -1000


@pytest.mark.parametrize("scheme", ["BMES", "IOBES"])
def test_blocks_of_allowed_transitions_change_nothing(scheme):
    torchcrf = pytest.importorskip("torchcrf")
    generator = torch.Generator().manual_seed(0)
    for types, length in itertools.product((1, 2, 8), (1, 2, 3, 9)):
        labels = label_names([f"T{i}" for i in range(types)], scheme)
        labels = [labels[i] for i in torch.randperm(len(labels), generator=generator)]
        ours, theirs = RoCBertCRF(labels, scheme), torchcrf.CRF(len(labels), batch_first=True)
        for parameter in ours.parameters():
            nn.init.normal_(parameter, generator=generator)
        forbidden = zip(
            ("start_transitions", "transitions", "end_transitions"), scheme_penalties(labels, scheme), strict=True
        )
        theirs.load_state_dict(
            {name: ours.get_parameter(name) + torch.from_numpy(penalties) for name, penalties in forbidden}
        )
        mask = torch.arange(length) < torch.randint(1, length + 1, (5, 1), generator=generator)
        emissions = torch.randn(5, length, len(labels), generator=generator)
        path = ours.decode(emissions, mask)
        assert [row[: m.sum()].tolist() for row, m in zip(path, mask, strict=True)] == theirs.decode(emissions, mask)
        *given, chain = ours._as_numpy(emissions, mask)
        whole = chain._replace(order=tag_order(labels, None))
        assert (chain.order.types, whole.order.types) == (types, 0)
        assert np.array_equal(viterbi(*given, chain), viterbi(*given, whole))
        np.testing.assert_allclose(max_marginals(*given, chain), max_marginals(*given, whole), atol=5e-3)


def test_penalties_and_the_check_of_files_agree_on_what_may_follow():
    for scheme in ("BIO", "BMES", "IOBES"):
        labels = label_names(["X", "Y"], scheme)
        first, pairs, last = scheme_penalties(labels, scheme)
        for a, b in itertools.product(range(len(labels)), repeat=2):
            try:
                check_tags([labels[a], labels[b]], scheme, ["", ""])
                allowed = True
            except ValueError:
                allowed = False
            assert (first[a] + pairs[a, b] + last[b] == 0) == allowed, (labels[a], labels[b])


def test_bilstm_is_that_of_torch_over_packed_sentences():
    torch.manual_seed(0)
    ours, theirs = RoCBertBiLSTM(7, 5), nn.LSTM(7, 5, batch_first=True, bidirectional=True)
    for name, parameter in ours.named_parameters():
        direction, weight = name.split(".")
        parameter.data = theirs.get_parameter(weight + ("_reverse" if direction == "backwards" else "")).data
    states, _, mask = a_batch(7, torch.float32)
    packed = nn.utils.rnn.pack_padded_sequence(states, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    torch.testing.assert_close(ours(states, mask)[mask], expected[mask])


@pytest.mark.parametrize("head", ["crf", "bilstm_crf"])
def test_a_tagger_is_saved_whole_and_does_not_see_padding(tmp_path, head):
    labels = label_names(["PER", "LOC"], "BMES")
    config = RoCBertConfig.from_preset(
        "tiny",
        classifier_head=head,
        tagging_scheme="BMES",
        id2label=dict(enumerate(labels)),
        fusion="none",
        position_embedding_type="functional_relative",
    )
    torch.manual_seed(0)
    RoCBertForTokenClassification(config).save_pretrained(tmp_path)
    model = RoCBertForTokenClassification.from_pretrained(tmp_path).eval()
    ids = torch.randint(10, 1000, (1, 9))
    alone = model(ids).logits
    for padding in ((0, 4), (4, 0)):
        padded, mask = (nn.functional.pad(x, padding) for x in (ids, torch.ones_like(ids)))
        logits = model(padded, attention_mask=mask).logits[:, padding[0] : padding[0] + 9]
        torch.testing.assert_close(logits, alone, atol=1e-4, rtol=1e-4)
    check_tags([labels[i] for i in alone[0].argmax(-1).tolist()], "BMES", [""] * 9)


def test_special_tokens_without_a_label_are_outside_every_entity():
    labels = ("B-X", "I-X", "O")
    config = RoCBertConfig.from_preset(
        "tiny", classifier_head="crf", tagging_scheme="BIO", id2label=dict(enumerate(labels)), fusion="none"
    )
    model = RoCBertForTokenClassification(config).eval()
    with torch.no_grad():
        for parameter in model.tagger.crf.parameters():
            parameter.normal_()
    ids, tags = torch.randint(10, 1000, (3, 6)), torch.randint(3, (3, 6))
    some = tags.index_fill(1, torch.tensor([0, 5]), -100)
    written_out = tags.index_fill(1, torch.tensor([0, 5]), labels.index("O"))
    with torch.no_grad():
        # the same path; the mean is per token with a label
        torch.testing.assert_close(model(ids, labels=some).loss * 12, model(ids, labels=written_out).loss * 18)


@pytest.mark.parametrize("head", ["crf", "bilstm_crf"])
@pytest.mark.parametrize("left", [False, True])
def test_further_pieces_of_a_word_are_left_out_of_the_score_and_of_all_paths_it_is_compared_with(head, left):
    labels = ("B-X", "I-X", "O")
    config = RoCBertConfig.from_preset(
        "tiny", classifier_head=head, tagging_scheme="BIO", id2label=dict(enumerate(labels)), fusion="none"
    )
    torch.manual_seed(0)
    model = RoCBertForTokenClassification(config).double().eval()
    model.tagger.decodes = False  # its logits are the emissions
    with torch.no_grad():
        model.tagger.classifier.weight.normal_()
        for parameter in model.tagger.crf.parameters():
            parameter.normal_()
    no, ids, mask = -100, torch.randint(10, 1000, (4, 8)), torch.zeros(4, 8, dtype=torch.long)
    # with [CLS] and [SEP]; an unlabelled piece before [SEP]; without special tokens; nothing labelled
    rows = [[no, 0, no, no, 1, 2, no], [no, 2, 0, no, 1, no, no], [2, no, 0], [no, no, no, no]]
    tags = torch.full((4, 8), no)
    for row, given in enumerate(rows):
        part = slice(8 - len(given), 8) if left else slice(len(given))
        tags[row, part], mask[row, part] = torch.tensor(given), 1
    outputs = model(ids, attention_mask=mask, labels=tags)
    start, transitions, end = (p.detach().numpy() for p in model.tagger.crf.parameters())
    total = 0.0
    for row, given in enumerate(rows):
        emissions = outputs.logits[row, mask[row].bool()].detach().numpy()
        places = [at for at, tag in enumerate(given) if tag != no or at in (0, len(given) - 1)]
        gold = tuple(labels.index("O") if given[at] == no else given[at] for at in places)
        scores = {
            path: start[path[0]]
            + end[path[-1]]
            + sum(transitions[a, b] for a, b in itertools.pairwise(path))
            + sum(emissions[at, tag] for at, tag in zip(places, path, strict=True))
            for path in itertools.product(range(3), repeat=len(places))
        }
        total += np.logaddexp.reduce(list(scores.values())) - scores[gold]
    assert outputs.loss.item() == pytest.approx(total / 8, rel=1e-10)


@pytest.mark.parametrize("head", ["crf", "bilstm_crf"])
def test_a_compiled_tagger_decodes_too(head):
    labels = label_names(["PER", "LOC"], "BMES")
    config = RoCBertConfig.from_preset(
        "tiny", classifier_head=head, tagging_scheme="BMES", id2label=dict(enumerate(labels)), fusion="none"
    )
    torch.manual_seed(0)
    model = RoCBertForTokenClassification(config).eval()
    nn.init.normal_(model.tagger.classifier.weight)
    ids, mask = torch.randint(10, 1000, (2, 9)), torch.tensor([[1] * 9, [1] * 4 + [0] * 5])
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        expected = model(ids, attention_mask=mask).logits
        torch.testing.assert_close(compiled(ids, attention_mask=mask).logits, expected, atol=1e-4, rtol=1e-4)


def test_a_training_whose_loss_is_not_the_crf_s_is_told_of_once(tiny_sizes, tmp_path):
    """transformers' label smoothing takes the labels away and computes a loss on the logits."""
    config = RoCBertConfig(**tiny_sizes, num_labels=3, classifier_head="crf")
    model = RoCBertForTokenClassification(config)
    rows = [{"input_ids": [2, 7, 8, 3], "labels": [-100, 1, 2, -100]}] * 4
    arguments = {
        "output_dir": str(tmp_path),
        "report_to": "none",
        "max_steps": 2,
        "use_cpu": True,
        "save_strategy": "no",
    }
    smoothed = TrainingArguments(label_smoothing_factor=0.1, **arguments)
    with pytest.warns(UserWarning, match="label_smoothing_factor, does not train the CRF") as told:
        Trainer(model, smoothed, train_dataset=rows).train()
    assert sum("given no labels" in str(warning.message) for warning in told) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*given no labels")
        Trainer(RoCBertForTokenClassification(config), TrainingArguments(**arguments), train_dataset=rows).train()
        with torch.no_grad():  # dropout at inference
            model.train()(input_ids=torch.tensor([[2, 7, 8, 3]]))


def test_tokens_without_a_label_are_words_of_their_own_if_there_are_words_alone():
    labels = ("B", "M", "E", "S")
    config = RoCBertConfig.from_preset(
        "tiny", classifier_head="crf", tagging_scheme="BMES", id2label=dict(enumerate(labels)), fusion="none"
    )
    outside = RoCBertForTokenClassification(config).tagger.outside
    check_tags([labels[outside], "B", "E", "S", labels[outside]], "BMES", [""] * 5)


def test_an_exported_tagger_gives_what_its_decoder_reads():
    config = RoCBertConfig.from_preset("tiny", classifier_head="crf", num_labels=5, fusion="none")
    torch.manual_seed(0)
    model = RoCBertForTokenClassification(config).eval()
    nn.init.normal_(model.tagger.crf.transitions, std=5)
    inputs = {"input_ids": torch.randint(10, 1000, (2, 9)), "attention_mask": torch.ones(2, 9, dtype=torch.long)}
    exported = torch.export.export(model, (), kwargs=inputs, strict=False).module()
    with torch.no_grad():
        best, emissions = model(**inputs).logits.argmax(-1), exported(**inputs).logits
    assert torch.equal(model.tagger.crf.decode(emissions, inputs["attention_mask"]), best)
    assert not torch.equal(emissions.argmax(-1), best)


def test_the_loss_is_a_mean_per_label_that_adds_up_over_micro_batches():
    config = RoCBertConfig.from_preset("tiny", classifier_head="crf", num_labels=5, fusion="none")
    model = RoCBertForTokenClassification(config).eval()
    ids, labels = torch.randint(10, 1000, (4, 6)), torch.randint(5, (4, 6))
    labels[:, 0] = -100
    whole = model(ids, labels=labels).loss
    parts = [model(ids[i : i + 2], labels=labels[i : i + 2], num_items_in_batch=20).loss for i in (0, 2)]
    torch.testing.assert_close(sum(parts), whole)
    assert np.isfinite(whole.item())
