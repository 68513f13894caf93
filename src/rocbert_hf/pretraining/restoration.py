"""Does a model hear and see what was attacked? One character per sentence replaced, and its masked language model asked."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping, Sequence

import torch

from ..characters.pinyin import homophones_of, pinyin_of
from ..characters.similarity import lookalikes_of
from ..configuration_rocbert import WEIGHING_FUSIONS

# What may stand in the place of the character at a position of a text, by name.
REPLACEMENTS: dict[str, Callable[[str, int], Sequence[str]]] = {
    "homophone": lambda text, place: homophones_of(text[place]),
    "lookalike": lambda text, place: lookalikes_of(text[place]),
    "pinyin": lambda text, place: [reading for reading in pinyin_of(text)[place : place + 1] if reading],
}


class Restoration:
    """
    In each sentence one Chinese character is replaced by a homophone, a look-alike or its pinyin. The first guess of the
    masked language model at that place, which is not masked, is the original or not. Places and replacements are drawn
    once, so that models can be compared.

    Args:
        tokenizer: a `RoCBertTokenizer`.
        sentences: texts that the model was not trained on.
        seed: of places and replacements.
        max_length: tokens; a replacement behind them is left out, and a kind without any other has no result.
        batch_size: sentences per forward pass.

    Calling it with a model that has BERT's head for masked tokens, `cls`, gives, for every kind of `REPLACEMENTS`,
        restored_KIND: the share of the sentences where the first guess is the original;
        and, if the model weighs its channels, fusion_CHANNEL_at_KIND and fusion_CHANNEL_elsewhere: the mean weights of
        text, sound and shape at the replaced characters, and at all other tokens of those sentences.
    """

    def __init__(self, tokenizer, sentences: Sequence[str], seed: int = 0, max_length: int = 128, batch_size: int = 64):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.batch_size = batch_size
        self.cases = {}
        for kind in REPLACEMENTS:
            rng = random.Random(seed)
            self.cases[kind] = [case for text in sentences if (case := self._case(text, kind, rng)) is not None]

    def _case(self, text: str, kind: str, rng: random.Random) -> tuple[str, int, int] | None:
        """(attacked text, place, the original's token) of one character that has such a replacement; None without one."""
        places = [place for place, character in enumerate(text) if "一" <= character <= "鿿"]
        rng.shuffle(places)
        for place in places:
            originals = self.tokenizer(text[place], add_special_tokens=False)["input_ids"]
            known = originals != [self.tokenizer.unk_token_id] and len(originals) == 1
            if known and (options := REPLACEMENTS[kind](text, place)):
                return text[:place] + rng.choice(options) + text[place + 1 :], place, originals[0]
        return None

    @torch.inference_mode()
    def __call__(self, model) -> dict[str, float]:
        embeddings = getattr(model.base_model, "embeddings", None)
        # by their columns of `fusion_weights`, which has one for a channel that the model lacks too
        channels = {"text": 0}
        channels |= {"sound": 1} if getattr(embeddings, "has_pronunciation", False) else {}
        channels |= {"shape": 2} if getattr(embeddings, "has_shape", False) else {}
        was_training = model.training
        model.eval()
        results: dict[str, float] = {}
        elsewhere, others = 0.0, 0
        for kind, cases in self.cases.items():
            restored, asked, there = 0, 0, 0.0
            for start in range(0, len(cases), self.batch_size):
                right, weights, outside = self._ask(model, cases[start : start + self.batch_size])
                restored, asked = restored + int(right.sum()), asked + len(right)
                if weights is not None:
                    there, elsewhere, others = there + weights.sum(0), elsewhere + outside.sum(0), others + len(outside)
            if not asked:
                continue
            results[f"restored_{kind}"] = restored / asked
            if torch.is_tensor(there):
                results |= {f"fusion_{c}_at_{kind}": float(there[n] / asked) for c, n in channels.items()}
        if others:
            results |= {f"fusion_{c}_elsewhere": float(elsewhere[n] / others) for c, n in channels.items()}
        model.train(was_training)
        return results

    def _ask(
        self, model, cases: Sequence[tuple[str, int, int]]
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Whether each is restored (cases,), and the fusion's weights there (cases, 3) and at the other tokens."""
        inputs = self.tokenizer(
            [text for text, _, _ in cases],
            truncation=True,
            max_length=self.max_length,
            padding=True,
            return_tensors="pt",
        )
        tokens = [inputs.char_to_token(row, place) for row, (_, place, _) in enumerate(cases)]
        # integers also if there are none: all are behind `max_length`
        rows = torch.tensor([row for row, token in enumerate(tokens) if token is not None], dtype=torch.long)
        places = torch.tensor([tokens[row] for row in rows.tolist()], dtype=torch.long)
        weighs = getattr(model.config, "fusion", None) in WEIGHING_FUSIONS
        of_model = taken_inputs(model.base_model, inputs, model.device)
        states = model.base_model(**of_model, **({"output_fusion_weights": True} if weighs else {}))
        guesses = model.cls(states.last_hidden_state[rows.to(model.device), places.to(model.device)]).argmax(-1).cpu()
        right = guesses == torch.tensor([cases[row][2] for row in rows.tolist()], dtype=torch.long)
        if not weighs:
            return right, None, None
        weights = states.fusion_weights.float().cpu()
        other = inputs["attention_mask"].bool()
        for special in self.tokenizer.all_special_ids:
            other &= inputs["input_ids"] != special
        other[rows, places] = False
        return right, weights[rows, places], weights[other]


def taken_inputs(
    model: torch.nn.Module, batch: Mapping[str, torch.Tensor], device: torch.device
) -> dict[str, torch.Tensor]:
    """Of a batch what the model's `forward` takes, on a device."""
    taken = inspect.signature(model.forward).parameters
    return {name: tensor.to(device) for name, tensor in batch.items() if name in taken}
