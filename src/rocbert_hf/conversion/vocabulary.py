"""Which of the source's vectors each vector of the packaged vocabulary is made of."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache

import torch

from ..characters.forms import traditional_forms_of, variants_of, width_forms_of
from ..characters.parts import components_of
from ..characters.pinyin import homophones_of
from ..resources import vocabulary
from ..tokenization_rocbert import RoCBertTokenizer
from .pieces import spelled_with
from .source import progress

NEIGHBOURS = 8  # characters of each kind that a new character's vector is the mean of


def written_forms_of(token: str) -> tuple[str, ...]:
    """The same character in other forms: lower case, another width, simplified or traditional."""
    forms = (token.lower(), *width_forms_of(token), *variants_of(token), *traditional_forms_of(token), f"##{token}")
    return tuple(form for form in dict.fromkeys(forms) if form != token)


@cache
def _characters_with(part: str) -> tuple[str, ...]:
    return _characters_by_part().get(part, ())


@cache
def _characters_by_part() -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for character in vocabulary():  # Chinese characters stand there by frequency
        for part in dict.fromkeys(components_of(character)):
            found[part].append(character)
    return {part: tuple(characters) for part, characters in found.items()}


def neighbours_of(token: str, known) -> tuple[tuple[str, ...], ...]:
    """Groups of characters, all in `known`, whose vectors stand in for that of a token that is not.

    Other written forms of it alone, if there are any; otherwise up to eight characters that share each of its parts, the
    most frequent first, and up to eight that sound the same.
    """
    forms = tuple(form for form in written_forms_of(token) if form in known)
    if forms:
        return (forms[:1],)
    groups = [
        [other for other in (part, *_characters_with(part)) if other in known and other != token][:NEIGHBOURS]
        for part in dict.fromkeys(components_of(token))
    ]
    groups.append([other for other in homophones_of(token) if other in known][:NEIGHBOURS])
    return tuple(tuple(group) for group in groups if group)


@dataclass(frozen=True)
class VocabularyRecipe:
    """Of which rows of the source's tables each row of ours is made.

    Args:
        groups: by token id; a row is the mean of the groups' means. None for a token of which nothing is known: its row
            is the mean of the rows that are carried over.
        known, formed, spelled, neighboured, unknown: how many tokens the source has itself, has in another written form,
            spells with pieces of bytes, has neighbours of by part or sound, or knows nothing of.
    """

    groups: tuple[tuple[tuple[int, ...], ...], ...]
    known: int
    formed: int
    spelled: int
    neighboured: int
    unknown: int

    @classmethod
    def of(cls, tokenizer: RoCBertTokenizer, pieces: dict[str, int], source_tokenizer) -> VocabularyRecipe:
        """
        Args:
            tokenizer: ours.
            pieces: ids of the source's pieces by what they say, see `ids_by_token`.
            source_tokenizer: spells what is no piece, if it is byte-level.
        """
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        groups, counts = [], dict.fromkeys(("known", "formed", "spelled", "neighboured", "unknown"), 0)
        for token in progress(tokens, "mapping the vocabulary", "token"):
            if token in pieces:
                kind, found = "known", ((pieces[token],),)
            elif len(token) == 1 and (spelling := spelled_with(source_tokenizer, token)):
                kind, found = "spelled", (spelling,)
            else:
                neighbours = neighbours_of(token, pieces)
                formed = bool(neighbours) and neighbours[0][0] in written_forms_of(token)
                kind = "formed" if formed else "neighboured" if neighbours else "unknown"
                found = tuple(tuple(pieces[other] for other in group) for group in neighbours)
            counts[kind] += 1
            groups.append(found)
        return cls(tuple(groups), **counts)

    def vectors(self, table: torch.Tensor) -> torch.Tensor:
        """(source tokens, size) -> (tokens, size); means are brought to the mean length of what they are the mean of."""
        tokens, sources, shares = self._shares()
        places = torch.stack([tokens, sources])
        mixture = torch.sparse_coo_tensor(places, shares, (len(self.groups), len(table)), check_invariants=True)
        rows = torch.sparse.mm(mixture, table)
        lengths = torch.sparse.mm(mixture, table.norm(dim=-1, keepdim=True))
        count = torch.bincount(tokens, minlength=len(rows))
        carried = table[sources[count[tokens] == 1]]
        rows[count == 0], lengths[count == 0] = carried.mean(0), carried.norm(dim=-1).mean()
        scaled = rows * (lengths / rows.norm(dim=-1, keepdim=True).clamp(min=1e-12))
        return torch.where(count[:, None] == 1, rows, scaled)

    def biases(self, bias: torch.Tensor) -> torch.Tensor:
        """(source tokens,) -> (tokens,); a new token is as improbable as the rarest of its neighbours."""
        tokens, sources, _ = self._shares()
        lowest = bias[sources].min().expand(len(self.groups))
        return lowest.scatter_reduce(0, tokens, bias[sources], "amin", include_self=False)

    def _shares(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which source token has which share of which token: three (entries,)."""
        entries = [
            (token, source, 1 / (len(groups) * len(group)))
            for token, groups in enumerate(self.groups)
            for group in groups
            for source in group
        ]
        tokens, sources, shares = zip(*entries, strict=True)
        return torch.tensor(tokens), torch.tensor(sources), torch.tensor(shares)

    def __str__(self) -> str:
        return (
            f"of {len(self.groups)} tokens, {self.known} have the source's vector, {self.formed} that of another written "
            f"form, {self.spelled} the mean of the pieces that spell them, {self.neighboured} the mean of characters with "
            f"the same parts or sound, {self.unknown} the mean of all"
        )
