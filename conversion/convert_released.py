"""Checkpoint of the authors' released code (github.com/sww9370/RoCBert) -> rocbert_hf, with exactly its function.

    python conversion/convert_released.py models/epoch_3 rocbert-released
    python conversion/convert_released.py models/epoch_3 rocbert-released --shape-features train_data/img_embed.shape_embed

`merge_input_way` concat, plus and attention become `fusion` concat, sum and attention. The folder is what their trainer
saves (config.json, pytorch_model.bin), with vocab.txt, word_shape.json and word_pronunciation.json beside them for the
tokenizer. Prints the maximum difference of the hidden states, ours against the formulas of their code.
"""

import argparse
import sys


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder, or repository of the Hub")
    parser.add_argument("output", help="folder to write, a new one")
    parser.add_argument("--shape-features", help="img_embed.shape_embed, for a checkpoint without its glyph features")
    parser.add_argument("--pronunciations", help="prounciation.proun_id, to compare its size with the checkpoint's")
    arguments = parser.parse_args(argv)

    from rocbert_hf.conversion.released import from_released

    print(from_released(**vars(arguments)))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
