"""Training a tagger: from packaged sentences to a folder that transformers loads, with spans exact to the character."""

import json
import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

from rocbert_hf.configuration_rocbert import RoCBertConfig
from rocbert_hf.data.entities import Entity, EntityText, entities_of, label_names
from rocbert_hf.data.entity_files import read_entities
from rocbert_hf.finetuning import FinetuningOptions, StartOptions, finetune
from rocbert_hf.finetuning.recipe import card_of
from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer
from rocbert_hf.finetuning.tagger import EntityTagger, cut_for, tagged_rows
from rocbert_hf.finetuning.tagging import (
    EntityRowOptions,
    TaggerOptions,
    TaggingOptimization,
    TaggingRecipe,
    TaggingTrainer,
    make_tagger,
    read_texts,
)
from rocbert_hf.tokenization_rocbert import RoCBertTokenizer
from rocbert_hf.visualization import plot_layer_weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tagger that has learnt eight packaged sentences by heart, and its results."""
    folder = tmp_path_factory.mktemp("tagger")
    few = folder / "few.jsonl"
    texts = read_entities("demo").texts[:8]
    few.write_text("".join(json.dumps({"text": t.text, "entities": t.entities}) + "\n" for t in texts))
    recipe = TaggingRecipe(
        StartOptions(preset="tiny"),
        EntityRowOptions(train_file=str(few), dev_file=str(few), test_file=str(few)),
        TaggerOptions(position_embedding_type="functional_relative", layer_fusion="dynamic"),
        TaggingOptimization(
            learning_rate=2e-3,
            head_learning_rate=5e-3,
            crf_learning_rate=0.05,
            epochs=40,
            batch_size=4,
            patience=40,
            adversarial="fgm",
            epsilon=0.1,
        ),
    )
    results = finetune(recipe, FinetuningOptions(output_dir=folder / "out"))
    return folder / "out", results, texts


def test_it_learns_and_its_folder_gives_the_scores_that_it_reports(trained):
    folder, results, texts = trained
    assert results["test"]["f1"] > 0.9
    tagger = EntityTagger.from_pretrained(str(folder))
    found = tagger([text.text for text in texts])
    right = sum(len(set(a) & set(t.entities)) for a, t in zip(found, texts, strict=True))
    assert right == results["test"]["right"]
    assert json.loads((folder / "all_results.json").read_text())["test"] == results["test"]
    assert plot_layer_weights(tagger.model) is not None


def test_the_pipeline_gives_the_same_spans_to_the_character(trained):
    folder, _, texts = trained
    model, tokenizer = AutoModelForTokenClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="none")
    tagger = EntityTagger(model, tokenizer)
    for text in texts[:4]:
        tokens = tag(text.text)
        spans = [(token["start"], token["end"]) for token in tokens]
        found = entities_of([token["entity"] for token in tokens], tagger.scheme, spans)
        assert found == tagger([text.text])[0]
        for token in tokens:
            assert text.text[token["start"] : token["end"]] == token["word"]


@pytest.mark.parametrize("scheme", ["BIO", "BMES"])
def test_aggregated_spans_are_the_entities(scheme):
    """With BIO transformers groups as we do; of other schemes it groups neighbours of one type."""
    labels = label_names(["X"], scheme)
    config = RoCBertConfig.from_preset(
        "tiny", fusion="none", classifier_head="crf", tagging_scheme=scheme, id2label=dict(enumerate(labels))
    )
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_config(config)
    tokenizer = RoCBertTokenizer()
    tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="simple")
    text = "李雷在北京大学读书，韩梅梅在南京。"
    for group in tag(text):
        assert text[group["start"] : group["end"]] == group["word"].replace(" ", "")
    if scheme == "BIO":
        found = [(e.start, e.end) for e in EntityTagger(model, tokenizer)([text])[0]]
        assert [(group["start"], group["end"]) for group in tag(text)] == found


def test_a_folder_loads_by_trust_remote_code_without_the_package(trained, tmp_path):
    folder, _, texts = trained
    script = tmp_path / "load.py"
    script.write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('rocbert_hf', 'torchcrf', 'seqeval', 'nervaluate'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from transformers import AutoModelForTokenClassification, AutoTokenizer\n"
        "folder, text = sys.argv[1:]\n"
        "model = AutoModelForTokenClassification.from_pretrained(folder, trust_remote_code=True).eval()\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)\n"
        "print(model(**tokenizer(text, return_tensors='pt')).logits.argmax(-1)[0].tolist())\n"
    )
    command = [sys.executable, str(script), str(folder), texts[0].text]
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=tmp_path).stdout
    tagger = EntityTagger.from_pretrained(str(folder))
    expected = tagger.model(**tagger.tokenizer(texts[0].text, return_tensors="pt")).logits.argmax(-1)[0].tolist()
    assert json.loads(told.strip().split("\n")[-1]) == expected


def test_long_texts_are_found_whole_wherever_they_are_cut():
    labels = label_names(["X"], "BMES")
    model, tokenizer = make_tagger(StartOptions(preset="tiny", max_length=20), TaggerOptions(), labels, "BMES")
    text = "李雷在北京大学读书，韩梅梅在南京。" * 6
    tagger = EntityTagger(model, tokenizer, "BMES")
    assert tagger.max_length == 20
    for entity in tagger([text])[0]:
        assert 0 <= entity.start < entity.end <= len(text)
    rows = tagged_rows([EntityText(text)], tokenizer, labels, "BMES", 20)
    assert len(rows) > 5
    assert all(len(row["input_ids"]) <= 20 for row in rows)
    assert all(label == -100 for row in rows for label in (row["labels"][0], row["labels"][-1]))
    assert EntityTagger(model, tokenizer, "BMES")(["", " "]) == [(), ()]


def test_no_piece_is_longer_than_the_model_reads():
    labels, tokenizer = label_names(["X"], "BIO"), character_level_bert_tokenizer()
    assert tokenizer.model_max_length > 512  # it does not say
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 1}
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=24, id2label=dict(enumerate(labels)), **sizes
    )
    tagger = EntityTagger(BertForTokenClassification(config), tokenizer)
    assert len(tagger(["李雷在北京大学读书" * 20])) == 1


def test_a_piece_that_has_more_tokens_alone_is_cut_further():
    # as XLM-RoBERTa's: each text begins with a mark, which here is a token of its own
    pieces = [("<s>", 0.0), ("</s>", 0.0), ("<unk>", -10.0), ("▁", -2.0), *((char, -3.0) for char in "李雷在北京。")]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    ends = [("<s>", 0), ("</s>", 1)]
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=ends)
    tokenizer, labels = PreTrainedTokenizerFast(tokenizer_object=backend), label_names(["X"], "BIO")
    for sentence in ("李雷在北京", "李雷在北京。"):
        text = EntityText(sentence * 9, (Entity(30, 32, "X"),))
        rows = tagged_rows([text], tokenizer, labels, "BIO", 12)
        assert max(len(row["input_ids"]) for row in rows) <= 12
        assert [label for row in rows for label in row["labels"]].count(labels.index("B-X")) == 1
        found = cut_for(tokenizer, text, 12)
        assert "".join(piece.text for _, piece in found) == text.text
        assert all(text.text[start : start + len(piece.text)] == piece.text for start, piece in found)


def test_a_tagger_is_loaded_to_the_device_that_the_other_models_get(trained, monkeypatch):
    monkeypatch.setattr("rocbert_hf.torch_device.device_for", lambda device: device or "meta")
    assert EntityTagger.from_pretrained(str(trained[0])).model.device.type == "meta"
    assert EntityTagger.from_pretrained(str(trained[0]), "cpu").model.device.type == "cpu"


def test_an_encoder_without_a_trained_head_is_no_tagger(trained, tmp_path):
    model, tokenizer = (part.from_pretrained(trained[0]) for part in (AutoModel, AutoTokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no trained tagging head; finetune it first"):
        EntityTagger.from_pretrained(str(tmp_path))


def test_a_tagger_without_an_encoder_is_trained_and_saved(tmp_path):
    recipe = TaggingRecipe(
        StartOptions(preset="bilstm"),
        EntityRowOptions(train_file="demo", limit=8),
        optimization=TaggingOptimization(epochs=1),
    )
    finetune(recipe, FinetuningOptions(output_dir=tmp_path / "out"))
    assert EntityTagger.from_pretrained(str(tmp_path / "out")).model.config.num_hidden_layers == 0
    assert "vectors of 100 without an encoder, without sound and shape" in (tmp_path / "out" / "README.md").read_text()


def test_texts_without_a_token_are_no_rows_and_spoil_no_weight(tmp_path):
    file = tmp_path / "blank.jsonl"
    file.write_text(
        '{"text": "李雷在北京", "entities": [[0, 2, "PER"]]}\n' * 4 + '{"text": "  ", "entities": []}\n' * 8
    )
    recipe = TaggingRecipe(
        StartOptions(preset="bilstm"),
        EntityRowOptions(train_file=str(file), dev_file=str(file)),
        optimization=TaggingOptimization(epochs=1, batch_size=2),
    )
    finetune(recipe, FinetuningOptions(output_dir=tmp_path / "out"))
    model = EntityTagger.from_pretrained(str(tmp_path / "out")).model
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    (tmp_path / "dev.jsonl").write_text('{"text": "  ", "entities": []}\n')
    recipe.row_options.dev_file = str(tmp_path / "dev.jsonl")
    with pytest.raises(ValueError, match="dev texts must have at least one token, they have spaces alone"):
        finetune(recipe, FinetuningOptions(output_dir=tmp_path / "blank"))


def test_labels_that_are_no_tags_of_the_scheme_are_named(trained):
    model, tokenizer = (part.from_pretrained(trained[0]) for part in (AutoModelForTokenClassification, AutoTokenizer))
    with pytest.raises(ValueError, match="must be tags of BIO, got M-"):
        EntityTagger(model, tokenizer, "BIO")
    with pytest.raises(ValueError, match="scheme must be one of BIO, BMES, IOBES, got 'BILOU'"):
        EntityTagger(model, tokenizer, "BILOU")


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.4, 0.6, 0.9])
def test_as_large_a_share_is_held_out_as_was_asked_for(share):
    texts = read_texts(EntityRowOptions(train_file="demo", dev_share=share))
    assert len(texts.dev) == round(200 * share)
    assert set(texts.train) | set(texts.dev) == set(read_entities("demo").texts)
    assert len(texts.train) + len(texts.dev) == 200


def test_one_string_is_not_taken_for_many_texts(trained):
    with pytest.raises(ValueError, match="texts must be a list of strings, got one string"):
        EntityTagger.from_pretrained(trained[0])("李雷在北京")


def test_the_card_of_another_model_names_its_task(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForTokenClassification"]}')
    types = tuple(f"机构类型{number}" for number in range(20))  # longer than a file's name may be
    arguments = {"types": types, "model": str(tmp_path / "encoder"), "train_file": str(tmp_path / "train.txt")}
    card = card_of(tmp_path, {"arguments": arguments})
    assert "pipeline_tag: token-classification" in card
    assert "| model | encoder |" in card
    assert "| train_file | train.txt |" in card
    assert str(types) in card


def test_encoder_head_and_transitions_have_learning_rates_of_their_own(tmp_path):
    labels = label_names(["X"], "BMES")
    start = StartOptions(preset="tiny")
    model, _ = make_tagger(start, TaggerOptions(), labels, "BMES")
    optimization = TaggingOptimization(learning_rate=1e-5, head_learning_rate=1e-4, crf_learning_rate=0.5)
    arguments = optimization.training_arguments(tmp_path, 0, start, 128, "f1")
    trainer = TaggingTrainer(model, arguments, learning_rates={"": 1e-4, "tagger.crf.": 0.5}, eval_dataset=[{}])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in trainer.create_optimizer().param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            expected = 0.5 if "transitions" in name else 1e-5 if name.startswith("roc_bert") else 1e-4
            assert group["lr"] == expected, name
            assert group["weight_decay"] == 0 or "transitions" not in name


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="epsilon needs adversarial, one of fgm"):
        TaggingOptimization(epsilon=1.0)
    with pytest.raises(ValueError, match="adversarial"):
        TaggingOptimization(adversarial="vat")
    with pytest.raises(ValueError, match="classifier_head"):
        TaggerOptions(classifier_head="softmax")
    with pytest.raises(ValueError, match=r"crf_learning_rate needs a classifier_head with a CRF, got 0\.1 and linear"):
        TaggingRecipe(
            StartOptions(preset="tiny"),
            EntityRowOptions(train_file="demo"),
            TaggerOptions(classifier_head="linear"),
            TaggingOptimization(crf_learning_rate=0.1),
        )
    with pytest.raises(ValueError, match=r"dev_share divides the train texts if nothing else .*: dev_file does"):
        EntityRowOptions(train_file="demo", dev_file="demo", dev_share=0.3)
    with pytest.raises(ValueError, match=r"file_scheme would do nothing: demo_entities\.jsonl has spans"):
        read_texts(EntityRowOptions(train_file="demo", file_scheme="BIO"))
    for given in ({"position_embedding_type": "absolute"}, {"layer_fusion": "dynamic"}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} needs an encoder, and the preset bilstm has none"):
            make_tagger(StartOptions(preset="bilstm"), TaggerOptions(**given), ["O", "B-PER", "I-PER"], "BIO")
    with pytest.raises(ValueError, match="max_relative_position needs position_embedding_type functional_relative"):
        make_tagger(StartOptions(preset="tiny"), TaggerOptions(max_relative_position=8), ["O", "B-PER", "I-PER"], "BIO")
