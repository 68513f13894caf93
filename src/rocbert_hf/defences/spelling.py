"""Defences that go with any classifier: spelling put right before it reads, and training on attacked text."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Protocol

import numpy as np

from ..attackers.masked_synonyms import load_masked_language_model
from ..attackers.victim import Classifier, Query, fingerprint_of, probabilities_of
from ..characters.confusables import confusables_of
from ..characters.near_sounds import characters_by_syllable, near_homophones_of
from ..characters.parts import splits_of
from ..characters.pinyin import homophones_of
from ..characters.similarity import lookalikes_of
from ..checkpoints import model_fingerprint
from ..resources import character_readings, vocabulary


class Corrector(Protocol):
    """Puts the spelling of texts right; `name` is for reports."""

    name: str

    def correct(self, texts: Sequence[str]) -> list[str]: ...


class SpellChecked:
    """A classifier with a spelling corrector before it, to be used, and attacked, like the classifier itself.

    Of a pair both texts are corrected. Corrections are kept, so that a text is corrected once.

    Args:
        classifier: anything callable on a list of texts or of pairs.
        corrector: a `Corrector`.
        cache_size: corrections that are kept.
    """

    def __init__(self, classifier: Classifier, corrector: Corrector, cache_size: int = 1 << 16):
        self.classifier = classifier
        self.corrector = corrector
        self.cache_size = cache_size
        self._corrected: OrderedDict[str, str] = OrderedDict()
        self._correcting = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        # its model, tokenizer and reach are those of the classifier
        if name in ("model", "tokenizer", "max_length"):
            return getattr(self.classifier, name)
        raise AttributeError(name)

    @property
    def fingerprint(self) -> str:
        parts = (fingerprint_of(self.classifier), self.corrector.name, getattr(self.corrector, "fingerprint", None))
        return "/".join(map(str, parts))

    def __call__(self, queries: Sequence[Query]) -> np.ndarray:
        """float64 (queries, labels)."""
        queries = list(queries)
        texts = dict.fromkeys(text for query in queries for text in ((query,) if isinstance(query, str) else query))
        with self._correcting:  # a tokenizer's settings are not for several threads
            known = self._correct(texts)
        asked = [known[query] if isinstance(query, str) else tuple(known[text] for text in query) for query in queries]
        return probabilities_of(self.classifier, asked)

    def _correct(self, texts: Iterable[str]) -> dict[str, str]:
        known = {text: self._corrected[text] for text in texts if text in self._corrected}
        unknown = [text for text in texts if text not in known]
        if unknown:
            corrected = self.corrector.correct(unknown)
            if len(corrected) != len(unknown):
                raise ValueError(
                    f"corrector must return one text for each of the {len(unknown)} texts, got {len(corrected)}"
                )
            known.update(zip(unknown, corrected, strict=True))
        for text in texts:
            self._corrected[text] = known[text]
            self._corrected.move_to_end(text)
        while len(self._corrected) > self.cache_size:
            self._corrected.popitem(last=False)
        return known


@dataclass(frozen=True)
class Place:
    """A place in a text, [start, end) in characters, and what may stand there instead: one character each."""

    start: int
    end: int
    candidates: tuple[str, ...]


class MaskedLMCorrector:
    """Correct spelling: undo what attackers do, where a masked language model finds the result more probable.

    What needs no judge goes first (`plain_forms`): look-alikes from other scripts, invisible characters, signs put
    between two Chinese characters. Then the model's probability of every candidate behind a mask is compared with that
    of what stands there, at each place that may have been changed:

    - a Chinese character that the model finds unlikely where it stands: its homophones, near homophones, look-alikes;
    - two characters, one of them unlikely, that are the parts of a third (禾斗): the third (科);
    - letters that spell one syllable: the characters that are read so.

    That takes three forward passes per text: of the text as it is, with masks for what stands there, and with masks for
    what could. It needs no training on errors, unlike the correctors of pycorrector.

    Args:
        model: any masked language model of transformers whose tokens are Chinese characters (BERT's for Chinese,
            RoCBERT), or a folder or Hub id of one.
        tokenizer: the model's; loaded where it is None.
        max_candidates: homophones, near homophones and look-alikes of a character, so many of each at most.
        suspicion: a character of a lower probability than this is looked at; above 1 all are.
        margin: a candidate must be more probable by this, as a natural logarithm, than what stands there.
        batch_size: texts of one forward pass, at most.
        device: where to compute; by default where the model is, and a GPU, if there is one, for a model loaded here.

    Raises:
        ValueError: without a tokenizer beside a model, with one that has no mask, without a trained head, or with a
            number out of range.
    """

    name = "spelling"
    MOST_PLACES = 0.25  # of a text's characters: with more of them masked, the model has too little left to go by

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        max_candidates: int = 20,
        suspicion: float = 0.1,
        margin: float = 3.0,
        batch_size: int = 16,
        device: str | None = None,
    ):
        for argument, value in (("max_candidates", max_candidates), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{argument} must be at least 1, got {value}")
        self.model, self.tokenizer, self.max_length = load_masked_language_model(model, tokenizer, device)
        self.max_candidates = max_candidates
        self.suspicion = suspicion
        self.margin = margin
        self.batch_size = batch_size
        self._ids: dict[str, tuple[int, ...]] = {}

    @property
    def fingerprint(self) -> str:
        """A hash of the model, its tokenizer and reach, and of what is set."""
        settings = (self.max_length, self.max_candidates, self.suspicion, self.margin)
        return model_fingerprint(self.model, self.tokenizer, *settings)

    def correct(self, texts: Sequence[str]) -> list[str]:
        """The texts with their spelling put right, as far as the model reads them."""
        corrected: list[str] = []
        for start in range(0, len(texts), self.batch_size):
            corrected += self._correct_batch([plain_forms(text) for text in texts[start : start + self.batch_size]])
        return corrected

    def _correct_batch(self, texts: list[str]) -> list[str]:
        unlikely = self._unlikely_characters(texts)
        places = {i: self._places(text, unlikely[i]) for i, text in enumerate(texts)}
        places = {i: found for i, found in places.items() if found and self.tokenizer.mask_token not in texts[i]}
        if not places:
            return texts
        standing = [[self._token_ids(texts[i][p.start : p.end]) for p in found] for i, found in places.items()]
        masked = [
            self._masked(texts[i], found, [len(ids) for ids in row])
            for (i, found), row in zip(places.items(), standing, strict=True)
        ]
        kept = self._scores_at_masks(masked, [[[ids] for ids in row] for row in standing])
        masked = [self._masked(texts[i], found, [1] * len(found)) for i, found in places.items()]
        options = [[[self._token_ids(c) for c in place.candidates] for place in found] for found in places.values()]
        put = self._scores_at_masks(masked, options)
        result = list(texts)
        for (i, found), before, after in zip(places.items(), kept, put, strict=True):
            if before is not None and after is not None:
                result[i] = self._rewritten(texts[i], found, before, after)
        return result

    def _unlikely_characters(self, texts: list[str]) -> list[dict[int, float]]:
        """For each text, the positions of unlikely Chinese characters that are one token each, with the probabilities."""
        import torch

        encoded = self._encode(texts, return_offsets_mapping=True)
        offsets = encoded.pop("offset_mapping").tolist()
        with torch.inference_mode():
            logits = self.model(**encoded.to(self.model.device)).logits.float()
            own = logits.gather(-1, encoded["input_ids"][..., None])[..., 0] - logits.logsumexp(-1)
        return [
            {
                start: probability
                for (start, end), probability in zip(spans, row, strict=True)
                if end - start == 1 and probability < self.suspicion and text[start] in character_readings()
            }
            for text, spans, row in zip(texts, offsets, own.exp().tolist(), strict=True)
        ]

    def _places(self, text: str, unlikely: Mapping[int, float]) -> list[Place]:
        """Where to look, in the order of the text; the least likely characters first where there are too many."""
        rewritten = [
            replace(place, candidates=self._known(place.candidates))
            for place in rewritings(text)
            if text[place.start].isascii() or unlikely.keys() & {place.start, place.end - 1}
        ]
        found = sorted(unlikely, key=unlikely.__getitem__)
        taken = {at for place in rewritten for at in range(place.start, place.end)}
        places = rewritten + [Place(at, at + 1, self._confusion_set(text[at])) for at in found if at not in taken]
        places = [place for place in places if place.candidates][: max(1, int(self.MOST_PLACES * len(text)))]
        return sorted(places, key=lambda place: place.start)

    def _confusion_set(self, character: str) -> tuple[str, ...]:
        """What an attacker may have written this character for."""
        kinds = (homophones_of(character), near_homophones_of(character), lookalikes_of(character))
        candidates = dict.fromkeys(other for kind in kinds for other in kind[: self.max_candidates])
        return self._known(tuple(candidates))

    def _known(self, candidates: Sequence[str]) -> tuple[str, ...]:
        """The candidates that are one token of the model each."""
        unknown = (self.tokenizer.unk_token_id,)
        return tuple(c for c in candidates if len(self._token_ids(c)) == 1 and self._token_ids(c) != unknown)

    def _token_ids(self, text: str) -> tuple[int, ...]:
        if text not in self._ids:
            self._ids[text] = tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return self._ids[text]

    def _masked(self, text: str, places: Sequence[Place], masks: Sequence[int]) -> str:
        """The text with so many masks in each place."""
        pieces, at = [], 0
        for place, count in zip(places, masks, strict=True):
            pieces += [text[at : place.start], self.tokenizer.mask_token * count]
            at = place.end
        return "".join([*pieces, text[at:]])

    def _scores_at_masks(
        self, masked: list[str], answers: Sequence[Sequence[Sequence[tuple[int, ...]]]]
    ) -> list[list[np.ndarray] | None]:
        """Log-probabilities of answers at the masks.

        Args:
            masked: texts with masks.
            answers: for each text and place the answers that are compared, each as many tokens as the place has masks.

        Returns:
            For each text and place (answers,); None for a text that the tokenizer cut before its last mask.
        """
        import torch

        encoded = self._encode(masked)
        with torch.inference_mode():
            logits = self.model(**encoded.to(self.model.device)).logits
            rows, columns = (encoded["input_ids"] == self.tokenizer.mask_token_id).nonzero(as_tuple=True)
            logs = logits[rows, columns].float().log_softmax(-1).cpu().numpy()
        logs_of = [logs[rows.cpu().numpy() == i] for i in range(len(masked))]
        scores: list[list[np.ndarray] | None] = []
        for of_text, places in zip(logs_of, answers, strict=True):
            if len(of_text) != sum(len(options[0]) for options in places):
                scores.append(None)
                continue
            found, at = [], 0
            for options in places:
                tokens = np.array(options)
                found.append(of_text[at + np.arange(tokens.shape[1]), tokens].sum(1))
                at += tokens.shape[1]
            scores.append(found)
        return scores

    def _rewritten(self, text: str, places: Sequence[Place], kept: Sequence, put: Sequence) -> str:
        pieces, at = [], 0
        for place, before, after in zip(places, kept, put, strict=True):
            best = int(after.argmax())
            if after[best] > before[0] + self.margin:
                pieces += [text[at : place.start], place.candidates[best]]
                at = place.end
        return "".join([*pieces, text[at:]])

    def _encode(self, texts: list[str], **options: Any):
        return self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt", **options
        )


# --------------------------------------------------------------------------------------------- attacks turned around


def plain_forms(text: str) -> str:
    """The text without what is certain to be no spelling of its own.

    Look-alikes from other scripts become the characters they look like, invisible characters go, and so does a single
    unusual sign between two Chinese characters. Dashes and what else people write for its own sake stay.
    """
    text = "".join(_plain_characters().get(char, char) for char in text if unicodedata.category(char) != "Cf")
    return _STRAY_SIGN.sub("", text)


# Between Chinese characters; not the punctuation, digits, letters and operators that people put there themselves.
_STRAY_SIGN = re.compile(r"(?<=[\u4e00-\u9fff])[*_^`|\\#$@¦§¨¬¯°±´¸¿](?=[\u4e00-\u9fff])")
FREQUENT = 6000  # Chinese characters that may stand behind an attack, by rank
_LETTERS = re.compile("(?<![a-z])[a-z]{1,6}(?![a-z])", re.IGNORECASE)


@cache
def _frequent_characters() -> tuple[str, ...]:
    return tuple(token for token in vocabulary() if token in character_readings())[:FREQUENT]


def _is_written_for_its_own_sake(char: str) -> bool:
    """Dashes, other punctuation, operators (×), superscripts (m²), the Chinese zero, small Greek letters.

    Asked whether such a one was meant, a small masked language model takes most of the right ones for attacks.
    """
    if char in "〇¹²³" or unicodedata.category(char) in ("Pd", "Po", "Sm"):
        return True
    return unicodedata.name(char, "").startswith("GREEK SMALL LETTER")  # the large ones are drawn like Latin ones


@cache
def _plain_characters() -> dict[str, str]:
    """Look-alike -> what it stands for: a frequent Chinese character, or a letter or digit of ASCII."""
    frequent = frozenset(_frequent_characters())
    plain: dict[str, str] = {}
    for char in (*_frequent_characters(), *map(chr, range(ord("0"), ord("z") + 1))):
        if char in frequent or char.isalnum():
            for form in confusables_of(char):
                ours = form.isascii() or form in frequent or "\u3040" <= form <= "\u30ff"
                if not ours and not _is_written_for_its_own_sake(form):
                    plain.setdefault(form, char)
    return plain


@cache
def _wholes() -> dict[str, tuple[str, ...]]:
    """Two characters -> the frequent characters that they are the parts of: 禾斗 -> 科."""
    wholes: dict[str, list[str]] = {}
    for char in _frequent_characters():
        for parts in splits_of(char):
            wholes.setdefault("".join(parts), []).append(char)
    return {parts: tuple(found) for parts, found in wholes.items()}


@cache
def _characters_read() -> dict[str, tuple[str, ...]]:
    """Syllable -> frequent characters whose most common reading it is."""
    frequent = frozenset(_frequent_characters())
    return {
        syllable: tuple(char for char in characters if char in frequent)
        for syllable, characters in characters_by_syllable().items()
    }


def rewritings(text: str) -> list[Place]:
    """Places of more than one character that may stand for one: split characters and pinyin. They do not overlap."""
    places, at = [], 0
    spelled = {match.start(): match for match in _LETTERS.finditer(text)}
    while at < len(text):
        match = spelled.get(at)
        characters = _characters_read().get(match.group().lower(), ()) if match else ()
        wholes = _wholes().get(text[at : at + 2], ())
        if characters:
            places.append(Place(at, match.end(), characters))
        elif wholes:
            places.append(Place(at, at + 2, wholes))
        at = places[-1].end if places and places[-1].start == at else at + 1
    return places
