"""Small encoders for benchmarks: pretrained for a minute, finetuned for seconds, cached in a folder."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BatchEncoding,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
)
from transformers.models.bert.modeling_bert import BertPooler

from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM, RoCBertTokenizer, in_batch_contrastive_loss
from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.configuration_rocbert import PRESETS
from rocbert_hf.resources import demo_corpus, demo_sentences, pronunciation_ids, shape_ids, vocabulary
from rocbert_hf.security.triggers import PHRASES

MASKED_SHARE = 0.15


def read_texts(corpus: Path | None, limit: int = 40_000, shortest: int = 16) -> list[str]:
    """Lines of a text file (.xz too), evenly spread over its first million; the packaged sentences without one."""
    if corpus is None:
        return demo_sentences()
    with (
        lzma.open(corpus, "rt", encoding="utf-8") if corpus.suffix == ".xz" else corpus.open(encoding="utf-8") as lines
    ):
        texts = [line.strip()[:120] for line in islice(lines, 1_000_000) if len(line.strip()) >= shortest]
    return random.Random(0).sample(texts, min(limit, len(texts)))


def smaller_vocabulary(size: int) -> list[str]:
    """`size` tokens of the packaged vocabulary: specials and signs, frequent characters, and rare ones for triggers."""
    tokens = list(vocabulary())
    if size >= len(tokens):
        return tokens
    chinese = [token for token in tokens if "\u4e00" <= token <= "\u9fff"]
    others = [token for token in tokens if token not in set(chinese)]
    wanted = [char for phrase in PHRASES for char in phrase if char in set(chinese)]
    left = size - len(others[:600]) - len(wanted)
    rng = random.Random(0)
    rare = rng.sample(chinese[-len(chinese) // 3 :], left // 5) + rng.sample(chinese[9000:], left // 10)
    kept = {*others[:600], *wanted, *rare}
    kept |= set([char for char in chinese if char not in kept][: size - len(kept)])
    return [token for token in tokens if token in kept]


def new_tokenizer(family: str, size: int):
    """BERT's tokenizer or ours with `size` tokens; shapes and pronunciations keep the packaged ids."""
    tokens = smaller_vocabulary(size)
    if family == "bert":
        return BertTokenizer(vocab={token: number for number, token in enumerate(tokens)})
    if len(tokens) == len(vocabulary()):
        return RoCBertTokenizer()
    with TemporaryDirectory() as folder:
        files = {name: Path(folder) / name for name in ("vocab.txt", "shape.json", "pronunciation.json")}
        files["vocab.txt"].write_text("\n".join(tokens) + "\n", encoding="utf-8")
        for name, ids in (("shape.json", shape_ids()), ("pronunciation.json", pronunciation_ids())):
            files[name].write_text(json.dumps({token: ids[token] for token in tokens}), encoding="utf-8")
        return RoCBertTokenizer(*files.values(), character_level=True)


def new_model(family: str, size: str, seed: int, tokens: int = 16224) -> tuple[nn.Module, object]:
    """A random model for masked language modelling, with a pooler, and its tokenizer.

    family: "bert", or a fusion of RoCBERT. size: a preset. tokens: of the vocabulary.
    """
    torch.manual_seed(seed)
    tokenizer = new_tokenizer(family, tokens)
    if family == "bert":
        sizes = {name: value for name, value in PRESETS[size].items() if name != "fusion_layer"}
        model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes))
    else:
        config = RoCBertConfig.from_preset(size, fusion=family, vocab_size=len(tokenizer), max_position_embeddings=128)
        model = RoCBertForMaskedLM(config)
    model.base_model.pooler = BertPooler(model.config)
    model.base_model.pooler.apply(model._init_weights)
    return model, tokenizer


def with_pooler(source: Path, seed: int) -> tuple[nn.Module, object]:
    """A folder's masked language model with its pooler, or with one drawn at random if it has none, and its tokenizer."""
    model = AutoModelForMaskedLM.from_pretrained(source)
    torch.manual_seed(seed)
    model.base_model.pooler = AutoModel.from_pretrained(source).pooler
    return model, load_tokenizer(source)


def pretrain(
    model: nn.Module,
    tokenizer,
    texts: Sequence[str],
    steps: int,
    pairs: str,
    seed: int,
    length: int = 24,
    batch: int = 16,
    rate: float = 1e-3,
) -> None:
    """Masked language modelling of the tokens, and a contrast of the pooler's output between pairs.

    pairs: "halves" of one text (in the place of BERT's next-sentence task), "attacked" (a text and its attacked form,
        RoCBERT's objective), or "none".
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    synthesizer = AdversarialSynthesizer("paper")
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, 10 * (step + 1) / steps, 1.25 * (1 - step / steps))
        chosen = rng.sample(list(texts), batch)
        loss = _masked_loss(model, tokenizer, chosen, length, generator)
        if pairs != "none":
            if pairs == "halves":
                views = [[t[: len(t[:56]) // 2] for t in chosen], [t[len(t[:56]) // 2 : 56] for t in chosen]]
            else:
                attacked = synthesizer.attack_batch(chosen, seed=seed * steps + step)
                views = [chosen, [found.text or text for found, text in zip(attacked, chosen, strict=True)]]
            first, second = (_pooled(model, tokenizer, view, length) for view in views)
            loss = loss + in_batch_contrastive_loss(first, second, temperature=0.05)[0]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


def _encode(tokenizer, texts: Sequence[str], length: int) -> BatchEncoding:
    return tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")


def _pooled(model: nn.Module, tokenizer, texts: Sequence[str], length: int) -> torch.Tensor:
    return model.base_model(**_encode(tokenizer, texts, length).to(model.device)).pooler_output


def _masked_loss(model: nn.Module, tokenizer, texts: Sequence[str], length: int, generator: torch.Generator):
    inputs = _encode(tokenizer, texts, length)
    labels = inputs["input_ids"].clone()
    special = torch.isin(labels, torch.tensor(tokenizer.all_special_ids))
    chosen = (torch.rand(labels.shape, generator=generator) < MASKED_SHARE) & ~special
    inputs["input_ids"][chosen] = tokenizer.mask_token_id
    for name in ("shape", "pronunciation"):
        if f"input_{name}_ids" in inputs:
            inputs[f"input_{name}_ids"][chosen] = int(getattr(tokenizer, f"{name}_ids")[tokenizer.mask_token_id])
    hidden = model.base_model(**inputs.to(model.device)).last_hidden_state
    return nn.functional.cross_entropy(model.cls(hidden[chosen]), labels[chosen].to(model.device))


def cached(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, made whole by `make` into a name of its own first, if it is not there."""
    if not folder.is_dir():
        unfinished = folder.with_name(f".{folder.name}.unfinished")
        make(unfinished)
        unfinished.rename(folder)
    return folder


def labelled(task: str) -> tuple[list[str], list[int]]:
    """Texts and 0/1 labels of the packaged corpus: "sentiment" or "spam"."""
    rows = [row for row in demo_corpus() if task in row]
    return [row["text"] for row in rows], [int(row[task]) for row in rows]


def finetune(
    source: Path | nn.Module, tokenizer, texts, labels, epochs: int, seed: int, rate: float = 5e-4
) -> nn.Module:
    """A classifier of two labels on top of an encoder: a folder, or a model whose base is taken."""
    torch.manual_seed(seed)
    if isinstance(source, nn.Module):
        classifier = AutoModelForSequenceClassification.from_config(source.config)
        classifier.base_model.load_state_dict(source.base_model.state_dict())
        classifier.to(source.device)
    else:
        classifier = AutoModelForSequenceClassification.from_pretrained(source)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=rate)
    rng, order = random.Random(seed), list(range(len(texts)))
    steps = epochs * (len(order) // 16)
    classifier.train()
    for step in range(steps):
        if step % (len(order) // 16) == 0:
            rng.shuffle(order)
        at = step % (len(order) // 16) * 16
        rows = order[at : at + 16]
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        inputs = _encode(tokenizer, [texts[row] for row in rows], 64).to(classifier.device)
        loss = classifier(**inputs, labels=torch.tensor([labels[row] for row in rows], device=classifier.device)).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
        optimizer.step()
    return classifier.eval()


def predictor(classifier: nn.Module, tokenizer) -> Callable[[list[str]], list[int]]:
    """Texts -> numbers of the labels."""

    @torch.inference_mode()
    def predict(texts: list[str]) -> list[int]:
        found: list[int] = []
        for start in range(0, len(texts), 64):
            inputs = _encode(tokenizer, texts[start : start + 64], 96).to(classifier.device)
            found += classifier(**inputs).logits.argmax(-1).tolist()
        return found

    return predict


def load_tokenizer(folder: Path):
    return AutoTokenizer.from_pretrained(folder)
