"""How well do several taggers find entities, and how sure is a difference between them?

    python benchmarks/taggers.py --test-file test.bmes.gz "df=out/df" "plain=out/plain" ...

Each NAME=FOLDER is what `rocbert finetune --task-type tagging` wrote, with one seed or with several (seed-0, seed-1, ...), or
NAME=FOLDER,FOLDER with one folder per seed. Prints a Markdown table of strict scores, means over the seeds, and the difference
to the tagger before it, with a 95% interval over the sentences (drawn anew together, seeds averaged).
"""

import argparse
from pathlib import Path

import numpy as np
from transformers.utils import logging

from rocbert_hf.data.entity_files import read_entities
from rocbert_hf.data.entity_metrics import entity_scores
from rocbert_hf.finetuning.tagger import EntityTagger

RESAMPLES = 10_000


def counts_of(folder: Path, texts) -> np.ndarray:
    """(sentences, 3): entities right, found and present."""
    found = EntityTagger.from_pretrained(str(folder))([text.text for text in texts])
    scores = [entity_scores([text.entities], [entities]) for text, entities in zip(texts, found, strict=True)]
    return np.array([(score.right, score.found, score.present) for score in scores])


def folders_of(places: str) -> list[Path]:
    folders = [Path(place) for place in places.split(",")]
    return sorted(folders[0].glob("seed-*")) or folders


def f1(counts: np.ndarray) -> np.ndarray:
    """Of (..., 3) sums, in percent."""
    return 200 * counts[..., 0] / (counts[..., 1] + counts[..., 2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("taggers", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--test-file", required=True)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    texts = read_entities(arguments.test_file).texts
    drawn = np.random.default_rng(0).multinomial(len(texts), np.full(len(texts), 1 / len(texts)), RESAMPLES)
    print("| tagger | precision | recall | F1 | by seed | F1 minus the row above |\n|---|---|---|---|---|---|")
    above = None
    for name, _, places in (tagger.partition("=") for tagger in arguments.taggers):
        counts = np.stack([counts_of(folder, texts) for folder in folders_of(places)])  # (seeds, sentences, 3)
        right, found, present = counts.sum(1).T
        of_seeds = f1(counts.sum(1))
        # (draws, seeds, 3) -> (draws,)
        scores = f1(np.einsum("dn,snc->dsc", drawn, counts)).mean(1)
        against = ""
        if above is not None:
            low, high = np.quantile(scores - above[1], (0.025, 0.975))
            against = f"{of_seeds.mean() - above[0]:+.2f} ({low:+.2f} to {high:+.2f})"
        precision, recall = 100 * np.mean(right / found), 100 * np.mean(right / present)
        seeds = ", ".join(f"{score:.2f}" for score in of_seeds)
        print(f"| {name} | {precision:.2f} | {recall:.2f} | {of_seeds.mean():.2f} | {seeds} | {against} |", flush=True)
        above = of_seeds.mean(), scores


if __name__ == "__main__":
    main()
