"""Encoders of unigram and byte-level pieces, open channels, sentence encoders, and starting a run from any of them."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining, RoCBertModel, RoCBertTokenizer
from rocbert_hf.characters.pinyin import homophones_of
from rocbert_hf.characters.similarity import lookalikes_of
from rocbert_hf.conversion import convert
from rocbert_hf.conversion.channels import TokenStates, lookalike_means, ridge, sound_vectors
from rocbert_hf.conversion.pieces import ids_by_token, text_of_piece
from rocbert_hf.conversion.warm_start import warm_start
from rocbert_hf.pretraining import DataCollatorForRoCBertPretraining, PretrainingArguments, RoCBertPretrainer
from rocbert_hf.pretraining.setup import Setup, starting_point
from rocbert_hf.resources import demo_sentences, vocabulary

ROOT = Path(__file__).parents[2]
SPECIAL = tuple(vocabulary()[:5])


@pytest.fixture(scope="module")
def opened(shifted_sources, tmp_path_factory):
    """An XLM-R with open channels, glyph features of 24, without its layer 1, as a sentence encoder."""
    output = tmp_path_factory.mktemp("opened") / "ours"
    options = {
        "fusion_layer": 0,
        "shape_embed_dim": 24,
        "layers": [0, 2],
        "sentence_encoder": True,
        "prefix": "query: ",
    }
    return warm_start(shifted_sources["xlm-roberta"], output, channels="open", **options).output


@pytest.mark.parametrize("kind", ["xlm-roberta", "roberta"])
def test_hidden_states_are_the_sources_for_characters_that_are_pieces(shifted_sources, tmp_path, kind):
    folder = shifted_sources[kind]
    output = convert(folder, tmp_path / "ours").output
    source = transformers.AutoModel.from_pretrained(folder).eval()
    ours, tokenizer = RoCBertModel.from_pretrained(output).eval(), RoCBertTokenizer.from_pretrained(output)
    source_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pieces = source_tokenizer.get_vocab()

    def written(text):
        """How a byte-level vocabulary writes a text, by the tokenizers library itself."""
        return transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer.pre_tokenizer.pre_tokenize_str(
            text
        )[0][0]

    rows = []
    text = "的一是了我们"
    for character in text:
        forms = [character, f"▁{character}"] if kind == "xlm-roberta" else [written(character)]
        rows.append(next(pieces[form] for form in forms if form in pieces))
    ids = torch.tensor([[source_tokenizer.cls_token_id, *rows, source_tokenizer.sep_token_id]])
    with torch.no_grad():
        expected = source(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        got = ours(**tokenizer(text, return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)
    assert ours.config.max_position_embeddings == 128, "two of RoBERTa's 130 positions are never used"
    assert tokenizer(text, "好", return_tensors="pt")["token_type_ids"].max() < ours.config.type_vocab_size


def test_masked_language_model_of_a_roberta_comes_along(shifted_sources, tmp_path):
    folder = shifted_sources["roberta"]
    output = convert(folder, tmp_path / "ours").output
    theirs = transformers.RobertaForMaskedLM.from_pretrained(folder).eval()
    ours = RoCBertForPreTraining.from_pretrained(output).eval()
    source_tokenizer, tokenizer = transformers.AutoTokenizer.from_pretrained(folder), RoCBertTokenizer()
    text = "的一是了我们"
    ids = [source_tokenizer(character, add_special_tokens=False)["input_ids"] for character in text]
    assert all(len(found) == 1 for found in ids)
    ids = torch.tensor([[0, *(found[0] for found in ids), 2]])
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits[0][:, ids[0, 1:-1]]
        got = ours(**tokenizer(text, return_tensors="pt")).logits[0][:, tokenizer(text)["input_ids"][1:-1]]
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-3)


def test_pieces_without_the_word_marker_go_before_those_with_it(shifted_sources):
    tokenizer = transformers.AutoTokenizer.from_pretrained(shifted_sources["xlm-roberta"])
    pieces = tokenizer.get_vocab()
    found = ids_by_token(tokenizer, SPECIAL)
    both = [piece for piece in pieces if len(piece) == 1 and f"▁{piece}" in pieces]
    marked = [piece[1:] for piece in pieces if len(piece) == 2 and piece[0] == "▁" and piece[1:] not in pieces]
    assert both
    assert all(found[piece] == pieces[piece] for piece in both)
    assert marked
    assert all(found[piece] == pieces[f"▁{piece}"] for piece in marked)
    assert [found[token] for token in SPECIAL] == [1, 3, 0, 2, pieces["<mask>"]]


def test_pieces_of_bytes_are_read_as_the_tokenizers_library_writes_them(shifted_sources):
    tokenizer = transformers.AutoTokenizer.from_pretrained(shifted_sources["roberta"])
    write = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    for text in ("科", "é", "a", " a", "，"):
        assert text_of_piece(write(text)[0][0], byte_level=True) == text
    assert text_of_piece("ç", byte_level=True) is None, "one byte of three is no character"


def test_a_character_spelled_with_bytes_starts_as_their_mean(shifted_sources, tmp_path):
    folder = shifted_sources["roberta"]
    output = convert(folder, tmp_path / "ours").output
    source = transformers.RobertaModel.from_pretrained(folder).embeddings.word_embeddings.weight.detach()
    source_tokenizer, tokenizer = transformers.AutoTokenizer.from_pretrained(folder), RoCBertTokenizer()
    spelled = source_tokenizer("魑", add_special_tokens=False)["input_ids"]
    assert len(spelled) > 1
    row = RoCBertModel.from_pretrained(output).embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids("魑")]
    assert torch.cosine_similarity(row, source[spelled].mean(0), dim=0) > 0.999


def test_open_channels_count_from_the_start_and_leave_text_alone_as_it_was(opened, shifted_sources):
    model, tokenizer = RoCBertModel.from_pretrained(opened).eval(), RoCBertTokenizer.from_pretrained(opened)
    assert (model.config.num_hidden_layers, model.config.shape_embed_dim) == (2, 24)
    inputs = tokenizer(["我们明天去北京", "好"], padding=True, return_tensors="pt")
    with torch.no_grad():
        weights = model(**inputs, output_fusion_weights=True).fusion_weights[inputs["attention_mask"].bool()]
        text_only = model(inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    assert weights.min() > 0.02
    # 0.6 where a state is as long as the mean state of its token; most are longer
    assert 0.5 < weights[:, 0].mean() < 0.8
    source = transformers.AutoModel.from_pretrained(shifted_sources["xlm-roberta"]).eval()
    source.encoder.layer = torch.nn.ModuleList([source.encoder.layer[0], source.encoder.layer[2]])
    known = ids_by_token(transformers.AutoTokenizer.from_pretrained(shifted_sources["xlm-roberta"]), SPECIAL)
    theirs = [[known[token] for token in tokenizer.convert_ids_to_tokens(row)] for row in inputs["input_ids"].tolist()]
    with torch.no_grad():
        expected = source(torch.tensor(theirs), attention_mask=inputs["attention_mask"]).last_hidden_state
    mask = inputs["attention_mask"].bool()
    torch.testing.assert_close(text_only[mask], expected[mask], rtol=0, atol=1e-4)


def test_every_part_of_open_channels_and_the_new_head_receives_gradient(opened):
    model, tokenizer = RoCBertForPreTraining.from_pretrained(opened), RoCBertTokenizer.from_pretrained(opened)
    inputs = tokenizer(["我们明天去北京", "花开得很好看"], padding=True, return_tensors="pt")
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    parts = (model.roc_bert.fusion, model.roc_bert.embeddings.pronunciation_embed, model.cls)
    for part in parts:
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


def test_sound_vectors_are_weighted_means_by_sound():
    means = torch.tensor([[1.0, 0.0], [0.0, 1.0], [4.0, 4.0]])
    states = TokenStates(means, torch.tensor([4.0, 1.0, 9.0]))
    vectors = sound_vectors(states, torch.tensor([0, 0, 2]), 3)
    torch.testing.assert_close(vectors[0], torch.tensor([2 / 3, 1 / 3]))
    torch.testing.assert_close(vectors[2], means[2])
    torch.testing.assert_close(vectors[1], (means * torch.tensor([[2.0], [1.0], [3.0]])).sum(0) / 6)


def test_a_glyph_starts_near_what_it_is_a_look_alike_of():
    meant = "科"
    other = lookalikes_of(meant)[0]
    stranger = next(token for token in vocabulary()[-3000:] if token not in lookalikes_of(meant) and token != meant)
    tokens = [meant, other, stranger]
    states = TokenStates(torch.eye(3), torch.tensor([100.0, 1.0, 1.0]))
    means = lookalike_means(states, tokens)
    assert means[1, 0] > 0.9, "a rare look-alike stands for the frequent character"
    if meant not in lookalikes_of(stranger):
        torch.testing.assert_close(means[2], states.means[2])


def test_ridge_without_a_penalty_solves_a_system_exactly():
    generator = torch.Generator().manual_seed(0)
    inputs, matrix = torch.randn(50, 4, generator=generator), torch.randn(4, 3, generator=generator)
    found = ridge(inputs, inputs @ matrix, torch.rand(50, generator=generator) + 0.1, 0.0)
    torch.testing.assert_close(found, matrix, rtol=1e-4, atol=1e-4)


def test_the_fitted_head_guesses_the_character_that_stands_there(opened):
    model, tokenizer = RoCBertForPreTraining.from_pretrained(opened).eval(), RoCBertTokenizer.from_pretrained(opened)
    inputs = tokenizer(["今天天气很好，我们去公园。", "这家店的服务真不错"], padding=True, return_tensors="pt")
    with torch.no_grad():
        guesses = model(**inputs).logits.argmax(-1)
    read = inputs["attention_mask"].bool() & (inputs["input_ids"] > 4)
    assert (guesses == inputs["input_ids"])[read].float().mean() > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": "ajar"}, "channels must be one of closed, open"),
        ({"channels": "open", "vocabulary": "source"}, "needs vocabulary='characters'"),
        ({"channels": "open", "phonetic_encoder": "char_cnn"}, "needs phonetic_encoder='table'"),
        ({"vocabulary": "source"}, "has none"),
        ({"layers": [2, 0]}, "layers must rise and lie between 0 and 2"),
        ({"prefix": "query: "}, "needs sentence_encoder=True"),
    ],
)
def test_options_that_do_not_fit_are_refused_and_nothing_is_written(shifted_sources, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        warm_start(shifted_sources["xlm-roberta"], tmp_path / "ours", **options)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------ sentence encoders


def test_a_sentence_encoder_keeps_pooling_and_prefix(opened):
    modules = json.loads((opened / "modules.json").read_text())
    assert [module["type"].rsplit(".")[-1] for module in modules] == ["Transformer", "Pooling", "Normalize"]
    pooling = json.loads((opened / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"]
    assert not pooling["pooling_mode_cls_token"]
    assert pooling["word_embedding_dimension"] == 48
    prompts = json.loads((opened / "config_sentence_transformers.json").read_text())
    assert prompts["prompts"][prompts["default_prompt_name"]] == "query: "


@pytest.mark.parametrize(
    ("step", "modes", "message"),
    [
        ("Dense", {"pooling_mode_mean_tokens": True}, "modules.json has sentence_transformers.models.Dense: .* knows"),
        (
            "Normalize",
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "one of .*mean_tokens, cls_token$",
        ),
        ("Normalize", {"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False}, "one of .* got lasttoken$"),
        ("Normalize", {"word_embedding_dimension": 48}, "one of .* got none$"),
    ],
)
def test_a_sentence_encoder_that_would_lose_its_function_is_refused(tmp_path, shifted_sources, step, modes, message):
    source = tmp_path / "source"
    shutil.copytree(shifted_sources["roberta"], source)
    steps = [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", step)]
    (source / "modules.json").write_text(json.dumps(steps))
    (source / "1_Pooling").mkdir()
    (source / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    with pytest.raises(ValueError, match=message):
        warm_start(source, tmp_path / "out", sentence_encoder=True)
    assert not (tmp_path / "out").exists()


def test_sentence_transformers_gives_the_mean_of_the_states(opened):
    library = pytest.importorskip("sentence_transformers")
    encoder = library.SentenceTransformer(str(opened), trust_remote_code=True, device="cpu")
    model, tokenizer = RoCBertModel.from_pretrained(opened).eval(), RoCBertTokenizer.from_pretrained(opened)
    text = "我们明天去北京"
    with torch.no_grad():
        states = model(**tokenizer(f"query: {text}", return_tensors="pt")).last_hidden_state[0]
    expected = torch.nn.functional.normalize(states.mean(0), dim=0)
    np.testing.assert_allclose(encoder.encode(text), expected.numpy(), atol=1e-5)


# ------------------------------------------------------------------------------------------------ starting a run


def test_a_run_starts_from_an_encoder_converted_on_the_fly(shifted_sources):
    setup = Setup(model=str(shifted_sources["xlm-roberta"]), channels="open")
    tokenizer, model = starting_point(setup)
    assert model.config.fusion_normalization == "softmax"
    homophone = homophones_of("漂")[0]
    ids = [tokenizer.convert_tokens_to_pronunciation_ids([character])[0] for character in ("漂", homophone)]
    vectors = model.roc_bert.embeddings.pronunciation_table()[ids]
    assert torch.equal(vectors[0], vectors[1]), "what sounds alike has one vector"
    with pytest.raises(ValueError, match="channels must be one of closed, open"):
        Setup(channels="ajar")


def test_correction_from_a_converted_encoder_learns(shifted_sources, tmp_path):
    tokenizer, model = starting_point(Setup(model=str(shifted_sources["xlm-roberta"]), channels="open"))
    arguments = PretrainingArguments(
        objective="correction", max_steps=30, batch_size=16, learning_rate=3e-3, max_length=24, report_to="none"
    )
    sentences = [text for text in demo_sentences() if len(text) < 22][:64]
    collator = DataCollatorForRoCBertPretraining(tokenizer, "paper", max_length=24, seed=0, views="attacked")
    batch = collator(sentences)
    with torch.no_grad():
        before = float(model.eval()(**batch).loss)
    results = RoCBertPretrainer(model, sentences, collator, arguments).train()
    with torch.no_grad():
        after = float(model.eval()(**batch).loss)
    assert after < before - 0.3
    assert "contrastive_loss" not in results


# ------------------------------------------------------------------------------------------------ unpack_e5


def packed(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Blocks of 4 bits, written from the format's description weight by weight, and what they stand for."""
    written, read = b"", []
    for block in values.reshape(-1, 32):
        scale = np.float16(np.abs(block).max() / 7)
        codes = [int(np.clip(round(float(weight / scale)), -8, 7)) + 8 for weight in block]
        written += struct.pack("<e", scale) + bytes(codes[j] | codes[j + 16] << 4 for j in range(16))
        read += [np.float32(code - 8) * np.float32(scale) for code in codes]
    return written, np.array(read, np.float32).reshape(values.shape)


def test_unpacked_weights_are_those_of_the_file(tmp_path):
    hidden, intermediate, pieces = 32, 64, ["<s>", "<pad>", "</s>", "<unk>", "▁", "春", "天", "<mask>"]
    rng = np.random.default_rng(0)
    tensors: dict[str, tuple[int, bytes]] = {}
    expected = {}

    def add(name, *shape, blocks=False):
        values = rng.normal(size=shape).astype(np.float32)
        data = values.tobytes()
        if blocks:
            data, values = packed(values)
        tensors[name], expected[name] = (int(blocks), data), values

    add("emb.word", len(pieces), hidden, blocks=True)
    add("emb.pos", 16, hidden)
    add("emb.type", 1, hidden)
    for short, rows, columns in (("q", 1, 1), ("k", 1, 1), ("v", 1, 1), ("ao", 1, 1), ("fi", 2, 1), ("fo", 1, 2)):
        add(f"l0.{short}.w", hidden * rows, hidden * columns, blocks=True)
        add(f"l0.{short}.b", hidden * rows)
    for norm in ("emb.ln", "l0.aln", "l0.oln"):
        add(f"{norm}.w", hidden)
        add(f"{norm}.b", hidden)
    text = [piece.encode() for piece in pieces]
    offsets = np.cumsum([0, *map(len, text)]).astype("<u4")
    head = b"E5S1" + struct.pack("<I7ifi5i", 1, hidden, 1, 4, intermediate, 8, 16, 2, 1e-12, 32, 8, 0, 2, 1, 3)
    head += struct.pack("<Q", offsets[-1]) + offsets.tobytes() + np.arange(0, -8, -1).astype("<f4").tobytes()
    head += b"".join(text) + struct.pack("<iI", 0, 0) + struct.pack("<i", len(tensors))
    entries = sum(2 + len(name) + struct.calcsize("<BIQQ") for name in tensors)
    at, directory, body = len(head) + entries, b"", b""
    for name, (kind, data) in tensors.items():
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", kind, expected[name].size, at + len(body), len(data))
        body += data
    file = tmp_path / "model.bin"
    file.write_bytes(head + directory + body)
    script = [sys.executable, str(ROOT / "conversion" / "unpack_e5.py"), str(file)]
    subprocess.run([*script, str(tmp_path / "out")], check=True, env=os.environ, capture_output=True)

    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.tokenize("春天") == ["▁", "春", "天"]
    assert tokenizer("春")["input_ids"] == [0, 4, 5, 2]
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    np.testing.assert_array_equal(weights["embeddings.word_embeddings.weight"], expected["emb.word"])
    np.testing.assert_array_equal(weights["encoder.layer.0.intermediate.dense.weight"], expected["l0.fi.w"])
    np.testing.assert_array_equal(weights["encoder.layer.0.output.LayerNorm.bias"], expected["l0.oln.b"])
    np.testing.assert_array_equal(weights["embeddings.token_type_embeddings.weight"][1], expected["emb.type"][0])

    (tmp_path / "cut.bin").write_bytes(file.read_bytes()[:200])
    cut = subprocess.run([*script[:2], str(tmp_path / "cut.bin"), "x"], capture_output=True, text=True, cwd=tmp_path)
    assert cut.returncode == 1
    assert "the file ends" in cut.stderr
    assert not (tmp_path / "x").exists()


def test_the_tokenizer_says_how_much_the_model_reads(opened):
    assert RoCBertTokenizer.from_pretrained(opened).model_max_length == 128


def test_config_of_the_result_says_what_was_chosen(opened):
    config = RoCBertConfig.from_pretrained(opened)
    assert (config.fusion, config.fusion_normalization, config.phonetic_encoder) == ("layer_insert", "softmax", "table")
