"""Speed of the black-box attackers: batched queries beside a loop of one query at a time, and beside TextAttack.

    python benchmarks/attackers.py --data-dir DATA

DATA holds `tasks/chnsenticorp/test.tsv.gz` (ChnSentiCorp: a header row, then `text<TAB>label`). Without `--data-dir` the
packaged demo sentences are attacked. The victim is a transformers `BertForSequenceClassification` with random weights
and a character vocabulary; what it predicts counts as the right label, so that every text is attacked. The loop asks the
same victim the same texts, one a call. `--call-seconds` adds that much to every call of the victim, as an HTTP endpoint
would.

What batching can give at most, where a call costs nothing besides, is what it gives the model: the column "model alone"
is the ratio of its forward passes over the same texts, tokenized before the clock starts and sorted by length, in batches
of 64 and one at a time. `--threads 1` keeps torch to one core on both sides: several cores help a batch and hardly a
single short text, so the ratio grows with them.

Each attacker runs once unmeasured, so that tables of words and characters are read. Then batched, loop and model alone
take turns `--rounds` times; speeds and ratios are the medians.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from rocbert_hf.attackers import ATTACKERS, Example, ModelClassifier
from rocbert_hf.resources import demo_sentences, path


def read_texts(data_dir: Path | None, limit: int, max_characters: int) -> list[str]:
    """The first `limit` texts of at most `max_characters` characters."""
    if data_dir is None:
        texts = demo_sentences()
    else:
        with gzip.open(data_dir / "tasks/chnsenticorp/test.tsv.gz", "rt", encoding="utf-8") as lines:
            texts = [line.rstrip("\n").rsplit("\t", 1)[0] for line in lines][1:]
    return [text for text in texts if 0 < len(text) <= max_characters][:limit]


def random_victim(layers: int, hidden_size: int) -> tuple[BertForSequenceClassification, BertTokenizerFast]:
    """A BERT of random weights, large enough that its labels can be flipped."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = Path(folder) / "vocab.txt"
        vocabulary.write_bytes(path("vocab.txt").read_bytes())
        tokenizer = BertTokenizerFast(str(vocabulary), model_max_length=512)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden_size // 32),
        intermediate_size=4 * hidden_size,
        initializer_range=0.2,
    )
    return BertForSequenceClassification(config).eval(), tokenizer


def timed_attack(name: str, victim, examples: list[Example], batch_size: int, call_seconds: float):
    """(outcomes, seconds, texts asked) of one attacker; every call of the victim costs `call_seconds` more."""
    classifier, asked = ModelClassifier(*victim), []

    def ask(texts):
        asked.extend(texts)
        time.sleep(call_seconds)
        return classifier(texts)

    attacker = ATTACKERS[name]()
    start = time.perf_counter()
    outcomes = list(attacker.attack_batch(ask, examples, batch_size=batch_size))
    return outcomes, time.perf_counter() - start, asked


def forward_speed(victim, texts: list[str], batch_size: int) -> float:
    """Texts/s of the model alone, its texts tokenized and sorted by length before the clock starts."""
    model, tokenizer = victim
    texts = sorted(texts, key=len)
    batches = [
        tokenizer(texts[at : at + batch_size], padding=True, return_tensors="pt").to(model.device)
        for at in range(0, len(texts), batch_size)
    ]
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            model(**batch).logits.cpu()
    return len(texts) / (time.perf_counter() - start)


def compare_with_textattack(victim, examples: list[Example]) -> None:
    """TextAttack's ChineseRecipe on the same victim and texts; as much of it as can be made here."""
    try:
        from textattack import Attack, transformations
        from textattack.constraints.pre_transformation import RepeatModification, StopwordModification
        from textattack.goal_functions import UntargetedClassification
        from textattack.models.wrappers import ModelWrapper
        from textattack.search_methods import GreedyWordSwapWIR
        from textattack.shared.data import CHN_STOPWORD
    except (ImportError, LookupError) as error:
        print(f"\nTextAttack not installed, or not importable: {str(error).strip().splitlines()[:3]}")
        return

    class Wrapper(ModelWrapper):
        def __init__(self):
            self.model = victim[0]
            self.ask = ModelClassifier(*victim)

        def __call__(self, texts, **_):
            return self.ask(list(texts))

    parts = []
    for part in ("WordSwapHowNet", "WordSwapMaskedLM", "MorphonymCharacterSwap", "HomophoneCharacterSwap"):
        try:
            parts.append(getattr(transformations, f"Chinese{part}")())
            parts[-1]._get_replacement_words("漂亮")
        except (AttributeError, OSError, ValueError) as error:
            print(f"TextAttack's Chinese{part} cannot be made here: {str(error).splitlines()[0]}")
    attack = Attack(
        UntargetedClassification(Wrapper()),
        [RepeatModification(), StopwordModification(stopwords=CHN_STOPWORD)],
        transformations.CompositeTransformation(parts),
        GreedyWordSwapWIR(wir_method="weighted-saliency"),
    )
    start = time.perf_counter()
    results = [attack.attack(example.text, example.label) for example in examples]
    seconds = time.perf_counter() - start
    successes = sum(type(result).__name__ == "SuccessfulAttackResult" for result in results)
    queries = sum(result.num_queries for result in results)
    print(
        f"| TextAttack, those parts | {successes / len(examples):.1%} | {queries:,} | {seconds:.1f} | {queries / seconds:,.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder with tasks/chnsenticorp/test.tsv.gz")
    parser.add_argument("--texts", type=int, default=100, help="how many texts (default: 100)")
    parser.add_argument("--max-characters", type=int, default=500, help="of a text (default: 500)")
    parser.add_argument("--layers", type=int, default=2, help="of the victim (default: 2)")
    parser.add_argument("--hidden-size", type=int, default=64, help="of the victim (default: 64)")
    parser.add_argument("--call-seconds", type=float, default=0.0, help="cost of a call besides the model (default: 0)")
    parser.add_argument("--attackers", default="adv,textfooler,argot", help="which ones (default: all)")
    parser.add_argument("--loop-texts", type=int, default=10, help="texts for the loop (default: 10)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default: 3)")
    parser.add_argument("--threads", type=int, help="cores that torch may use (default: its own choice)")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)

    victim = random_victim(arguments.layers, arguments.hidden_size)
    if torch.cuda.is_available():
        victim[0].cuda()
    texts = read_texts(arguments.data_dir, arguments.texts, arguments.max_characters)
    labels = ModelClassifier(*victim)(texts).argmax(1).tolist()
    examples = [Example(text, label) for text, label in zip(texts, labels, strict=True)]
    some, wait = examples[: arguments.loop_texts], arguments.call_seconds
    rows = []
    print(f"torch uses {torch.get_num_threads()} cores; the median of {arguments.rounds} rounds\n")
    print(
        "| batched / one at a time | batched, queries/s | one at a time, queries/s | ratio | model alone | same outcomes |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name in arguments.attackers.split(","):
        timed_attack(name, victim, examples, 64, 0.0)
        measured = []
        for _ in range(arguments.rounds):
            outcomes, seconds, asked = timed_attack(name, victim, examples, 64, wait)
            looped, loop_seconds, loop_asked = timed_attack(name, victim, some, 1, wait)
            alone = forward_speed(victim, asked, 64) / forward_speed(victim, loop_asked[:400], 1)
            fast, slow = len(asked) / seconds, len(loop_asked) / loop_seconds
            measured.append((fast, slow, fast / slow, alone, seconds))
        fast, slow, ratio, alone, seconds = map(statistics.median, zip(*measured, strict=True))
        same = sum(a.attacked == b.attacked for a, b in zip(outcomes, looped, strict=False))
        print(f"| {name} | {fast:,.0f} | {slow:,.0f} | {ratio:.1f} | {alone:.1f} | {same} of {len(some)} |", flush=True)
        successes, queries = sum(o.status == "success" for o in outcomes), sum(o.queries for o in outcomes)
        rows.append(
            f"| {name} | {successes / len(examples):.1%} | {queries:,} | {seconds:.1f} | {queries / seconds:,.0f} |"
        )
    print(
        f"\n{len(examples)} texts\n\n| attacker | success | queries | seconds | queries/s |\n|---|---:|---:|---:|---:|"
    )
    print("\n".join(rows))
    compare_with_textattack(victim, examples)


if __name__ == "__main__":
    main()
