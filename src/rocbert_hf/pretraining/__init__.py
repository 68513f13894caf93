"""Pretraining (section 4.2): corpus, masking and attacks in the collator, the training loop, held-out evaluation."""

from .arguments import PretrainingArguments
from .collator import DataCollatorForRoCBert, DataCollatorForRoCBertPretraining, collator_for
from .contrastive import GradientCache, gather_with_gradients, global_contrastive_loss
from .corpus.batches import SentenceBatches, Texts, sample_sentences
from .corpus.readers import read_sentences
from .corpus.splitter import split_sentences
from .corpus.text_source import SOURCES, TextSource
from .curves import plot_training_curves
from .devices import make_accelerator
from .distillation import SentenceTeacher, TeacherInputs, teacher_for
from .held_out import HeldOutEvaluation
from .masking import MaskingVocabulary, mask_tokens
from .reporting import read_log
from .restoration import Restoration
from .resuming import checkpoints_of
from .setup import Setup, starting_point
from .trainer import RoCBertPretrainer, save_run

__all__ = [
    "SOURCES",
    "DataCollatorForRoCBert",
    "DataCollatorForRoCBertPretraining",
    "GradientCache",
    "HeldOutEvaluation",
    "MaskingVocabulary",
    "PretrainingArguments",
    "Restoration",
    "RoCBertPretrainer",
    "SentenceBatches",
    "SentenceTeacher",
    "Setup",
    "TeacherInputs",
    "TextSource",
    "Texts",
    "checkpoints_of",
    "collator_for",
    "gather_with_gradients",
    "global_contrastive_loss",
    "make_accelerator",
    "mask_tokens",
    "plot_training_curves",
    "read_log",
    "read_sentences",
    "sample_sentences",
    "save_run",
    "split_sentences",
    "starting_point",
    "teacher_for",
]
