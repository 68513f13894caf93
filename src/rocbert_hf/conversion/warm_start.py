"""Any Chinese BERT -> a RoCBERT that computes the same, with the channels of sound and shape ready to learn.

How the fusion is opened. `layer_insert` gives `H' = (w1 H + w2 Ph + w3 Vi) / (w1 + w2 + w3)`, and is to start as
`H' = H` while every part of it receives gradient. With `fusion_normalization="linear"`, the formula as the paper prints
it, there is such a start:

- `K1 = V1 = I`, so that `w1 = |H|^2`, positive and about as large as the hidden width for every token;
- `K2`, `K3`, the phonetic vectors and `M` as in any new model;
- `V2`, `V3` so small that `w2` and `w3` are lost in float32's rounding: then `H' = H`.

A score answers to its `V` in full, `dw2/dV2 = Ph (K2^T H)^T`, so `V2` and `V3` grow from the first step, and with them the
gradients of `K2`, `K3`, `Ph` and `M`, which are tiny but not 0 before. `w1` being large, the optimizer's first steps open
the channels by some percent each. A token without ids for a channel is computed as in the source at any time.

With `"softmax"` there is none: the weights of a softmax are positive, so `H' = H` needs weights near 0, and a weight near
0 passes as little gradient on as it passes of its vector. A model that is started so, with the text ahead by exp(17),
stays there: its gradients are below what Adam adds to their root mean square (`eps`).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import transformers

from ..characters.forms import traditional_forms_of, variants_of, width_forms_of
from ..characters.parts import components_of
from ..characters.pinyin import homophones_of
from ..comparison import max_difference
from ..configuration_rocbert import RoCBertConfig
from ..files import new_folder
from ..modeling_rocbert import RoCBertForPreTraining, RoCBertModel
from ..resources import demo_sentences, pronunciation_ids, pronunciations, shape_ids, vocabulary
from ..tokenization_rocbert import VOCAB_FILES_NAMES, RoCBertTokenizer
from .source import (
    Conversion,
    check_output,
    local_folder,
    progress,
    quiet_transformers,
    read_config,
    read_weights,
    refuse_difference,
)

VOCABULARIES = ("characters", "source")
# Standard deviation of V2 and V3: w2 / w1 is then below 1e-7 at every width, and float16 can still hold it.
CLOSED = 1e-7
SPECIAL_TOKENS = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
# The prefixes of BERT and ERNIE in transformers, and the names that the first conversions from TensorFlow gave.
PREFIX = re.compile(r"^(bert|ernie)\.")
OLD_NAMES = ((".gamma", ".weight"), (".beta", ".bias"))
NEIGHBOURS = 8  # characters of each kind that a new character's vector is the mean of


@quiet_transformers()
def warm_start(
    source: str | os.PathLike,
    output: str | os.PathLike,
    vocabulary: str = "characters",
    fusion_layer: int = 1,
    phonetic_encoder: str = "char_sum",
    seed: int = 0,
) -> Conversion:
    """BERT, MacBERT, RoBERTa-wwm or ERNIE in transformers' form -> `RoCBertForPreTraining` that computes the same.

    Args:
        source: folder, or repository of the Hub, such as `hfl/chinese-macbert-base`.
        output: folder to write, a new one.
        vocabulary: "characters" (the packaged vocabulary; its tokens get the source's vectors, those that the source
            lacks the mean of their neighbours'), or "source" (the source's word pieces).
        fusion_layer, phonetic_encoder: as in `RoCBertConfig`; the fusion is `layer_insert`, linear.
        seed: of the weights that the source has nothing for.

    Raises:
        OSError: a file is missing, or `output` has files already.
        ValueError: the source is no such model, its parts do not fit, or the outputs would differ.
    """
    output = check_output(output)
    if vocabulary not in VOCABULARIES:
        raise ValueError(f"vocabulary must be one of {', '.join(VOCABULARIES)}, got {vocabulary!r}")
    folder = local_folder(source)
    raw_config = read_config(folder)
    _refuse_other_models(folder, raw_config)
    source_tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    tokenizer = RoCBertTokenizer() if vocabulary == "characters" else with_word_pieces(source_tokenizer)
    source_config = transformers.AutoConfig.from_pretrained(folder)
    config = RoCBertConfig(
        **{name: getattr(source_config, name) for name in _CARRIED if hasattr(source_config, name)},
        vocab_size=len(tokenizer),
        shape_vocab_size=len(shape_ids()),
        pronunciation_vocab_size=len(pronunciations()),
        pad_token_id=tokenizer.pad_token_id,
        fusion="layer_insert",
        fusion_layer=fusion_layer,
        fusion_normalization="linear",
        phonetic_encoder=phonetic_encoder,
    )

    weights = encoder_weights(read_weights(folder))
    pieces = _ids_by_token(source_tokenizer)
    _refuse_size(folder, weights, pieces)
    recipe = VocabularyRecipe.of(tokenizer, pieces)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RoCBertForPreTraining(config).eval()
        open_fusion(model.roc_bert.fusion)
    notes = _fill(model, weights, recipe)
    if vocabulary == "characters":
        notes.append(str(recipe))
    sentences = ordinary_sentences(source_tokenizer, tokenizer)
    source_model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    pooler = {f"roc_bert.{name}": weights[name] for name in weights if name.startswith("pooler.")}
    if not pooler:
        notes.append("the source has no pooler: a classifier starts from a new one")
    with new_folder(output) as staging:
        # with the pooler, which pretraining does not use but a classifier starts from
        model.save_pretrained(staging, state_dict={**model.state_dict(), **pooler})
        tokenizer.save_pretrained(staging)
        converted = RoCBertModel.from_pretrained(staging).eval()
        difference = _difference(source_model, converted, source_tokenizer, tokenizer, sentences, bool(pooler))
        refuse_difference(difference, "the hidden states of source and output")
        notes.append(_gradient_note(model, tokenizer, sentences[:4]))
    return Conversion(output, difference, len(sentences), tuple(notes))


# Fields of BertConfig and ErnieConfig that mean the same here.
_CARRIED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "initializer_range",
    "layer_norm_eps",
    "classifier_dropout",
    "tie_word_embeddings",
)


def _refuse_other_models(folder: Path, config: dict) -> None:
    if config.get("model_type") not in ("bert", "ernie"):
        raise ValueError(
            f"{folder} is of model_type={config.get('model_type')!r}; a warm start needs bert (which MacBERT and "
            "RoBERTa-wwm are, too) or ernie"
        )
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"position_embedding_type={config['position_embedding_type']!r}: only absolute is supported")
    if config.get("is_decoder"):
        raise ValueError(f"{folder} is a decoder (is_decoder=True); a warm start needs an encoder")


def encoder_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A BERT's or ERNIE's weights as float32 under RoCBERT's names, without the prefix of the base model.

    ERNIE's vector of task 0, which it adds to every token, becomes part of the vectors of the segments.
    """
    renamed = {}
    for name, tensor in weights.items():
        name = PREFIX.sub("", name)
        for old, new in OLD_NAMES:
            name = name.removesuffix(old) + new if name.endswith(old) else name
        renamed[name] = tensor.float() if tensor.is_floating_point() else tensor
    tasks = renamed.pop("embeddings.task_type_embeddings.weight", None)
    if tasks is not None:
        renamed["embeddings.token_type_embeddings.weight"] = (
            renamed["embeddings.token_type_embeddings.weight"] + tasks[0]
        )
    return renamed


# ------------------------------------------------------------------------------------------------ vocabulary


def _ids_by_token(tokenizer) -> dict[str, int]:
    """Token -> id, the special tokens under the packaged vocabulary's names for them, too."""
    ids = dict(tokenizer.get_vocab())
    for kind, ours in zip(SPECIAL_TOKENS, vocabulary()[:5], strict=True):
        token = getattr(tokenizer, kind)
        if token is None:
            raise ValueError(f"the source's tokenizer has no {kind}")
        ids[ours] = ids[token]
    return ids


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
    """A RoCBERT tokenizer with a BERT's word pieces and its options.

    Characters, and pieces that continue a word with one character ("##科"), have the shape and the sound of the packaged
    vocabulary; longer pieces have those of [UNK].
    """
    tokens = sorted(source_tokenizer.get_vocab().items(), key=lambda item: item[1])
    if [index for _, index in tokens] != list(range(len(tokens))):
        raise ValueError("the source's vocabulary has gaps between its ids; vocabulary='source' cannot keep it")
    special = {kind: str(getattr(source_tokenizer, kind)) for kind in SPECIAL_TOKENS}
    ours = dict(zip(special.values(), vocabulary()[:5], strict=True))
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
        return RoCBertTokenizer(
            **files, **special, **options, character_level=False, model_max_length=source_tokenizer.model_max_length
        )


def written_forms_of(token: str) -> tuple[str, ...]:
    """The same character in other forms: lower case, another width, simplified or traditional."""
    forms = (token.lower(), *width_forms_of(token), *variants_of(token), *traditional_forms_of(token), f"##{token}")
    return tuple(form for form in dict.fromkeys(forms) if form != token)


@cache
def _characters_with(part: str) -> tuple[str, ...]:
    return _characters_by_part().get(part, ())


@cache
def _characters_by_part() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for character in vocabulary():  # Chinese characters stand there by frequency
        for part in dict.fromkeys(components_of(character)):
            found[part].append(character)
    return {part: tuple(characters) for part, characters in found.items()}


def neighbours_of(token: str, known) -> tuple[tuple[str, ...], ...]:
    """Groups of characters, all in `known`, whose vectors stand in for that of a token that is not.

    Other written forms of it alone, if there are any; otherwise up to eight characters that share each of its parts, the
    most frequent first, and up to eight that sound the same.
    """
    forms = tuple(form for form in written_forms_of(token) if form in known)
    if forms:
        return (forms[:1],)
    groups = [
        [other for other in (part, *_characters_with(part)) if other in known and other != token][:NEIGHBOURS]
        for part in dict.fromkeys(components_of(token))
    ]
    groups.append([other for other in homophones_of(token) if other in known][:NEIGHBOURS])
    return tuple(tuple(group) for group in groups if group)


@dataclass(frozen=True)
class VocabularyRecipe:
    """Of which rows of the source's tables each row of ours is made.

    Args:
        groups: by token id; a row is the mean of the groups' means. None for a token of which nothing is known: its row
            is the mean of the rows that are carried over.
        known, formed, neighboured, unknown: how many tokens the source has itself, has in another written form, has
            neighbours of by part or sound, or knows nothing of.
    """

    groups: tuple[tuple[tuple[int, ...], ...], ...]
    known: int
    formed: int
    neighboured: int
    unknown: int

    @classmethod
    def of(cls, tokenizer: RoCBertTokenizer, pieces: dict[str, int]) -> VocabularyRecipe:
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        groups, counts = [], {"known": 0, "formed": 0, "neighboured": 0, "unknown": 0}
        for token in progress(tokens, "mapping the vocabulary", "token"):
            if token in pieces:
                kind, found = "known", ((pieces[token],),)
            else:
                neighbours = neighbours_of(token, pieces)
                formed = bool(neighbours) and neighbours[0][0] in written_forms_of(token)
                kind = "formed" if formed else "neighboured" if neighbours else "unknown"
                found = tuple(tuple(pieces[other] for other in group) for group in neighbours)
            counts[kind] += 1
            groups.append(found)
        return cls(tuple(groups), **counts)

    def vectors(self, table: torch.Tensor) -> torch.Tensor:
        """(source tokens, size) -> (tokens, size); means are brought to the mean length of what they are the mean of."""
        tokens, sources, shares = self._shares()
        places = torch.stack([tokens, sources])
        mixture = torch.sparse_coo_tensor(places, shares, (len(self.groups), len(table)), check_invariants=True)
        rows = torch.sparse.mm(mixture, table)
        lengths = torch.sparse.mm(mixture, table.norm(dim=-1, keepdim=True))
        count = torch.bincount(tokens, minlength=len(rows))
        carried = table[sources[count[tokens] == 1]]
        rows[count == 0], lengths[count == 0] = carried.mean(0), carried.norm(dim=-1).mean()
        scaled = rows * (lengths / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12))
        return torch.where(count[:, None] == 1, rows, scaled)

    def biases(self, bias: torch.Tensor) -> torch.Tensor:
        """(source tokens,) -> (tokens,); a new token is as improbable as the rarest of its neighbours."""
        tokens, sources, _ = self._shares()
        lowest = bias[sources].min().expand(len(self.groups))
        return lowest.scatter_reduce(0, tokens, bias[sources], "amin", include_self=False)

    def _shares(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which source token has which share of which token: three (entries,)."""
        entries = [
            (token, source, 1 / (len(groups) * len(group)))
            for token, groups in enumerate(self.groups)
            for group in groups
            for source in group
        ]
        tokens, sources, shares = zip(*entries, strict=True)
        return torch.tensor(tokens), torch.tensor(sources), torch.tensor(shares)

    def __str__(self) -> str:
        return (
            f"of {len(self.groups)} tokens, {self.known} have the source's vector, {self.formed} that of another written "
            f"form, {self.neighboured} the mean of characters with the same parts or sound, {self.unknown} the mean of all"
        )


# ------------------------------------------------------------------------------------------------ weights


def _fill(model: RoCBertForPreTraining, weights: dict[str, torch.Tensor], recipe: VocabularyRecipe) -> list[str]:
    """Copy what the source has into a new model; what it has no place for is returned as notes.

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
    notes = [] if has_head else ["the source has no masked language modelling head: a new one, untrained"]
    return notes + ([f"left out: {', '.join(sorted(left_over))}"] if left_over else [])


@torch.no_grad()
def open_fusion(fusion) -> None:
    """Make a new `layer_insert` of linear normalisation start as the identity (see the top of this file)."""
    for matrix in (fusion.key, fusion.value):
        matrix[0].copy_(torch.eye(matrix.shape[-1]))
    fusion.value[1:].normal_(std=CLOSED)


# ------------------------------------------------------------------------------------------------ check


def ordinary_sentences(source_tokenizer, tokenizer: RoCBertTokenizer, count: int = 16) -> list[str]:
    """Packaged sentences that both tokenizers split into the same tokens, all of them known.

    Raises:
        ValueError: there are none.
    """
    specials = dict(zip((getattr(source_tokenizer, kind) for kind in SPECIAL_TOKENS), SPECIAL_TOKENS, strict=True))
    found = []
    for sentence in dict.fromkeys(demo_sentences()):
        theirs, ours = source_tokenizer.tokenize(sentence), tokenizer.tokenize(sentence)
        if theirs == ours and source_tokenizer.unk_token not in theirs and not set(theirs) & specials.keys():
            found.append(sentence)
    if not found:
        raise ValueError(
            "the source's tokenizer splits none of the packaged sentences into known characters: is it a Chinese model's?"
        )
    return found[:: max(len(found) // count, 1)][:count]


def _batches(tokenizer, sentences: list[str]) -> list[dict[str, torch.Tensor]]:
    return [
        dict(tokenizer(sentences[start : start + 4], padding=True, return_tensors="pt"))
        for start in range(0, len(sentences), 4)
    ]


@torch.no_grad()
def _difference(
    source_model, model: RoCBertModel, source_tokenizer, tokenizer, sentences: list[str], with_pooler: bool
) -> float:
    """Largest difference of all layers' hidden states, and of the pooled [CLS]."""
    difference = 0.0
    batches = list(zip(_batches(source_tokenizer, sentences), _batches(tokenizer, sentences), strict=True))
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
