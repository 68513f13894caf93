import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification, RoCBertTokenizer
from rocbert_hf.data import LabelledTexts
from rocbert_hf.finetuning.starting_point import character_level_bert_tokenizer
from rocbert_hf.resources import demo_corpus


def pytest_configure():
    # tests share the machine: one thread each is faster than all of them fighting
    torch.set_num_threads(1)


@pytest.fixture
def tiny_sizes() -> dict:
    """Sizes small enough for float64 transcriptions; no packaged table fits them."""
    return {
        "vocab_size": 97,
        "shape_vocab_size": 61,
        "shape_embed_dim": 24,
        "pronunciation_vocab_size": 41,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }


@pytest.fixture
def make_inputs():
    def make(config: RoCBertConfig, batch: int = 3, length: int = 11, seed: int = 0) -> dict[str, torch.Tensor]:
        """Random aligned channels with right padding in all rows but the first."""
        generator = torch.Generator().manual_seed(seed)
        sizes = {
            "input_ids": config.vocab_size,
            "input_shape_ids": config.shape_vocab_size,
            "input_pronunciation_ids": config.pronunciation_vocab_size,
        }
        inputs = {name: torch.randint(1, size, (batch, length), generator=generator) for name, size in sizes.items()}
        mask = torch.ones(batch, length, dtype=torch.long)
        for row in range(1, batch):
            mask[row, length - row :] = 0
        inputs = {name: ids * mask for name, ids in inputs.items()}
        return {
            **inputs,
            "token_type_ids": (torch.arange(length) > length // 2).long().repeat(batch, 1),
            "attention_mask": mask,
        }

    return make


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, str]:
    """Untrained classifiers of the tiny preset: ours, and transformers' BERT with its own tokenizer."""
    root = tmp_path_factory.mktemp("classifiers")
    torch.manual_seed(0)
    config = RoCBertConfig.from_preset("tiny", initializer_range=0.2)
    RoCBertForSequenceClassification(config).save_pretrained(root / "ours")
    RoCBertTokenizer().save_pretrained(root / "ours")
    tokenizer = character_level_bert_tokenizer()
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.2, **sizes)
    BertForSequenceClassification(config).save_pretrained(root / "bert")
    tokenizer.save_pretrained(root / "bert")
    return {name: str(root / name) for name in ("ours", "bert")}


@pytest.fixture(scope="session")
def reviews() -> LabelledTexts:
    rows = [row for row in demo_corpus() if "sentiment" in row][::11]
    return LabelledTexts("reviews", tuple(r["text"] for r in rows), tuple(str(r["sentiment"]) for r in rows))
