"""Batches: texts into masked and attacked views for pretraining, and padding for every head."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers.data.data_collator import pad_without_fast_tokenizer_warning

from ..attacks import AdversarialSynthesizer, AttackedText
from ..characters.words import segment
from .arguments import PretrainingArguments
from .distillation import TeacherInputs
from .masking import IGNORED_LABEL, MaskingVocabulary, mask_tokens, word_starts_from_lengths

CHANNELS = ("input_ids", "input_shape_ids", "input_pronunciation_ids")
VIEW_KEYS = (*CHANNELS, "attention_mask", "token_type_ids")
UNKNOWN_CHARACTER = "\ufffd"
VIEWS = ("two", "three", "simcse", "attacked")


class DataCollatorForRoCBertPretraining:
    """Make a batch for `RoCBertForPreTraining` of sentences: each one masked, and the same one attacked (section 4.2).

    Args:
        tokenizer: a `RoCBertTokenizer`.
        synthesizer: makes the attacked form; an `AdversarialSynthesizer`, its config or the name of a preset, or None for
            masked language modelling only (`RoCBertForMaskedLM`, or a plain BERT after dropping the two other channels).
        mlm_probability: share of each sentence's tokens to mask; 0 for a contrastive loss alone.
        whole_word_probability: share of the sentences that are masked by whole words (jieba); the others by character.
        max_length: tokens a sentence is truncated to, special tokens included.
        seed: with a seed, an example depends on (seed, its epoch, its text) alone: any number of DataLoader workers and
            processes gives the same examples. Features then carry `"epoch"` if later epochs shall differ. Without a
            seed the numbers come from torch's generator, as in transformers' collators.
        pad_to_multiple_of: pad the batch to a multiple of this length.
        views: "two": the masked and the attacked sentence; "three": the clean one as well, as in the released code and
            under the names that transformers' `RoCBertForPreTraining` has for it; "simcse": the masked sentence twice,
            so that dropout is the only noise between the views, and no synthesizer is used; "attacked": the attacked
            sentence alone, masked, to be restored: one pass teaches both masked language modelling and correction.
        attack_labels: also give what the attacked characters were, to be predicted in the attacked sentence.
        teacher_inputs: also give the clean sentences as a `SentenceTeacher` reads them.

    Input: texts, or dicts with `"text"`, or dicts that a tokenizer made (`"input_ids"` and the other channels); all of
    one kind. Output, int64 tensors of shape (batch, sequence), each view padded to its own longest:

    | key | what |
    |---|---|
    | `input_ids`, `input_shape_ids`, `input_pronunciation_ids`, `attention_mask`, `token_type_ids` | masked sentence |
    | `labels` | the masked tokens' ids, with `views="attacked"` also what to correct; -100 elsewhere |
    | the first five with `attack_` before the name | second view; absent if `synthesizer` is None and `views` is "two" |
    | the first five with `labels_` before the name | clean sentence, with `views="three"` |
    | `teacher_input_ids`, `teacher_attention_mask` ... | clean sentence, with `teacher_inputs` |
    | `attack_labels` | with `attack_labels=True`: what to correct in the second view, -100 elsewhere |

    To be corrected are the tokens of edits that put as many characters as there were before: each has the id of the
    character in its place. A character that became several (its pinyin, its parts) is to be predicted at the first of
    them. Insertions and deletions have no such thing.

    Example:
        >>> collator = DataCollatorForRoCBertPretraining(RoCBertTokenizer(), seed=0)
        >>> batch = collator(["今天天气很好", "这家店的科技感十足"])
        >>> RoCBertForPreTraining(RoCBertConfig.from_preset("tiny"))(**batch).loss
    """

    def __init__(
        self,
        tokenizer,
        synthesizer: AdversarialSynthesizer | str | Mapping[str, Any] | None = "paper",
        mlm_probability: float = 0.15,
        whole_word_probability: float = 0.5,
        max_length: int = 128,
        seed: int | None = None,
        pad_to_multiple_of: int | None = None,
        views: str = "two",
        attack_labels: bool = False,
        teacher_inputs: TeacherInputs | None = None,
    ):
        if views not in VIEWS:
            raise ValueError(f"views must be one of {', '.join(VIEWS)}, got {views!r}")
        attacks = synthesizer is not None and views != "simcse"
        if not attacks and (views in ("three", "attacked") or attack_labels):
            raise ValueError(
                "attack_labels and views 'three' and 'attacked' need a synthesizer, and views other than 'simcse'"
            )
        if not 0 <= mlm_probability < 1:
            raise ValueError(f"mlm_probability must be at least 0 and below 1, got {mlm_probability}")
        if not 0 <= whole_word_probability <= 1:
            raise ValueError(f"whole_word_probability must lie between 0 and 1, got {whole_word_probability}")
        if max_length < 3:
            raise ValueError(f"max_length must be at least 3 ([CLS], one token, [SEP]), got {max_length}")
        if pad_to_multiple_of and max_length % pad_to_multiple_of:
            raise ValueError(
                f"max_length ({max_length}) must be a multiple of pad_to_multiple_of ({pad_to_multiple_of})"
            )
        self.tokenizer = tokenizer
        self.synthesizer = None
        if attacks:
            given = isinstance(synthesizer, AdversarialSynthesizer)
            self.synthesizer = synthesizer if given else AdversarialSynthesizer(synthesizer)
        self.views = views
        self.attack_labels = attack_labels
        self.teacher_inputs = teacher_inputs
        self.mlm_probability = mlm_probability
        self.whole_word_probability = whole_word_probability
        self.max_length = max_length
        self.seed = seed
        self.pad_to_multiple_of = pad_to_multiple_of
        self.vocabulary = MaskingVocabulary.from_tokenizer(tokenizer)
        self._character_ids: dict[str, int | None] = {}

    def __call__(self, features: Sequence[str | dict]) -> dict[str, torch.Tensor]:
        features = [{"text": feature} if isinstance(feature, str) else feature for feature in features]
        tokenized = None
        if all("text" in feature for feature in features):
            texts = [feature["text"] for feature in features]
            batch = self._tokenize(texts)
        elif all(channel in feature for feature in features for channel in CHANNELS):
            tokenized = [self._surfaces(feature["input_ids"]) for feature in features]
            texts = ["".join(surfaces) for surfaces in tokenized]
            batch = self._pad(features)
        else:
            raise ValueError(
                f"every example must be a text or a dict with 'text', or else every one a dict with {', '.join(CHANNELS)}; "
                f"got the keys {sorted({key for feature in features for key in feature})}"
            )
        clean = {key: np.asarray(batch[key]) for key in VIEW_KEYS if key in batch}
        seeds = self._seeds(texts, [feature.get("epoch", 0) for feature in features])
        of_teacher = self.teacher_inputs(texts) if self.teacher_inputs is not None else {}
        if self.views == "attacked":
            return _tensors(self._restoration(texts, seeds)) | of_teacher
        batch = clean | self._mask(clean, texts, seeds, tokenized)
        if self.views == "simcse":
            batch |= {f"attack_{key}": batch[key] for key in clean}
        if self.views == "three":
            batch |= {f"labels_{key}": rows for key, rows in clean.items()}
        if self.synthesizer is not None:
            attacked = self.synthesizer.attack_batch(texts, seeds)
            encoded = self._tokenize([result.text for result in attacked], return_offsets_mapping=self.attack_labels)
            batch |= {f"attack_{key}": np.asarray(encoded[key]) for key in VIEW_KEYS if key in encoded}
            if self.attack_labels:
                batch["attack_labels"] = self._corrections(attacked, encoded)
        return _tensors(batch) | of_teacher

    def _restoration(self, texts: Sequence[str], seeds: Sequence[int]) -> dict[str, np.ndarray]:
        """The attacked sentences, masked; `labels` say what the masked and the attacked characters were."""
        attacked = self.synthesizer.attack_batch(texts, seeds)
        changed = [result.text for result in attacked]
        encoded = self._tokenize(changed, return_offsets_mapping=True)
        view = {key: np.asarray(encoded[key]) for key in VIEW_KEYS if key in encoded}
        view |= self._mask(view, changed, seeds, None)
        corrections = self._corrections(attacked, encoded)
        view["labels"] = np.where(corrections == IGNORED_LABEL, view["labels"], corrections)
        return view

    def _mask(
        self, clean: dict[str, np.ndarray], texts: Sequence[str], seeds: Sequence[int], tokenized: list | None
    ) -> dict[str, np.ndarray]:
        """The masked channels and their labels.

        Args:
            tokenized: what each token says, for examples that came as ids.
        """
        if self.mlm_probability == 0:
            return {"labels": np.full_like(clean["input_ids"], IGNORED_LABEL)}
        generators = [np.random.default_rng(seed) for seed in seeds]
        by_word = [i for i, rng in enumerate(generators) if rng.random() < self.whole_word_probability and texts[i]]
        if tokenized is None:
            spans = self._token_spans([texts[i] for i in by_word])
        else:
            spans = [_consecutive_spans([len(surface) for surface in tokenized[i]]) for i in by_word]
        masked = mask_tokens(
            *(clean[channel] for channel in CHANNELS),
            vocabulary=self.vocabulary,
            rng=generators,
            probability=self.mlm_probability,
            word_starts=self._word_starts(clean["input_ids"].shape, texts, dict(zip(by_word, spans, strict=True))),
            maskable=clean["attention_mask"],
        )
        return {channel: getattr(masked, channel) for channel in CHANNELS} | {"labels": masked.labels}

    def _corrections(self, attacked: Sequence[AttackedText], encoded) -> np.ndarray:
        """(batch, attacked sequence) ids of the characters in the source that the attacked tokens stand for."""
        labels = np.full_like(encoded["input_ids"], IGNORED_LABEL)
        for row, ids, offsets, result in zip(
            labels, encoded["input_ids"], encoded["offset_mapping"], attacked, strict=True
        ):
            replaced = {
                text_start + i: result.source[start + i]
                for (start, end), (text_start, text_end), _ in result.edits
                if end - start == text_end - text_start or end - start == 1 < text_end - text_start
                for i in range(end - start)
            }
            if not replaced:
                continue
            for position, (start, end) in enumerate(offsets.tolist()):
                if end - start == 1 and start in replaced:
                    source = self._id_of_character(replaced[start])
                    if source not in (None, ids[position]):
                        row[position] = source
        return labels

    def _id_of_character(self, character: str) -> int | None:
        """Its token, None if it is not one ordinary token."""
        if character not in self._character_ids:
            ids = self.tokenizer(character, add_special_tokens=False)["input_ids"]
            self._character_ids[character] = ids[0] if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id else None
        return self._character_ids[character]

    def _seeds(self, texts: Sequence[str], epochs: Sequence[int]) -> list[int]:
        """One 63-bit seed for each example."""
        if self.seed is None:
            return torch.randint(2**63 - 1, (len(texts),)).tolist()
        keys = (f"{self.seed}/{epoch}/{text}" for epoch, text in zip(epochs, texts, strict=True))
        digests = (hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys)
        return [int.from_bytes(digest, "little") >> 1 for digest in digests]

    def _tokenize(self, texts: list[str], **options):
        return self.tokenizer(
            texts,
            truncation=True,
            max_length=self.max_length,
            padding=True,
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors="np",
            **options,
        )

    def _pad(self, features: Sequence[dict]):
        """Pad sentences that are tokenized already."""
        return pad_without_fast_tokenizer_warning(
            self.tokenizer,
            [{key: feature[key] for key in VIEW_KEYS if key in feature} for feature in features],
            pad_to_multiple_of=self.pad_to_multiple_of,
            return_tensors="np",
        )

    def _surfaces(self, ids: Sequence[int]) -> list[str]:
        """What each token says in the text: nothing for special tokens; `UNKNOWN_CHARACTER` for what is lost."""
        ids = np.asarray(ids).tolist()
        surface_of_special = dict.fromkeys(self.vocabulary.special_ids.tolist(), "")
        surface_of_special[self.tokenizer.unk_token_id] = UNKNOWN_CHARACTER
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        return [surface_of_special.get(i, token.removeprefix("##")) for i, token in zip(ids, tokens, strict=True)]

    def _token_spans(self, texts: list[str]) -> list[np.ndarray]:
        """Each token's characters [start, end) in its text, (sequence, 2) for each text; empty for special tokens."""
        if not texts:
            return []
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_length, return_offsets_mapping=True)
        return [np.array(offsets) for offsets in encoded["offset_mapping"]]

    def _word_starts(self, shape: tuple[int, int], texts: Sequence[str], spans: dict[int, np.ndarray]) -> np.ndarray:
        """Word starts for `mask_tokens` (batch, sequence): jieba's words in the rows that have `spans`, else tokens."""
        starts = np.tile(np.arange(shape[1]), (shape[0], 1))
        for i, of_row in spans.items():
            words = word_starts_from_lengths(of_row, [len(word) for word in segment(texts[i])])
            padding = 0 if self.tokenizer.padding_side == "right" else shape[1] - len(words)
            starts[i, padding : padding + len(words)] = words + padding
        return starts


def collator_for(
    arguments: PretrainingArguments, tokenizer, mixed_precision: str, teacher_inputs: TeacherInputs | None = None
) -> DataCollatorForRoCBertPretraining:
    """The collator that makes the objective's views, for a run in "bf16", "fp16" or "no"."""
    return DataCollatorForRoCBertPretraining(
        tokenizer,
        arguments.attacks if arguments.attacks_sentences else None,
        mlm_probability=0.0 if arguments.objective == "contrastive_only" else arguments.mlm_probability,
        whole_word_probability=arguments.whole_word_probability,
        max_length=arguments.max_length,
        seed=arguments.seed,
        pad_to_multiple_of=arguments.padding_multiple(mixed_precision),
        views=arguments.collator_views,
        attack_labels=arguments.correct_attacked,
        teacher_inputs=teacher_inputs,
    )


def _tensors(batch: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64)) for key, rows in batch.items()}


def _consecutive_spans(lengths: Sequence[int]) -> np.ndarray:
    """(n, 2) spans [start, end) of pieces of these lengths that follow one another."""
    ends = np.cumsum(lengths)
    return np.stack([ends - lengths, ends], axis=1)


class DataCollatorForRoCBert:
    """Pad tokenized examples of any head in all three channels; for `transformers.Trainer`.

    transformers' `DataCollatorWithPadding` (one label an example), `DataCollatorForTokenClassification` (a label a
    token) and `DataCollatorForMultipleChoice` (nested examples) work with `RoCBertTokenizer` too; this is one collator
    that tells these apart by itself.

    Args:
        tokenizer: a `RoCBertTokenizer`.
        pad_to_multiple_of: pad to a multiple of this length.

    Input: dicts with `"input_ids"` and the tokenizer's other outputs: (sequence,) each, or (choices, sequence) for
    multiple choice; optionally `"label"`, `"labels"`, `"start_positions"` and `"end_positions"`. Labels may be one
    number per example (or floats: regression, multi-label), or one integer per token (token classification, masked or
    causal LM), padded with -100.

    Output: tensors (batch, sequence), or (batch, choices, sequence); `labels` (batch,) or (batch, sequence).
    """

    def __init__(self, tokenizer, pad_to_multiple_of: int | None = None):
        self.tokenizer = tokenizer
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, features: Sequence[dict]) -> dict[str, torch.Tensor]:
        inputs = [
            {key: feature[key] for key in self.tokenizer.model_input_names if key in feature} for feature in features
        ]
        choices = len(inputs[0]["input_ids"]) if np.ndim(inputs[0]["input_ids"][0]) else None
        if choices is not None:
            inputs = [{key: rows[i] for key, rows in example.items()} for example in inputs for i in range(choices)]
        batch = pad_without_fast_tokenizer_warning(
            self.tokenizer, inputs, pad_to_multiple_of=self.pad_to_multiple_of, return_tensors="pt"
        )
        sequence = batch["input_ids"].shape[1]
        if choices is not None:
            batch = {key: rows.view(len(features), choices, sequence) for key, rows in batch.items()}

        label_key = next((key for key in ("labels", "label", "label_ids") if features[0].get(key) is not None), None)
        if label_key:
            batch["labels"] = self._labels([feature[label_key] for feature in features], sequence)
        for key in ("start_positions", "end_positions"):
            if key in features[0]:
                batch[key] = torch.tensor([int(feature[key]) for feature in features])
        return dict(batch)

    def _labels(self, labels: Sequence, sequence: int) -> torch.Tensor:
        first = np.asarray(labels[0])
        if first.ndim == 0 or first.dtype.kind == "f":  # a class; a score of regression; multi-label's 0.0 and 1.0
            return torch.tensor(np.asarray(labels).tolist())
        padded = np.full((len(labels), sequence), IGNORED_LABEL, dtype=np.int64)
        for row, label in zip(padded, labels, strict=True):
            position = (
                slice(0, len(label)) if self.tokenizer.padding_side == "right" else slice(sequence - len(label), None)
            )
            row[position] = np.asarray(label)
        return torch.from_numpy(padded)
