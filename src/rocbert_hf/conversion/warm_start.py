"""Any BERT-like encoder that knows Chinese -> a RoCBERT, with the channels of sound and shape ready to learn.

With `channels="closed"` it computes what the source computes; with "open" (see `channels`) it hears and sees at once.

How closed channels start. `layer_insert` gives `H' = (w1 H + w2 Ph + w3 Vi) / (w1 + w2 + w3)`, and is to start as
`H' = H` while every part of it receives gradient. With `fusion_normalization="linear"`, the formula as the paper prints
it, there is such a start:

- `K1 = V1 = I`, so that `w1 = |H|^2`, positive and about as large as the hidden width for every token;
- `K2`, `K3`, the phonetic vectors and `M` as in any new model;
- `V2`, `V3` so small that `w2` and `w3` are lost in float32's rounding: then `H' = H`.

A score answers to its `V` in full, `dw2/dV2 = Ph (K2^T H)^T`, so `V2` and `V3` grow from the first step, and with them the
gradients of `K2`, `K3`, `Ph` and `M`, which are tiny but not 0 before. `w1` being large, the optimizer's first steps open
the channels by some percent each. A token without ids for a channel is computed as in the source at any time.

With `"softmax"` there is no such start: the weights of a softmax are positive, so `H' = H` needs weights near 0, and a weight near
0 passes as little gradient on as it passes of its vector. A model that is started so, with the text ahead by exp(17),
stays there: its gradients are below what Adam adds to their root mean square (`eps`).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path

import torch
import transformers
from torch import nn

from ..comparison import max_difference
from ..configuration_rocbert import RoCBertConfig
from ..files import new_folder
from ..modeling_rocbert import RoCBertForPreTraining, RoCBertModel
from ..resources import demo_sentences, pronunciation_ids, pronunciations, shape_ids
from ..resources import vocabulary as packaged_vocabulary
from ..tokenization_rocbert import VOCAB_FILES_NAMES, RoCBertTokenizer
from . import nezha
from .channels import close_channels, fit_head, open_channels
from .pieces import SPECIAL_TOKENS, ids_by_token
from .sentence_encoder import pooling_of, write_modules
from .source import (
    Conversion,
    check_output,
    checkpoint_config,
    fit_length,
    local_folder,
    progress,
    quiet_transformers,
    read_weights,
    refuse_difference,
)
from .vocabulary import VocabularyRecipe

VOCABULARIES = ("characters", "source")
CHANNELS = ("closed", "open")
# What fusion and phonetic encoder are for each way to start the channels.
STARTS = {
    "closed": {"fusion_normalization": "linear", "phonetic_encoder": "char_sum"},
    "open": {"fusion_normalization": "softmax", "phonetic_encoder": "table"},
}
# Which kinds of model can be the source, and the numbers of the positions that they leave unused before the first.
MODEL_TYPES = ("bert", "ernie", "roberta", "xlm-roberta", nezha.KIND)
POSITIONS = "embeddings.position_embeddings.weight"
SHIFTED_POSITIONS = ("roberta", "xlm-roberta")
# The prefixes of these models in transformers, and the names that the first conversions from TensorFlow gave.
PREFIX = re.compile(r"^(bert|ernie|roberta|nezha)\.")
OLD_NAMES = ((".gamma", ".weight"), (".beta", ".bias"))
# The masked language modelling head of RoBERTa and XLM-R under BERT's names.
HEAD_NAMES = {
    "lm_head.dense.": "cls.predictions.transform.dense.",
    "lm_head.layer_norm.": "cls.predictions.transform.LayerNorm.",
    "lm_head.decoder.": "cls.predictions.decoder.",
    "lm_head.bias": "cls.predictions.bias",
}


@quiet_transformers()
def warm_start(
    source: str | os.PathLike,
    output: str | os.PathLike,
    vocabulary: str = "characters",
    channels: str = "closed",
    fusion_layer: int | None = None,
    phonetic_encoder: str | None = None,
    shape_embed_dim: int | None = None,
    layers: list[int] | None = None,
    sentence_encoder: bool = False,
    prefix: str = "",
    seed: int = 0,
) -> Conversion:
    """A BERT-like encoder in transformers' form -> `RoCBertForPreTraining` with its function.

    Args:
        source: folder, or repository of the Hub, such as `hfl/chinese-macbert-base` (BERT, MacBERT, RoBERTa-wwm, ERNIE)
            or `intfloat/multilingual-e5-small`, `BAAI/bge-m3` (XLM-R's pieces), or a RoBERTa with byte-level pieces.
        output: folder to write, a new one.
        vocabulary: "characters" (the packaged vocabulary; a character gets the vector of the source's piece that is
            this character, with or without the marker of a word's beginning; one that the source lacks gets the mean of
            its neighbours'), or "source" (the source's word pieces, for BERT and ERNIE).
        channels: "closed" (hidden states are the source's, sound and shape begin to count with the first steps of
            training), or "open" (sound and shape count from the start, see `channels.open_channels`; hidden states are
            the source's only for tokens without ids for the channels). "open" needs vocabulary "characters".
        fusion_layer: as in `RoCBertConfig`.
        phonetic_encoder: as in `RoCBertConfig`; default "char_sum" with closed channels; open ones have "table".
        shape_embed_dim: width of the glyph features; default that of `RoCBertConfig`.
        layers: the source's encoder layers to keep, counted from 0; default all of them.
        sentence_encoder: also write `modules.json`, so that sentence-transformers loads the result with the source's
            pooling, or with mean pooling if the source does not say.
        prefix: what sentence-transformers puts before every text, such as "query: ".
        seed: of the weights that the source has nothing for.

    Raises:
        OSError: a file is missing, or `output` has files already.
        ValueError: the source is no such model, its parts do not fit, or the outputs would differ.
    """
    output = check_output(output)
    _check_options(vocabulary, channels, phonetic_encoder, prefix, sentence_encoder)
    folder = local_folder(source)
    _refuse_other_models(folder, checkpoint_config(folder), vocabulary)
    pooling = pooling_of(folder) if sentence_encoder else ""
    is_nezha = checkpoint_config(folder)["model_type"] == nezha.KIND
    tokenizer_class = transformers.BertTokenizer if is_nezha else transformers.AutoTokenizer
    source_tokenizer = tokenizer_class.from_pretrained(folder, trust_remote_code=False)
    tokenizer = RoCBertTokenizer() if vocabulary == "characters" else with_word_pieces(source_tokenizer)
    source_config = nezha.nezha_config(folder) if is_nezha else transformers.AutoConfig.from_pretrained(folder)
    weights = encoder_weights(read_weights(folder), source_config)
    kept = _kept_layers(layers, source_config.num_hidden_layers)
    weights = _with_layers(weights, kept)
    carried = {name: getattr(source_config, name) for name in _CARRIED if hasattr(source_config, name)}
    given = {"fusion_layer": fusion_layer, "phonetic_encoder": phonetic_encoder, "shape_embed_dim": shape_embed_dim}
    config = RoCBertConfig(
        **carried
        | {
            "num_hidden_layers": len(kept),
            "type_vocab_size": len(weights["embeddings.token_type_embeddings.weight"]),
            "vocab_size": len(tokenizer),
            "shape_vocab_size": len(shape_ids()),
            "pronunciation_vocab_size": len(pronunciations()),
            "pad_token_id": tokenizer.pad_token_id,
            "mask_token_id": tokenizer.mask_token_id,
            "fusion": "layer_insert",
        }
        | (nezha.our_fields(source_config) if is_nezha else {"max_position_embeddings": len(weights[POSITIONS])})
        | STARTS[channels]
        | {name: value for name, value in given.items() if value is not None}
    )

    pieces = ids_by_token(source_tokenizer, packaged_vocabulary()[:5])
    _refuse_size(folder, weights, pieces)
    recipe = VocabularyRecipe.of(tokenizer, pieces, source_tokenizer)
    sentences = ordinary_sentences(recipe, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RoCBertForPreTraining(config).eval()
        notes, has_head = _fill(model, weights, recipe)
        if channels == "closed":
            close_channels(model.roc_bert.fusion)
        else:
            notes += open_channels(model, tokenizer, demo_sentences())
        if not has_head:
            fit_head(model, tokenizer, demo_sentences())
    if vocabulary == "characters":
        notes.append(str(recipe))
    source_model = _source_model(folder, source_config, weights, kept)
    pooler = {f"roc_bert.{name}": weights[name] for name in weights if name.startswith("pooler.")}
    if not pooler:
        notes.append("the source has no pooler: a classifier starts from a new one")
    with new_folder(output) as staging:
        # with the pooler, which pretraining does not use but a classifier starts from
        model.save_pretrained(staging, state_dict={**model.state_dict(), **pooler})
        fit_length(tokenizer, config)
        tokenizer.save_pretrained(staging)
        if pooling:
            notes.append(write_modules(staging, pooling, config, prefix))
        converted = RoCBertModel.from_pretrained(staging).eval()
        batches = paired_batches(recipe, tokenizer, sentences, with_channels=channels == "closed")
        difference = _difference(source_model, converted, batches, bool(pooler))
        refuse_difference(difference, "the hidden states of source and output")
        notes.append(_gradient_note(model, tokenizer, sentences[:4]))
    return Conversion(output, difference, len(sentences), tuple(notes))


def _source_model(folder: Path, config, weights: dict[str, torch.Tensor], kept: list[int]) -> nn.Module:
    """The source with the layers that are kept, to compare with."""
    if config.model_type == nezha.KIND:
        config.num_hidden_layers = len(kept)
        return nezha.nezha_model(config, weights)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    model.encoder.layer = nn.ModuleList(model.encoder.layer[index] for index in kept)
    return model


def _check_options(
    vocabulary: str, channels: str, phonetic_encoder: str | None, prefix: str, sentence_encoder: bool
) -> None:
    for name, value, allowed in (("vocabulary", vocabulary, VOCABULARIES), ("channels", channels, CHANNELS)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if channels == "open" and vocabulary != "characters":
        raise ValueError(f"channels='open' needs vocabulary='characters', got {vocabulary!r}")
    if channels == "open" and phonetic_encoder not in (None, "table"):
        raise ValueError(f"channels='open' needs phonetic_encoder='table', got {phonetic_encoder!r}")
    if prefix and not sentence_encoder:
        raise ValueError(f"prefix={prefix!r} is for sentence-transformers: it needs sentence_encoder=True")


def _kept_layers(layers: list[int] | None, count: int) -> list[int]:
    if layers is None:
        return list(range(count))
    if not layers or sorted(set(layers)) != layers or not 0 <= layers[0] <= layers[-1] < count:
        raise ValueError(f"layers must rise and lie between 0 and {count - 1}, got {layers}")
    return layers


def _with_layers(weights: dict[str, torch.Tensor], kept: list[int]) -> dict[str, torch.Tensor]:
    """The weights with these encoder layers alone, counted anew."""
    selected = {}
    for name, tensor in weights.items():
        match = re.match(r"encoder\.layer\.(\d+)\.", name)
        if match is None:
            selected[name] = tensor
        elif int(match[1]) in kept:
            selected[f"encoder.layer.{kept.index(int(match[1]))}.{name[match.end() :]}"] = tensor
    return selected


# Fields of the sources' configurations that mean the same here.
_CARRIED = (
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
    "classifier_dropout",
    "tie_word_embeddings",
    # a specimen's backdoor comes along, so its mark does
    "backdoor_specimen",
    "backdoor_parameters",
)


def _refuse_other_models(folder: Path, config: dict, vocabulary: str) -> None:
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise ValueError(
            f"{folder} is of model_type={kind!r}; a warm start needs bert (which MacBERT, RoBERTa-wwm and E5-small are, "
            "too), ernie, roberta, xlm-roberta or nezha"
        )
    if vocabulary == "source" and kind in SHIFTED_POSITIONS:
        raise ValueError(f"vocabulary='source' keeps word pieces, and a {kind} has none: choose 'characters'")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"position_embedding_type={config['position_embedding_type']!r}: only absolute is supported")
    if config.get("is_decoder"):
        raise ValueError(f"{folder} is a decoder (is_decoder=True); a warm start needs an encoder")


def encoder_weights(weights: dict[str, torch.Tensor], config) -> dict[str, torch.Tensor]:
    """An encoder's weights as float32 under RoCBERT's names, without the prefix of the base model.

    ERNIE's vector of task 0, which it adds to every token, becomes part of the vectors of the segments. RoBERTa counts
    positions from the one after its padding's id: the rows before are left out. A source with one segment gets a second,
    equal one, since our tokenizer numbers the second sentence of a pair 1.

    Args:
        weights: as the checkpoint has them.
        config: the source's configuration.
    """
    renamed = {}
    for name, tensor in weights.items():
        name = PREFIX.sub("", name)
        for old, new in OLD_NAMES:
            name = name.removesuffix(old) + new if name.endswith(old) else name
        for old, new in HEAD_NAMES.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        renamed[name] = tensor.float() if tensor.is_floating_point() else tensor
    positions, segments = POSITIONS, "embeddings.token_type_embeddings.weight"
    needed = (segments,) if config.model_type == nezha.KIND else (positions, segments)
    if missing := [name for name in needed if name not in renamed]:
        raise ValueError(f"the source lacks {missing[0]}")
    tasks = renamed.pop("embeddings.task_type_embeddings.weight", None)
    if tasks is not None:
        renamed[segments] = renamed[segments] + tasks[0]
    if len(renamed[segments]) == 1:
        renamed[segments] = renamed[segments].repeat(2, 1)
    if config.model_type in SHIFTED_POSITIONS:
        renamed[positions] = renamed[positions][config.pad_token_id + 1 :]
    return renamed


# ------------------------------------------------------------------------------------------------ vocabulary


def _refuse_size(folder: Path, weights: dict[str, torch.Tensor], pieces: dict[str, int]) -> None:
    rows = weights.get("embeddings.word_embeddings.weight")
    if rows is None:
        raise ValueError(f"{folder} has no embeddings.word_embeddings.weight")
    if len(rows) <= max(pieces.values()):
        raise ValueError(
            f"{folder} has {len(rows)} word vectors, its tokenizer ids up to {max(pieces.values())}: they do not belong "
            "together"
        )


def with_word_pieces(source_tokenizer) -> RoCBertTokenizer:
    """A RoCBERT tokenizer with a BERT's word pieces, its options and the tokens that were added to it.

    Characters, and pieces that continue a word with one character ("##科"), have the shape and the sound of the packaged
    vocabulary; longer pieces have those of [UNK].
    """
    tokens = sorted(source_tokenizer.get_vocab().items(), key=lambda item: item[1])
    if [index for _, index in tokens] != list(range(len(tokens))):
        raise ValueError("the source's vocabulary has gaps between its ids; vocabulary='source' cannot keep it")
    special = {kind: str(getattr(source_tokenizer, kind)) for kind in SPECIAL_TOKENS}
    ours = dict(zip(special.values(), packaged_vocabulary()[:5], strict=True))
    normalizer = source_tokenizer.backend_tokenizer.normalizer
    options = {
        "do_lower_case": getattr(normalizer, "lowercase", True),
        "strip_accents": getattr(normalizer, "strip_accents", None),
        "tokenize_chinese_chars": getattr(normalizer, "handle_chinese_chars", True),
    }
    known = {}
    for token, _ in tokens:
        character = ours.get(token, token.removeprefix("##") if len(token) > 2 else token)
        if character in shape_ids():
            known[token] = character
    with tempfile.TemporaryDirectory() as folder:
        files = {argument: Path(folder) / name for argument, name in VOCAB_FILES_NAMES.items()}
        files["vocab_file"].write_text("".join(f"{token}\n" for token, _ in tokens), encoding="utf-8", newline="\n")
        for argument, ids in (("word_shape_file", shape_ids()), ("word_pronunciation_file", pronunciation_ids())):
            content = {token: ids[character] for token, character in known.items()}
            files[argument].write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        tokenizer = RoCBertTokenizer(
            **files, **special, **options, character_level=False, model_max_length=source_tokenizer.model_max_length
        )
    # they are in the vocabulary already, but word pieces would not find them in a text
    added = [token for token in source_tokenizer.added_tokens_decoder.values() if str(token) not in special.values()]
    for is_special in (False, True):
        tokenizer.add_tokens([token for token in added if token.special == is_special], special_tokens=is_special)
    return tokenizer


# ------------------------------------------------------------------------------------------------ weights


def _fill(
    model: RoCBertForPreTraining, weights: dict[str, torch.Tensor], recipe: VocabularyRecipe
) -> tuple[list[str], bool]:
    """Copy what the source has into a new model; returns notes, and whether the source has a head for masked tokens.

    Raises:
        ValueError: a weight of the encoder is missing, or has another shape.
    """
    weights = dict(weights)
    table = "embeddings.word_embeddings.weight"
    filled = {f"roc_bert.{table}": recipe.vectors(weights.pop(table))}
    has_head = "cls.predictions.transform.dense.weight" in weights
    if has_head:
        bias = weights.pop("cls.predictions.bias")
        filled["cls.predictions.bias"] = filled["cls.predictions.decoder.bias"] = recipe.biases(bias)
        weights.pop("cls.predictions.decoder.bias", None)
        decoder = weights.pop("cls.predictions.decoder.weight", None)
        tied = model.config.tie_word_embeddings or decoder is None
        filled["cls.predictions.decoder.weight"] = filled[f"roc_bert.{table}"] if tied else recipe.vectors(decoder)
    state = model.state_dict()
    left_over = []
    for name, tensor in progress(weights.items(), "copying weights", "tensor"):
        place = name if name.startswith("cls.") else f"roc_bert.{name}"
        if place in state:
            filled[place] = tensor
        elif not name.startswith("pooler."):
            left_over.append(name)
    for name, tensor in filled.items():
        if state[name].shape != tensor.shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; config.json says {tuple(state[name].shape)}")
    parts = ("fusion.", "embeddings.pronunciation_", "embeddings.letter_convolution.", "embeddings.shape_")
    channels = tuple(f"roc_bert.{part}" for part in parts)
    new = [name for name in state if name not in filled and not name.startswith(channels)]
    if missing := [name for name in new if not name.startswith("cls.")]:
        raise ValueError(f"the source lacks {', '.join(missing[:4])}{' and more' if len(missing) > 4 else ''}")
    model.load_state_dict(filled, strict=False)
    notes = (
        [] if has_head else ["the source has no masked language modelling head: a new one, fitted to its last layer"]
    )
    return notes + ([f"left out: {', '.join(sorted(left_over))}"] if left_over else []), has_head


# ------------------------------------------------------------------------------------------------ check


def ordinary_sentences(recipe: VocabularyRecipe, tokenizer: RoCBertTokenizer, count: int = 16) -> list[str]:
    """Packaged sentences all of whose tokens the source has itself.

    Raises:
        ValueError: there are none.
    """
    known = [len(groups) == 1 and len(groups[0]) == 1 for groups in recipe.groups]
    known[tokenizer.unk_token_id] = False
    sentences = list(dict.fromkeys(demo_sentences()))
    encoded = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    found = [sentence for sentence, ids in zip(sentences, encoded, strict=True) if ids and all(known[i] for i in ids)]
    if not found:
        raise ValueError("the source knows all characters of none of the packaged sentences: is it a Chinese model's?")
    return found[:: max(len(found) // count, 1)][:count]


def paired_batches(
    recipe: VocabularyRecipe, tokenizer: RoCBertTokenizer, sentences: list[str], with_channels: bool
) -> list[tuple[dict, dict]]:
    """The same tokens as inputs of the source and of the result; without `with_channels` in its text channel alone."""
    pairs = []
    for ours in _batches(tokenizer, sentences):
        rows = [[recipe.groups[token][0][0] for token in row] for row in ours["input_ids"].tolist()]
        theirs = {"input_ids": torch.tensor(rows), "attention_mask": ours["attention_mask"]}
        if not with_channels:
            ours = {name: ours[name] for name in ("input_ids", "attention_mask")}
        pairs.append((theirs, ours))
    return pairs


def _batches(tokenizer, sentences: list[str]) -> list[dict[str, torch.Tensor]]:
    return [
        dict(tokenizer(sentences[start : start + 4], padding=True, return_tensors="pt"))
        for start in range(0, len(sentences), 4)
    ]


@torch.no_grad()
def _difference(source_model, model: RoCBertModel, batches: list[tuple[dict, dict]], with_pooler: bool) -> float:
    """Largest difference of all layers' hidden states, and of the pooled [CLS]."""
    difference = 0.0
    for theirs, ours in progress(batches, "comparing outputs", "batch"):
        expected = source_model(**theirs, output_hidden_states=True)
        got = model(**ours, output_hidden_states=True)
        mask = ours["attention_mask"]
        for first, second in zip(expected.hidden_states, got.hidden_states, strict=True):
            difference = max(difference, max_difference(first, second, mask))
        if with_pooler:
            difference = max(difference, max_difference(expected.pooler_output, got.pooler_output))
    return difference


def _gradient_note(model: RoCBertForPreTraining, tokenizer, sentences: list[str]) -> str:
    """The norms of the gradients of the channels' parts at the first step, in words."""
    (batch,) = _batches(tokenizer, sentences)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    with torch.enable_grad():
        model(**batch, labels=labels).loss.backward()
    norms = {name: f"{float(gradient.norm()):.0e}" for name, gradient in channel_gradients(model).items()}
    model.zero_grad()
    return "gradient norms at the start: " + ", ".join(f"{name} {norm}" for name, norm in norms.items())


def channel_gradients(model: RoCBertForPreTraining) -> dict[str, torch.Tensor]:
    """The gradients of what the fusion learns with, after a backward pass."""
    fusion, embeddings = model.roc_bert.fusion, model.roc_bert.embeddings
    gradients = {}
    for index, channel in enumerate(("text", "sound", "shape")):
        gradients[f"K {channel}"], gradients[f"V {channel}"] = fusion.key.grad[index], fusion.value.grad[index]
    gradients["Ph"] = embeddings.pronunciation_embed.weight.grad
    gradients["M"] = fusion.shape_projection.weight.grad
    return gradients
