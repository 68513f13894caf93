"""Any encoder that knows Chinese (BERT, MacBERT, RoBERTa-wwm, ERNIE, RoBERTa, XLM-R, E5, bge-m3) -> rocbert_hf.

    python conversion/convert_bert.py hfl/chinese-macbert-base rocbert-macbert
    python conversion/convert_bert.py nghuyong/ernie-3.0-base-zh rocbert-ernie --vocabulary source
    python conversion/convert_bert.py multilingual-e5-small rocbert-e5 --channels open --layers 0,2,4,7,9,11 \\
        --shape-embed-dim 128 --fusion-layer 1 --sentence-encoder

The same as `rocbert convert`. Prints the maximum difference of the hidden states on check sentences (refused over 1e-4),
what became of the vocabulary, and the gradients that the channels start with.
"""

from rocbert_hf.cli import main

if __name__ == "__main__":
    import sys

    sys.exit(main(["convert", *sys.argv[1:]]))
