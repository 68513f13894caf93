"""The paper's algorithm, whole: count (Eq. 1), selection (Eq. 2), combination (Eq. 3)."""

from __future__ import annotations

import hashlib
import json
import random
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import accumulate, chain, islice, repeat
from numbers import Integral
from typing import Any

from ..characters.words import segment
from .attacked_text import CHINESE, AttackedText, Edit
from .config import PROTECTED, complete_config, is_language_model
from .kinds import ATTACKS, Attack, Form, Sentence
from .selection import SCORERS, CausalLMScorer, Scorer, draw_count, select_positions

# Characters that no reader sees, so that an attack on them is none: spaces, controls, formats, variation selectors;
# and halves of surrogate pairs.
_UNSEEN = re.compile(
    "[\\s\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ud800-\udfff]"
)


Row = tuple[str, int]  # a text and its seed


class AdversarialSynthesizer:
    """Attack Chinese text as section 3 of RoCBERT (Su et al., ACL 2022) does.

    The number of attacked characters is Eq. 1, they are chosen by Eq. 2, and each goes through a geometric number of
    steps (Eq. 3, `P(S = k) = q (1 - q)^(k - 1)`), where every step is drawn among the attacks that apply to what the
    character has become. n_c counts the Chinese characters that are not protected; characters of other kinds may be chosen
    too (a Latin letter can be swapped, deleted or replaced by a look-alike). A text without such Chinese characters counts
    all that can be attacked.
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
    | `ratio` | share of the Chinese characters; of a list of shares, one is drawn for each text | 0.15 |
    | `noise` | standard deviation of their number; 0 switches it off | 1 |
    | `q` | of Eq. 3; 1 means one step each | 0.7 |
    | `scorer` | "word_frequency", "random", or folder or Hub id of a causal language model | "word_frequency" |
    | `protect` | what to leave alone: "url", "email", "mention", "hashtag", "number", "special_token" | none |
    | `protect_patterns` | more regular expressions to leave alone | none |

    Raises:
        ValueError: for an unknown key or name, or a value out of range.

    Example::

        >>> AdversarialSynthesizer("paper").attack("科比的精神值得永远学习", seed=1).text
    """

    def __init__(self, config: str | Mapping[str, Any] = "paper", scorer: Scorer | None = None):
        self.config = complete_config(config, scorer)
        self.scorer: Scorer = _make_scorer(self.config["scorer"]) if scorer is None else scorer
        self._is_plain = scorer is None and self.config["scorer"] in SCORERS
        self.attacks = [_make_attack(name, self.config["options"].get(name, {})) for name in self.config["attacks"]]
        self._equal = len(set(self.config["attacks"].values())) == 1
        self._q = self.config["q"]
        self._always = "insert" in self.config["attacks"]  # applies everywhere, so nothing else need be asked
        patterns = [PROTECTED[name] for name in self.config["protect"]] + self.config["protect_patterns"]
        self._protected = re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None
        # Word vectors may be given as an object; what they are decides the synonyms, not the random numbers.
        # Where a language model lies is no part of the config either: its folder may be moved.
        canonical = json.dumps(
            {**self.config, "scorer": self.scorer.name}, sort_keys=True, default=lambda value: type(value).__name__
        )
        self._key = hashlib.blake2b(canonical.encode(), digest_size=16).digest()

    def __reduce__(self):
        """Copies are made anew from the config, so that they pickle small and `datasets` hashes equal ones alike."""
        return type(self), (self.config, None if self._is_plain else self.scorer)

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
        self, texts: Iterable[str], seed: int | Sequence[int] = 0, num_workers: int = 0, progress: bool = False
    ) -> list[AttackedText]:
        """The attacked forms of many texts, in order; each equals `attack(text, seed)` of its text and seed.

        The scorer is asked once for 256 texts, so that a language model scores the deletions of all of them together.

        Args:
            texts: any number of strings.
            seed: as for `attack`; or one seed for each text.
            num_workers: processes to share the work among; 0 works in this one. A process is started for every 256
                texts at most.
            progress: show a progress bar.

        Raises:
            ValueError: texts is a string or holds something else than strings, or there is not one seed for each text.
        """
        if not isinstance(texts, str):
            texts = list(texts)
            if not isinstance(seed, Integral) and len(seed) != len(texts):
                raise ValueError(f"seed must be one number, or one for each of the {len(texts)} texts, got {len(seed)}")
        attacked = self.attack_stream(texts, seed, num_workers)
        if progress:
            from tqdm.auto import tqdm

            attacked = tqdm(attacked, total=len(texts), unit="text", desc="attacking")
        return list(attacked)

    def attack_stream(
        self, texts: Iterable[str], seed: int | Iterable[int] = 0, num_workers: int = 0, chunk_size: int = 256
    ) -> Iterator[AttackedText]:
        """`attack_batch` as an iterator, for texts that do not fit into memory; the scorer sees `chunk_size` texts at once.

        Of several seeds there may be more than texts. ValueError, on the way, if there are fewer.
        """
        if isinstance(texts, str):
            raise ValueError("texts must be a list of strings, got one string; attack() takes one")
        if num_workers < 0:
            raise ValueError(f"num_workers must be at least 0, got {num_workers}")
        if num_workers and not self.scorer.parallel:
            raise ValueError(
                f"num_workers must be 0 with the scorer {self.scorer.name!r}, which cannot be copied to other processes,"
                f" got {num_workers}"
            )
        seeds = repeat(seed) if isinstance(seed, Integral) else seed
        return self._stream(_rows(texts, seeds), num_workers, chunk_size)

    def _stream(self, rows: Iterator[Row], num_workers: int, chunk_size: int) -> Iterator[AttackedText]:
        chunks = iter(lambda: list(islice(rows, chunk_size)), [])
        first = list(islice(chunks, max(num_workers, 2))) if num_workers else []
        if len(first) < 2:  # a process of its own would take longer to start than this takes
            for chunk in chain(first, chunks):
                yield from self._attack_chunk(chunk)
            return
        with ProcessPoolExecutor(min(num_workers, len(first)), initializer=_start_worker, initargs=(self,)) as pool:
            # A few chunks in flight for each worker: enough to keep it busy, few enough for any length of input.
            waiting = [pool.submit(_work, chunk) for chunk in chain(first, islice(chunks, 3 * num_workers))]
            while waiting:
                done = waiting.pop(0).result()
                waiting += [pool.submit(_work, chunk) for chunk in islice(chunks, 1)]
                yield from done

    def _attack_chunk(self, rows: Sequence[Row]) -> list[AttackedText]:
        words = [segment(_checked(text)) for text, _ in rows]
        losses = self.scorer.losses(words)
        return [self._attack(text, *scored, seed) for (text, seed), *scored in zip(rows, words, losses, strict=True)]

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
        free = self._free(text, protected)
        sentence = Sentence(text, words, free)
        candidates = free
        if not self._always:
            candidates = {i for i in candidates if any(attack.is_attackable(sentence, i) for attack in self.attacks)}
        if not candidates:
            return AttackedText(text, text)
        rng = self._generator(text, seed)
        chinese = (i for match in CHINESE.finditer(text) for i in range(*match.span()))
        n_characters = sum(i in free for i in chinese) or len(candidates)
        ratio = self.config["ratio"]
        if not isinstance(ratio, (int, float)):
            ratio = rng.choice(ratio)
        count = min(draw_count(n_characters, ratio, self.config["noise"], rng), len(candidates))
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


def _rows(texts: Iterable[str], seeds: Iterable[int]) -> Iterator[Row]:
    seeds = iter(seeds)
    for number, text in enumerate(texts):
        if (seed := next(seeds, None)) is None:
            raise ValueError(f"seed must be one number, or one for each text, got {number} for more texts than that")
        yield text, seed


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"text must be a string, got {text!r}")
    return text


def _make_scorer(name: str) -> Scorer:
    return CausalLMScorer.from_pretrained(name) if is_language_model(name) else SCORERS[name]()


def _make_attack(name: str, arguments: Mapping[str, Any]) -> Attack:
    try:
        return ATTACKS[name](**arguments)
    except TypeError as error:
        raise ValueError(f"options: {name} does not take {list(arguments)}: {error}") from error


# The synthesizer of a worker process; set once when it starts, so that it is not sent along with every chunk.
_worker: AdversarialSynthesizer | None = None


def _start_worker(synthesizer: AdversarialSynthesizer) -> None:
    global _worker
    _worker = synthesizer


def _work(rows: Sequence[Row]) -> list[AttackedText]:
    return _worker._attack_chunk(rows)
