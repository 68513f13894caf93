"""Other forms of a character: traditional and simplified ones, variants, and code points that look the same."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from .public_tables import confusables, is_chinese, opencc_characters


def written_forms(characters: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Character -> (traditional forms, variants) among `characters`, by OpenCC's tables; without either left out.

    A character that is mostly its own traditional form (家, 千, 出; 傢, 韆, 齣 are of a few words) has none. Variants are the
    Japanese, Hong Kong and Taiwan forms and rarer traditional ones; of a traditional character, also the simplified one.
    """
    simplified_to_traditional = opencc_characters("STCharacters")
    traditional_to_simplified = opencc_characters("TSCharacters")
    regional = [opencc_characters(name) for name in ("JPVariants", "TWVariants", "HKVariants")]
    rarer = defaultdict(list)
    for traditional, simplified in traditional_to_simplified.items():
        for form in simplified:
            rarer[form].append(traditional)

    known = set(characters)
    found = {}
    for character in characters:
        of_words = simplified_to_traditional.get(character, [character])  # the commonest first
        traditional = [form for form in of_words if form != character and form in known]
        variants = [form for start in (character, *traditional) for table in regional for form in table.get(start, ())]
        variants += rarer[character] + traditional_to_simplified.get(character, [])
        variants = [form for form in dict.fromkeys(variants) if form in known.difference((character, *traditional))]
        if of_words[0] == character:
            traditional = []
        if traditional or variants:
            found[character] = traditional, variants
    return found


def lookalike_code_points(vocabulary: Sequence[str], drawable: frozenset[str]) -> dict[str, list[str]]:
    """Token -> other code points that look the same, of the vocabulary where it has any.

    Unicode's confusables; for a Chinese character also compatibility ideographs and radicals, for the others the
    mathematical, circled and full-width alphabets: what NFKC makes that character.
    """
    compatible: dict[str, list[str]] = defaultdict(list)
    for form in map(chr, range(0xA1, 0x30000)):
        normal = unicodedata.normalize("NFKC", form)
        if normal != form and len(normal) == 1:
            compatible[normal].append(form)
    known = set(vocabulary)
    found = {}
    for token in vocabulary:
        if len(token) > 1:
            continue
        same = confusables().get(token, [])
        if len(same) == 1:  # the table lists a class of look-alikes at one of its members
            same = same + confusables().get(same[0], [])
        forms = dict.fromkeys(same + compatible[token])
        forms = [f for f in forms if f != token and f in drawable and unicodedata.category(f)[0] not in "CZM"]
        if forms:
            found[token] = [form for form in forms if form in known] or forms
    return found


def known_twins(vocabulary: Sequence[str], same: dict[str, Sequence[str]]) -> dict[str, str]:
    """Character that is no token -> the token that looks the same: the tokenizer gives it this one's shape.

    What Unicode's NFKC makes of it, if that is a token; else the first token, Chinese ones before others, of whose
    look-alikes it is one.
    """
    known = set(vocabulary)
    twins: dict[str, str] = {}
    for code in range(0x80, 0x30000):
        character = chr(code)
        normal = unicodedata.normalize("NFKC", character)
        if character not in known and normal in known and unicodedata.category(character)[0] not in "CZ":
            twins[character] = normal
    for token in sorted(same, key=is_chinese, reverse=True):
        for other in same[token]:
            if other not in known:
                twins.setdefault(other, token)
    return dict(sorted(twins.items()))
