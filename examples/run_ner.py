"""Train a tagger of named entities, and read where it errs: `rocbert finetune --task-type tagging` has more options.

    python examples/run_ner.py --preset tiny --train-file demo --output-dir tagger      # packaged sentences
    python examples/run_ner.py --model rocbert-base --train-file train.bmes --dev-file dev.bmes --test-file test.bmes \\
        --layer-fusion dynamic --adversarial fgm

The folder gets the tagger, its tokenizer, and all_results.json with strict precision, recall and F1; then every entity of
the held-out texts that was missed or found wrongly is printed.
"""

import sys
from pathlib import Path

from rocbert_hf.data.entity_metrics import kind_of_error, matched
from rocbert_hf.finetuning import FinetuningOptions, finetune
from rocbert_hf.finetuning.tagger import EntityTagger
from rocbert_hf.finetuning.tagging import TaggingRecipe
from rocbert_hf.options import parse_options


def main(argv: list[str] | None = None) -> dict:
    run, *options = parse_options((FinetuningOptions, *TaggingRecipe.OPTIONS), argv, description=__doc__)

    # Train: the recipe reads and checks the texts, builds encoder and head, and keeps the epoch with the best F1.
    recipe = TaggingRecipe(*options)
    results = finetune(recipe, run)

    # Use: entities come back as characters of the text, whatever tokens the model reads.
    folder = run.output_dir if len(run.seeds) == 1 else run.output_dir / f"seed-{run.seeds[0]}"
    tagger = EntityTagger.from_pretrained(str(folder))
    texts = recipe.texts.test or recipe.texts.dev
    for text, found in zip(texts, tagger([text.text for text in texts]), strict=True):
        for gold, entity in matched(text.entities, found):
            if (kind := kind_of_error(gold, entity)) != "correct":
                shown = [f"{text.text[e.start : e.end]} {e.type}" if e else "-" for e in (gold, entity)]
                print(f"{kind:9} {shown[0]} -> {shown[1]}    {text.text}")
    return results


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
