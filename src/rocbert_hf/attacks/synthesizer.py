"""The paper's algorithm, whole: count (Eq. 1), selection (Eq. 2), combination (Eq. 3)."""

from __future__ import annotations

import hashlib
import json
import random
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import accumulate, islice
from typing import Any

from ..characters.words import segment
from .attacked_text import CHINESE, AttackedText, Edit
from .kinds import ATTACKS, Attack, Form, Sentence
from .selection import SCORERS, Scorer, draw_count, select_positions

# Raised whenever the same (text, seed, config) would give another result, so that a published attack set can be made
# again: a config of another version is refused instead of silently giving other texts.
ALGORITHM_VERSION = 1

PAPER_ATTACKS = ("phonetic", "visual", "split", "synonym", "to_pinyin", "unicode", "insert", "swap", "delete")

DEFAULT_CONFIG: dict[str, Any] = {
    "version": ALGORITHM_VERSION,
    "attacks": dict.fromkeys(PAPER_ATTACKS, 1.0),
    "options": {},
    "ratio": 0.15,
    "noise": 1.0,
    "q": 0.7,
    "scorer": "word_frequency",
    "protect": [],
    "protect_patterns": [],
}

PRESETS: dict[str, dict[str, Any]] = {
    "paper": DEFAULT_CONFIG,
    "wild": {**DEFAULT_CONFIG, "attacks": dict.fromkeys(ATTACKS, 1.0)},
}

PROTECTED = {
    # (?a:...) is ASCII: Chinese text often follows an address without a space
    "url": r"(?a:(?:https?://|www\.)[\w\-.~:/?#\[\]@!$&'()*+,;=%]+)",
    "email": r"(?a:[\w.+\-]+@[\w\-]+(?:\.[\w\-]+)+)",
    "mention": r"@[\w\-]+",
    "hashtag": r"#[^#\s]+#|#\w+",
    "number": r"\d+(?:[.,:]\d+)*%?",
    "special_token": r"\[(?:PAD|UNK|CLS|SEP|MASK|unused\d+)\]|</?(?:s|pad|unk|mask)>|<\|[^|<>\s]+\|>",
}


# Characters that no reader sees, so that an attack on them is none: spaces, controls, formats, variation selectors;
# and halves of surrogate pairs.
_UNSEEN = re.compile(
    "[\\s\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ud800-\udfff]"
)


class AdversarialSynthesizer:
    """Attack Chinese text as section 3 of RoCBERT (Su et al., ACL 2022) does.

    The number of attacked characters is Eq. 1, they are chosen by Eq. 2, and each goes through a geometric number of
    steps (Eq. 3, `P(S = k) = q (1 - q)^(k - 1)`), where every step is drawn among the attacks that apply to what the
    character has become. n_c counts Chinese characters; characters of other kinds may be chosen too (a Latin letter can
    be swapped, deleted or replaced by a look-alike). A text without Chinese characters counts all that can be attacked.
    An attack on a whole word stands for all the chosen characters of that word.

    The result depends on (text, seed, config) alone: not on the batch, the order, the number of processes or Python's
    hash seed.

    Args:
        config: the name of a preset, or a dict with any of the keys below; what is left out is as in the paper.
            "paper" is section 3; "wild" adds what people do to slip past filters today.
        scorer: an object with the interface of `Scorer`, instead of the config's `scorer`.

    | key | meaning | paper |
    |---|---|---|
    | `version` | of the algorithm; another one than this package's is an error | 1 |
    | `attacks` | names, or a dict from name to weight | the nine, equal |
    | `options` | keyword arguments by attack, e.g. `{"synonym": {"threshold": 0.8}}` | none |
    | `ratio` | share of the Chinese characters | 0.15 |
    | `noise` | standard deviation of their number; 0 switches it off | 1 |
    | `q` | of Eq. 3; 1 means one step each | 0.7 |
    | `scorer` | "word_frequency", "random", or the `name` of the `scorer` argument | "word_frequency" |
    | `protect` | what to leave alone: "url", "email", "mention", "hashtag", "number", "special_token" | none |
    | `protect_patterns` | more regular expressions to leave alone | none |

    Raises:
        ValueError: for an unknown key or name, or a value out of range.

    Example::

        >>> AdversarialSynthesizer("paper").attack("科比的精神值得永远学习", seed=1).text
    """

    def __init__(self, config: str | Mapping[str, Any] = "paper", scorer: Scorer | None = None):
        self.config = complete_config(config, scorer)
        self.scorer: Scorer = SCORERS[self.config["scorer"]]() if scorer is None else scorer
        self.attacks = [_make_attack(name, self.config["options"].get(name, {})) for name in self.config["attacks"]]
        self._equal = len(set(self.config["attacks"].values())) == 1
        self._q = self.config["q"]
        self._always = "insert" in self.config["attacks"]  # applies everywhere, so nothing else need be asked
        patterns = [PROTECTED[name] for name in self.config["protect"]] + self.config["protect_patterns"]
        self._protected = re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
        # Word vectors may be given as an object; what they are decides the synonyms, not the random numbers.
        canonical = json.dumps(self.config, sort_keys=True, default=lambda value: type(value).__name__)
        self._key = hashlib.blake2b(canonical.encode(), digest_size=16).digest()

    def __reduce__(self):
        """Copies are made anew from the config, so that they pickle small and `datasets` hashes equal ones alike."""
        own = None if self.config["scorer"] in SCORERS else self.scorer
        return type(self), (self.config, own)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config})"

    def attack(self, text: str, seed: int = 0, protected: Iterable[tuple[int, int]] = ()) -> AttackedText:
        """The attacked form of one text.

        Args:
            text: any string.
            seed: another seed, another attack; the same one gives the same, in any process.
            protected: (start, end) spans to leave alone, besides what the config protects.
        """
        words = segment(_checked(text))
        (losses,) = self.scorer.losses([words])
        return self._attack(text, words, losses, seed, protected)

    def attack_batch(
        self, texts: Iterable[str], seed: int = 0, num_workers: int = 0, progress: bool = False
    ) -> list[AttackedText]:
        """The attacked forms of many texts, in order; each equals `attack(text, seed)`.

        Args:
            texts: any number of strings.
            seed: as for `attack`.
            num_workers: processes to share the work among; 0 works in this one.
            progress: show a progress bar.
        """
        if not isinstance(texts, str):
            texts = list(texts)
        attacked = self.attack_stream(texts, seed, num_workers)
        if progress:
            from tqdm.auto import tqdm

            attacked = tqdm(attacked, total=len(texts), unit="text", desc="attacking")
        return list(attacked)

    def attack_stream(
        self, texts: Iterable[str], seed: int = 0, num_workers: int = 0, chunk_size: int = 256
    ) -> Iterator[AttackedText]:
        """`attack_batch` as an iterator, for texts that do not fit into memory."""
        if isinstance(texts, str):
            raise ValueError("texts must be a list of strings, got one string; attack() takes one")
        if num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, got {num_workers}")
        if num_workers and not self.scorer.parallel:
            raise ValueError(
                f"num_workers must be 0 with the scorer {self.scorer.name!r}, which cannot be copied to other processes,"
                f" got {num_workers}"
            )
        return self._stream(iter(texts), seed, num_workers, chunk_size)

    def _stream(self, texts: Iterator[str], seed: int, num_workers: int, chunk_size: int) -> Iterator[AttackedText]:
        chunks = iter(lambda: list(islice(texts, chunk_size)), [])
        if not num_workers:
            for chunk in chunks:
                yield from self._attack_chunk(chunk, seed)
            return
        with ProcessPoolExecutor(num_workers, initializer=_start_worker, initargs=(self,)) as pool:
            # A few chunks in flight for each worker: enough to keep it busy, few enough for any length of input.
            waiting = [pool.submit(_work, chunk, seed) for chunk in islice(chunks, 4 * num_workers)]
            while waiting:
                done = waiting.pop(0).result()
                waiting += [pool.submit(_work, chunk, seed) for chunk in islice(chunks, 1)]
                yield from done

    def _attack_chunk(self, texts: Sequence[str], seed: int) -> list[AttackedText]:
        words = [segment(_checked(text)) for text in texts]
        losses = self.scorer.losses(words)
        return [self._attack(*row, seed) for row in zip(texts, words, losses, strict=True)]

    def _generator(self, text: str, seed: int) -> random.Random:
        """Random numbers that (text, seed, config) fix, in any process."""
        digest = hashlib.blake2b(f"{seed}/{text}".encode("utf-8", "surrogatepass"), digest_size=8, key=self._key)
        return random.Random(int.from_bytes(digest.digest(), "little"))

    def _attack(
        self,
        text: str,
        words: Sequence[str],
        losses: Sequence[float],
        seed: int,
        protected: Iterable[tuple[int, int]] = (),
    ) -> AttackedText:
        sentence = Sentence(text, words, self._free(text, protected))
        candidates = sentence.free
        if not self._always:
            candidates = {i for i in candidates if any(attack.is_attackable(sentence, i) for attack in self.attacks)}
        if not candidates:
            return AttackedText(text, text)
        rng = self._generator(text, seed)
        n_characters = sum(map(len, CHINESE.findall(text))) or len(candidates)
        count = min(draw_count(n_characters, self.config["ratio"], self.config["noise"], rng), len(candidates))
        return self._apply(sentence, select_positions(words, losses, candidates, count, rng), rng)

    def _free(self, text: str, protected: Iterable[tuple[int, int]]) -> set[int]:
        """Positions that may be attacked: nothing unseen, nothing protected."""
        free = set(range(len(text)))
        free.difference_update([match.start() for match in _UNSEEN.finditer(text)])
        spans = list(protected)
        if self._protected is not None:
            spans += [match.span() for match in self._protected.finditer(text)]
        for start, end in spans:
            free.difference_update(range(start, end))
        return free

    def _apply(self, sentence: Sentence, chosen: Sequence[int], rng: random.Random) -> AttackedText:
        """Attack the chosen positions, from left to right."""
        source, free = sentence.text, sentence.free
        free.difference_update(chosen)
        sentence.selected = selected = set(chosen)
        pieces: list[str] = []
        edits: list[Edit] = []
        at_source = at_text = 0
        for index in chosen:
            if index not in selected:  # part of a word that was attacked as a whole
                continue
            selected.remove(index)
            (form, start, end), names = self.combine(sentence, index, rng)
            if not names:
                continue
            if end - start > 1:
                free.difference_update(range(start, end))
                selected.difference_update(range(start, end))
            text_start = at_text + start - at_source
            at_text = text_start + len(form)
            pieces.append(source[at_source:start])
            pieces.append(form)
            edits.append(Edit((start, end), (text_start, at_text), names))
            at_source = end
        pieces.append(source[at_source:])
        return AttackedText(source, "".join(pieces), tuple(edits))

    def combine(self, sentence: Sentence, index: int, rng: random.Random) -> tuple[Form, tuple[str, ...]]:
        """Take the character at a position through S steps, S geometric (Eq. 3).

        Each step is one attack, drawn by weight among those that apply to the current form and do not lead back to the
        source; after it another one follows with probability 1 - q, so `P(S = k) = q (1 - q)^(k - 1)`. An attack that
        turns out not to apply is put aside and another one drawn from the rest, which is the same distribution as
        finding out first which ones apply.

        Returns:
            The last form and the names of the attacks that led to it; no names when nothing applies.
        """
        source, draw = sentence.text, rng.random
        form = (source[index], index, index + 1)
        names: list[str] = []
        left = self.attacks
        while left:
            at = int(draw() * len(left)) if self._equal else self._draw_by_weight(left, rng)
            new = left[at].apply(form, sentence, rng)
            if new is None or new[0] == form[0] or new[0] == source[new[1] : new[2]]:
                left = left[:at] + left[at + 1 :]
                continue
            form = new
            names.append(left[at].name)
            if draw() < self._q:
                break
            left = self.attacks
        return form, tuple(names)

    def _draw_by_weight(self, attacks: Sequence[Attack], rng: random.Random) -> int:
        """An index drawn in proportion to the attacks' weights."""
        sums = list(accumulate(self.config["attacks"][attack.name] for attack in attacks))
        return min(bisect_right(sums, rng.random() * sums[-1]), len(sums) - 1)


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, got {text!r}")
    return text


def complete_config(config: str | Mapping[str, Any], scorer: Scorer | None = None) -> dict[str, Any]:
    """A config with every key, checked.

    Args:
        config: name of a preset, or a dict with some of the keys of `AdversarialSynthesizer`; its key `preset` names
            what to start from ("paper").
        scorer: the scorer that will be used, when it is not one of the config's own.

    Raises:
        ValueError: for an unknown key or name, or a value out of range.
    """
    given = {"preset": config} if isinstance(config, str) else dict(config)
    preset = given.pop("preset", "paper")
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {sorted(PRESETS)}, got {preset!r}")
    if unknown := sorted(set(given).difference(DEFAULT_CONFIG)):
        raise ValueError(f"config has unknown keys {unknown}; known are {sorted([*DEFAULT_CONFIG, 'preset'])}")
    full = {**PRESETS[preset], **given}
    if full["version"] != ALGORITHM_VERSION:
        raise ValueError(
            f"config version must be {ALGORITHM_VERSION}, the version of this package's attacks, got {full['version']!r}"
        )
    full["attacks"] = _complete_attacks(full["attacks"])
    if not isinstance(full["options"], Mapping) or set(full["options"]).difference(ATTACKS):
        raise ValueError(f"options must map names of attacks to their arguments, got {full['options']!r}")
    full["options"] = {name: dict(arguments) for name, arguments in full["options"].items()}
    for key, smallest, largest in (("ratio", 0.001, 1), ("noise", 0, 100), ("q", 0.05, 1)):
        value = full[key]
        if not isinstance(value, (int, float)) or not smallest <= value <= largest:
            raise ValueError(f"{key} must be a number from {smallest} to {largest}, got {value!r}")
    if scorer is not None:
        full["scorer"] = scorer.name
    elif full["scorer"] not in SCORERS:
        raise ValueError(
            f"scorer must be one of {sorted(SCORERS)}, or be given as an object in the argument scorer, got {full['scorer']!r}"
        )
    full["protect"], full["protect_patterns"] = list(full["protect"]), list(full["protect_patterns"])
    if unknown := sorted(set(full["protect"]).difference(PROTECTED)):
        raise ValueError(f"protect must be among {sorted(PROTECTED)}, got {unknown}")
    for pattern in full["protect_patterns"]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"protect_patterns must be regular expressions, got {pattern!r}: {error}") from error
    return full


def _make_attack(name: str, arguments: Mapping[str, Any]) -> Attack:
    try:
        return ATTACKS[name](**arguments)
    except TypeError as error:
        raise ValueError(f"options: {name} does not take {list(arguments)}: {error}") from error


def _complete_attacks(attacks: Any) -> dict[str, float]:
    """Names, or weights by name, as weights by name."""
    weights = dict(attacks) if isinstance(attacks, Mapping) else dict.fromkeys(attacks, 1.0)
    if not weights or (unknown := sorted(set(weights).difference(ATTACKS))):
        raise ValueError(f"attacks must be among {list(ATTACKS)}, got {unknown if weights else 'none'}")
    for name, weight in weights.items():
        if not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
            raise ValueError(f"attacks: the weight of {name} must be a positive number, got {weight!r}")
    # In the registry's order, so that the same attacks in another order are the same config.
    return {name: float(weights[name]) for name in ATTACKS if name in weights}


# The synthesizer of a worker process; set once when it starts, so that it is not sent along with every chunk.
_worker: AdversarialSynthesizer | None = None


def _start_worker(synthesizer: AdversarialSynthesizer) -> None:
    global _worker
    _worker = synthesizer


def _work(texts: Sequence[str], seed: int) -> list[AttackedText]:
    return _worker._attack_chunk(texts, seed)
