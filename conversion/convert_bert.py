"""Any Chinese BERT (BERT, MacBERT, RoBERTa-wwm, ERNIE in transformers' form) -> rocbert_hf, to pretrain further.

    python conversion/convert_bert.py hfl/chinese-macbert-base rocbert-macbert
    python conversion/convert_bert.py nghuyong/ernie-3.0-base-zh rocbert-ernie --vocabulary source

The result computes the source's hidden states on ordinary text, and its channels of sound and shape start learning with
the first step. Prints the maximum difference of the hidden states on check sentences (refused over 1e-4), what became of
the vocabulary, and the gradients that the channels start with.
"""

import argparse
import sys


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder, or repository of the Hub")
    parser.add_argument("output", help="folder to write, a new one")
    parser.add_argument(
        "--vocabulary",
        choices=("characters", "source"),
        default="characters",
        help="characters: the packaged 16,224; source: keep its word pieces",
    )
    parser.add_argument("--fusion-layer", type=int, default=1, help="layer, from 0, whose output is fused")
    parser.add_argument("--phonetic-encoder", default="char_sum", help="char_sum, char_cnn or table")
    parser.add_argument("--seed", type=int, default=0, help="of the weights that the source has nothing for")
    arguments = parser.parse_args(argv)

    from rocbert_hf.conversion.warm_start import warm_start

    print(warm_start(**vars(arguments)))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
