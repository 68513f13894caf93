"""Small checkpoints with random weights, as other libraries save them."""

import json

import pytest
import torch
import transformers

from rocbert_hf.conversion.warm_start import warm_start
from rocbert_hf.resources import vocabulary

SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
PUNCTUATION = list("，。！？：；、“”…—《》（）")


def chinese_word_pieces() -> list[str]:
    """A vocabulary in another order than the packaged one, with word pieces, without traditional characters."""
    frequent = [token for token in vocabulary() if len(token) == 1 and "一" <= token <= "鿿"][:3000]
    ascii_tokens = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ["the", "##ing", "bert", "##a", "##科", "2024"]
    return ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PUNCTUATION, *ascii_tokens, *pieces, *frequent]


def randomised(model, seed: int = 0):
    """Every weight away from its initial value, so that no bias is 0 and no norm is the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    model.tie_weights()
    return model.eval()


def write_three_files(folder, tokens: list[str]) -> None:
    """vocab.txt, word_shape.json and word_pronunciation.json of the layout that transformers and the authors share."""
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    for name, size in (("word_shape", 500), ("word_pronunciation", 90)):
        ids = {token: (7 * index) % size for index, token in enumerate(tokens)}
        (folder / f"{name}.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")


@pytest.fixture
def make_roc_bert(tmp_path):
    """Saves a model of transformers' `roc_bert` with its tokenizer; returns the folder."""

    def make(head: str = "RoCBertForPreTraining", **overrides):
        folder = tmp_path / "source"
        folder.mkdir()
        tokens = chinese_word_pieces()
        write_three_files(folder, tokens)
        config = transformers.RoCBertConfig(
            **SIZES,
            vocab_size=len(tokens),
            shape_vocab_size=500,
            pronunciation_vocab_size=90,
            **{"shape_embed_dim": 24, "pronunciation_embed_dim": 48, **overrides},
        )
        randomised(getattr(transformers, head)(config)).save_pretrained(folder)
        transformers.RoCBertTokenizer.from_pretrained(folder).save_pretrained(folder)
        return folder

    return make


def save_bert(folder, kind: str = "bert", head: str = "ForPreTraining", **overrides):
    """Saves a BERT or an ERNIE with its tokenizer; returns the folder."""
    folder.mkdir()
    tokens = chinese_word_pieces()
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    model_class, config_class = {
        "bert": (getattr(transformers, f"Bert{head}"), transformers.BertConfig),
        "ernie": (getattr(transformers, f"Ernie{head}"), transformers.ErnieConfig),
    }[kind]
    config = config_class(**{**SIZES, "vocab_size": len(tokens), **overrides})
    torch.manual_seed(0)
    randomised(model_class(config)).save_pretrained(folder)
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture
def make_bert(tmp_path):
    return lambda *args, **overrides: save_bert(tmp_path / "source", *args, **overrides)


@pytest.fixture(scope="session")
def warm_started(tmp_path_factory):
    """Folders, to be read only: a BERT, and what it becomes with the packaged vocabulary and with its own."""
    folder = tmp_path_factory.mktemp("warm")
    source = save_bert(folder / "bert")
    outputs = {chosen: warm_start(source, folder / chosen, chosen).output for chosen in ("characters", "source")}
    return {"bert": source, **outputs}
