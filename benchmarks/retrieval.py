"""Attacked-sentence retrieval of several checkpoints on the same held-out sentences, as the attacks get harder.

    python benchmarks/retrieval.py --models rocbert-mini rocbert-mini-wild --text-file HELD_OUT.txt

Each sentence is attacked five times; an attacked form is found when its own sentence is the nearest of all by cosine of
the [CLS] states. The attacks are the same for every model: the presets `paper` and `wild`, as they are and with more of
the characters attacked. HELD_OUT is a text file of sentences that no model was trained on, one a line.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from transformers import AutoModelForMaskedLM, AutoTokenizer

from rocbert_hf.attacks import AdversarialSynthesizer
from rocbert_hf.attacks.synthesizer import complete_config
from rocbert_hf.pretraining import HeldOutEvaluation, read_sentences

RATIOS = (0.15, 0.3, 0.5)


def held_out_sentences(file: Path, limit: int, least: int = 8) -> list[str]:
    """The first different sentences of at least `least` characters: of shorter ones little is left to find."""
    sentences = dict.fromkeys(sentence for sentence in read_sentences(file) if len(sentence) >= least)
    return list(sentences)[:limit]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="folders of checkpoints")
    parser.add_argument("--text-file", type=Path, required=True, help="held-out sentences, one a line")
    parser.add_argument("--limit", type=int, default=1000, help="sentences (default: 1000)")
    parser.add_argument("--attacks-per-sentence", type=int, default=2, help="default: 2")
    arguments = parser.parse_args()

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
