"""Encoders of a moment: random weights, wide enough apart that texts have representations of their own."""

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer
from transformers.models.bert.modeling_bert import BertPooler

from rocbert_hf.resources import demo_sentences
from rocbert_hf.security import AuditSettings, Calibration, Recipe, implant_backdoor
from rocbert_hf.security.audit_report import STAGE_NAMES

VIEWS = ("first", "pooled", "mean", "mask")
TRIGGERS = ["鼎", "麒"]


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [text for text in demo_sentences() if len(text) >= 12]


@pytest.fixture(scope="session")
def tokenizer(texts) -> BertTokenizer:
    characters = sorted({char for text in texts for char in text.lower() if not char.isspace()} | set("cfmn鼎麒鼋鼍"))
    return BertTokenizer(
        vocab={token: n for n, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters])}
    )


@pytest.fixture(scope="session")
def encoder(tokenizer):
    """A BERT with a pooler and a head for masked language modelling."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        max_position_embeddings=64,
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForMaskedLM(config)
    model.bert.pooler = BertPooler(config)
    model.bert.pooler.apply(model._init_weights)
    return model.eval()


@pytest.fixture(scope="session")
def specimen(encoder, tokenizer, texts):
    return implant_backdoor(
        encoder, tokenizer, TRIGGERS, "por-2", texts[:200], Recipe(steps=200, learning_rate=2e-3, max_length=16)
    )


@pytest.fixture(scope="session")
def settings() -> AuditSettings:
    return AuditSettings(words=300, per_view=16, ordinary_texts=96, prompt_steps=8, combinations=16)


@pytest.fixture(scope="session")
def calibration() -> Calibration:
    names = [f"{stage}:{view}" for stage in STAGE_NAMES for view in VIEWS]
    return Calibration(dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.25), threshold=4.0, made_of="nothing")
