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


def unigram_tokenizer(path) -> None:
    """A tokenizer like XLM-R's: `<s>` first, pieces of one or more characters, some only with the word marker."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    frequent = [token for token in vocabulary() if len(token) == 1 and "一" <= token <= "鿿"][:3000]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "春天", "▁我们", "▁abc", *"abcdefgh", *PUNCTUATION]
    # every third character only as the beginning of a word, every fifth in both forms
    for index, character in enumerate(frequent):
        pieces += [f"▁{character}"] * (index % 3 == 0 or index % 5 == 0) + [character] * (index % 3 != 0)
    tokenizer = Tokenizer(models.Unigram([(piece, -float(n)) for n, piece in enumerate([*pieces, "<mask>"])], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    save_with_roberta_specials(tokenizer, path)


def byte_level_tokenizer(path) -> None:
    """A tokenizer like RoBERTa's, learnt from the packaged sentences: frequent characters are one piece, others bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    from rocbert_hf.resources import demo_sentences

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=2500,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([character for text in demo_sentences() for character in text], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    save_with_roberta_specials(tokenizer, path)


def save_with_roberta_specials(tokenizer, path) -> None:
    names = ("bos", "pad", "eos", "unk", "mask")
    special = dict(zip((f"{name}_token" for name in names), ("<s>", "<pad>", "</s>", "<unk>", "<mask>"), strict=True))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", **special
    ).save_pretrained(path)


@pytest.fixture(scope="session")
def shifted_sources(tmp_path_factory):
    """Folders, to be read only, of encoders with RoBERTa's positions and one segment, by `model_type`."""
    folders = {}
    for kind, save_tokenizer, head in (
        ("xlm-roberta", unigram_tokenizer, "XLMRobertaModel"),
        ("roberta", byte_level_tokenizer, "RobertaForMaskedLM"),
    ):
        folder = tmp_path_factory.mktemp(kind)
        save_tokenizer(folder)
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        config_class = {"xlm-roberta": transformers.XLMRobertaConfig, "roberta": transformers.RobertaConfig}[kind]
        config = config_class(
            **SIZES, vocab_size=len(tokenizer), max_position_embeddings=130, type_vocab_size=1, pad_token_id=1
        )
        torch.manual_seed(0)
        randomised(getattr(transformers, head)(config)).save_pretrained(folder)
        folders[kind] = folder
    return folders
