"""transformers' `roc_bert` checkpoint -> rocbert_hf, or back.

    python conversion/convert_roc_bert.py weiweishi/roc-bert-base-zh rocbert-base
    python conversion/convert_roc_bert.py --to-transformers rocbert-base roc-bert-base

Weights keep their names and values, the tokenizer comes along, and there and back is the identity. Back, `fusion` must be
`concat` or `sum`, which transformers has. Prints the maximum difference of the outputs on check sentences.
"""

import argparse
import sys


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder, or repository of the Hub")
    parser.add_argument("output", help="folder to write, a new one")
    parser.add_argument("--to-transformers", action="store_true", help="from rocbert_hf to transformers")
    arguments = parser.parse_args(argv)

    from rocbert_hf.conversion.roc_bert import from_transformers, to_transformers

    converter = to_transformers if arguments.to_transformers else from_transformers
    print(converter(arguments.source, arguments.output))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
