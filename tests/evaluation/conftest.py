import string

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification, RoCBertTokenizer
from rocbert_hf.evaluation import LabelledTexts
from rocbert_hf.resources import demo_corpus, vocabulary


def bert_tokenizer() -> BertTokenizer:
    pieces = [f"##{char}" for char in string.ascii_lowercase + string.digits]
    return BertTokenizer(vocab={token: number for number, token in enumerate([*vocabulary(), *pieces])})


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, str]:
    """Untrained classifiers of the tiny preset: ours, and transformers' BERT with its own tokenizer."""
    root = tmp_path_factory.mktemp("classifiers")
    torch.manual_seed(0)
    config = RoCBertConfig.from_preset("tiny", initializer_range=0.2)
    RoCBertForSequenceClassification(config).save_pretrained(root / "ours")
    RoCBertTokenizer().save_pretrained(root / "ours")
    tokenizer = bert_tokenizer()
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.2, **sizes)
    BertForSequenceClassification(config).save_pretrained(root / "bert")
    tokenizer.save_pretrained(root / "bert")
    return {name: str(root / name) for name in ("ours", "bert")}


@pytest.fixture(scope="session")
def reviews() -> LabelledTexts:
    rows = [row for row in demo_corpus() if "sentiment" in row][::11]
    return LabelledTexts("reviews", tuple(r["text"] for r in rows), tuple(str(r["sentiment"]) for r in rows))
