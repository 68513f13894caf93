"""Attacked-sentence retrieval of several checkpoints on the same held-out sentences, as the attacks get harder.

    python benchmarks/retrieval.py --models rocbert-mini rocbert-mini-wild --text-file HELD_OUT.txt

Each sentence is attacked five times; an attacked form is found when its own sentence is the nearest of all by cosine of
the [CLS] states. The attacks are the same for every model: the presets `paper` and `wild`, as they are and with more of
the characters attacked. HELD_OUT is a text file of sentences that no model was trained on, one per line.

`--curves FILE.png` draws from the models' `log.jsonl` how the accuracy within a batch and the retrieval of the run's own
held-out sentences grew, over the sentences seen: runs with batches of different sizes side by side.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from transformers import AutoModelForMaskedLM, AutoTokenizer

from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.attacks.config import complete_config
from rocbert_hf.pretraining import HeldOutEvaluation, read_log, read_sentences

RATIOS = (0.15, 0.3, 0.5)
CURVES = {  # a panel each
    "contrastive_accuracy": "own attacked form is the nearest within the batch",
    "eval_retrieval_cls": "held-out attacked sentence finds its original",
    "mlm_loss": "MLM loss of the batches",
}


def held_out_sentences(file: Path, limit: int, least: int = 8) -> list[str]:
    """The first different sentences of at least `least` characters: of shorter ones little is left to find."""
    sentences = dict.fromkeys(sentence for sentence in read_sentences(file) if len(sentence) >= least)
    return list(sentences)[:limit]


def draw_curves(folders: list[Path], batch_sizes: list[int], path: Path) -> None:
    """A panel for each of `CURVES`, with one line per model over the sentences that it was trained on."""
    figure = Figure(figsize=(4.8 * len(CURVES), 3.6), layout="constrained")
    for axis, (column, title) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
        for folder, batch_size in zip(folders, batch_sizes, strict=True):
            points = [(row["step"] * batch_size, row[column]) for row in read_log(folder) if column in row]
            if points:
                axis.plot(*zip(*points, strict=True), label=folder.name)
        axis.set_title(title, loc="left", fontsize="medium")
        axis.set_xlabel("sentences seen")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="folders of checkpoints")
    parser.add_argument("--text-file", type=Path, required=True, help="held-out sentences, one per line")
    parser.add_argument("--limit", type=int, default=1000, help="sentences (default: 1000)")
    parser.add_argument("--attacks-per-sentence", type=int, default=2, help="default: 2")
    parser.add_argument("--curves", type=Path, metavar="FILE.png", help="draw the models' training too")
    parser.add_argument("--batch-sizes", nargs="+", type=int, help="sentences per step of each, for --curves")
    arguments = parser.parse_args()
    if arguments.curves and len(arguments.batch_sizes or ()) != len(arguments.models):
        parser.error("--curves needs --batch-sizes, one for each model")

    if arguments.curves:
        draw_curves([Path(folder) for folder in arguments.models], arguments.batch_sizes, arguments.curves)

    sentences = held_out_sentences(arguments.text_file, arguments.limit)
    models = [AutoModelForMaskedLM.from_pretrained(folder) for folder in arguments.models]
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in arguments.models]
    print(f"{len(sentences):,} held-out sentences, {arguments.attacks_per_sentence} attacked forms of each\n")
    print("| attacks | " + " | ".join(Path(folder).name for folder in arguments.models) + " |")
    print("|---|" + "---:|" * len(models))
    for preset in ("paper", "wild"):
        for ratio in RATIOS:
            synthesizer = AdversarialSynthesizer({**complete_config(preset), "ratio": ratio})
            cells = []
            for model, tokenizer in zip(models, tokenizers, strict=True):
                evaluate = HeldOutEvaluation(
                    tokenizer, sentences, synthesizer, attacks_per_sentence=arguments.attacks_per_sentence
                )
                cells.append(f"{evaluate.retrieval(model)['retrieval_cls']:.1%}")
            print(f"| {preset}, {ratio:.0%} of the characters | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
