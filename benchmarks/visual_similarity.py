"""Do look-alikes from images and parts together agree better with human-made sets than from either alone?

    python benchmarks/visual_similarity.py --data-dir DATA

DATA holds `lexicons/sighan_similar_shape.txt.gz` ("char,look-alikes" a line) and
`lexicons/sighan_similar_pronunciation.txt.gz` (a header, then the character and its homophones in tab-separated
columns): the confusion sets of the SIGHAN bake-offs on Chinese spelling check (Wu et al., 2013), as the repository of
SpellGCN distributes them. The sets never enter the packaged tables; the two weights of the look-alikes were chosen on a
random half of their characters, and the other half is what is reported here.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rocbert_hf.characters.pinyin import homophones_of
from rocbert_hf.characters.similarity import lookalikes_of
from rocbert_hf.resources import vocabulary

sys.path.insert(0, str(Path(__file__).parents[1] / "conversion"))
from packaged_tables.lookalikes import IMAGE_WEIGHT, component_features, image_features, is_simple, rank_lookalikes
from packaged_tables.public_tables import character_frequencies, is_chinese
from packaged_tables.vocabulary import COMMON_CHARACTERS


def read_sets(file: Path, separator: str, columns: slice) -> dict[str, set[str]]:
    """Character -> its confusion set, of vocabulary characters, from the chosen columns after the first."""
    known = set(vocabulary())
    sets = {}
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line in lines:
            character, *others = line.rstrip("\n").split(separator)
            found = set("".join(others[columns])) & known - {character}
            if character in known and found:
                sets[character] = found
    return sets


def held_out(sets: dict[str, set[str]]) -> list[str]:
    """The half of the characters on which no weight was chosen."""
    characters = sorted(sets)
    order = np.random.default_rng(0).permutation(len(characters))
    return [characters[number] for number in order[len(characters) // 2 :]]


def hits_and_recall(
    candidates_of: Callable[[str], Sequence[str]], sets: dict[str, set[str]], characters: Sequence[str], k: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """How many of each character's first k are right, as a share of k and of the character's set."""
    hits = np.array([len(sets[character].intersection(candidates_of(character)[:k])) for character in characters])
    return hits / k, hits / np.array([len(sets[character]) for character in characters])


def mutual_share(candidates_of: Callable[[str], Sequence[str]], characters: Sequence[str], k: int = 10) -> float:
    """Of the pairs (character, one of its first k), how many also hold the other way round."""
    first = {character: set(candidates_of(character)[:k]) for character in characters}
    return float(np.mean([a in candidates_of(b)[:k] for a, others in first.items() for b in others]))


def compare(
    label: str,
    candidates: Sequence[str],
    sets: dict[str, set[str]],
    characters: Sequence[str],
    methods: dict[str, Callable[[str], Sequence[str]]],
) -> None:
    """Print each method's figures, and by how much images and parts together are better than it."""
    images, components = image_features(candidates), component_features(candidates)
    frequencies = np.array([character_frequencies()[character] for character in candidates], dtype=np.float64)
    rows = {character: row for row, character in enumerate(candidates)}

    simple = np.array([is_simple(character) for character in candidates])

    def ranked(image_weight: float) -> Callable[[str], list[str]]:
        by_image = simple if image_weight > 0 else None
        table = rank_lookalikes(images, components, frequencies, by_image, image_weight)
        return lambda character: [candidates[number] for number in table[rows[character]]]

    both = ranked(IMAGE_WEIGHT)
    methods = {**methods, "images and parts": both, "images alone": ranked(1.0), "parts alone": ranked(0.0)}
    best, _ = hits_and_recall(both, sets, characters)
    print(f"\nlook-alikes among {label}: {len(candidates)} candidates, {len(characters)} held-out characters")
    print(f"{'':20}{'precision@10':>14}{'both better by':>18}{'recall@10':>12}{'mutual@10':>12}")
    for name, method in methods.items():
        precision, recall = hits_and_recall(method, sets, characters)
        gain = best - precision
        error = gain.std() / np.sqrt(len(gain))
        better = f"{gain.mean():.3f} ± {error:.3f}"
        mutual = mutual_share(method, candidates)
        print(f"{name:20}{precision.mean():14.3f}{better:>18}{recall.mean():12.3f}{mutual:12.3f}")
    common = candidates[:COMMON_CHARACTERS]
    print(f"mutual@10 of the {len(common)} most frequent, both: {mutual_share(both, common):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder that holds lexicons/sighan_*.txt.gz")
    lexicons = parser.parse_args().data_dir / "lexicons"
    shape_file = lexicons / "sighan_similar_shape.txt.gz"
    sound_file = lexicons / "sighan_similar_pronunciation.txt.gz"
    for file in (shape_file, sound_file):
        if not file.is_file():
            raise OSError(f"--data-dir: {str(file)!r} does not exist")

    sets = read_sets(shape_file, ",", slice(0, 1))
    characters = held_out(sets)
    chinese = [token for token in vocabulary() if is_chinese(token[0])]
    in_sets = set(sets).union(*sets.values())
    compare("the whole vocabulary", chinese, sets, characters, {"packaged table": lookalikes_of})
    compare("the sets' characters", [character for character in chinese if character in in_sets], sets, characters, {})

    same_sound = read_sets(sound_file, "\t", slice(0, 2))  # same syllable, with the same tone and with another
    characters = sorted(same_sound)
    print(f"\nhomophones: {len(characters)} characters, sets of the same syllable in any tone")
    print(f"{'':24}{'precision@10':>14}{'recall, all':>12}")
    for readings in (1, 2):

        def homophones(character: str, readings: int = readings) -> tuple[str, ...]:
            return homophones_of(character, max_readings=readings)

        precision, _ = hits_and_recall(homophones, same_sound, characters)
        _, recall = hits_and_recall(homophones, same_sound, characters, k=len(chinese))
        print(f"{f'{readings} reading(s)':24}{precision.mean():14.3f}{recall.mean():12.3f}")


if __name__ == "__main__":
    main()
