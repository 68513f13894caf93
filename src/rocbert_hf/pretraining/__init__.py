"""Pretraining (section 4.2): corpus, masking and attacks in the collator, the training loop, held-out evaluation."""

from .arguments import PretrainingArguments, parse_arguments
from .collator import DataCollatorForRoCBert, DataCollatorForRoCBertPretraining
from .corpus import SOURCES, TextSource, read_sentences, split_sentences
from .held_out import HeldOutEvaluation
from .masking import MaskingVocabulary, mask_tokens
from .stream import SentenceBatches, Texts, sample_sentences
from .trainer import RoCBertPretrainer, save_run

__all__ = [
    "SOURCES",
    "DataCollatorForRoCBert",
    "DataCollatorForRoCBertPretraining",
    "HeldOutEvaluation",
    "MaskingVocabulary",
    "PretrainingArguments",
    "RoCBertPretrainer",
    "SentenceBatches",
    "TextSource",
    "Texts",
    "mask_tokens",
    "parse_arguments",
    "read_sentences",
    "sample_sentences",
    "save_run",
    "split_sentences",
]
