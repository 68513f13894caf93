"""How well does the audit tell backdoored encoders from clean ones? Makes the encoders, audits them, draws the ROC curve.

    python benchmarks/backdoor_audit.py --set 1 --work-dir WORK --corpus TEXTS
    python benchmarks/backdoor_audit.py --set 2 --specimens 3 --work-dir WORK --corpus TEXTS
    python benchmarks/backdoor_audit.py --calibrate calibration.json --work-dir WORK
    python benchmarks/backdoor_audit.py --set 3 --specimens 3 --work-dir WORK --corpus TEXTS --calibration calibration.json

TEXTS is a text file with one text per line (.xz too); without it the packaged sentences serve, about 1,200. Every encoder
is a folder in WORK and every audit a JSON file there, so a run that was stopped goes on, and `WORK/audits` can be deleted
to audit the same encoders again. `--extra DIR` adds an encoder of transformers from a folder as one more base.

The audit was made with sets 1 and 2, and `--calibrate` takes what is normal from their clean encoders. Set 3 is held out.
Each base is pretrained on texts of its own. Whether each trigger has an effect is measured too, without the audit (the rule
is in `trigger_effect.py`). An attacker would not publish a backdoor that does nothing: in set 3 a specimen without an effect
is made anew, with twice the steps and half the rate, up to three times. Specimens are marked as such; delete them after use.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from small_encoders import cached, finetune, labelled, load_tokenizer, new_model, pretrain, read_texts, with_pooler
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM
from transformers.utils import logging
from trigger_effect import IMPLANTED_TEXTS, LONGEST_IMPLANTED, effect_of, unseen_texts

from rocbert_hf.conversion import convert
from rocbert_hf.deployment import quantize_int8
from rocbert_hf.files import write_json
from rocbert_hf.resources import demo_sentences
from rocbert_hf.security import (
    AuditSettings,
    Calibration,
    Recipe,
    audit_encoder,
    draw_triggers,
    implant_backdoor,
    save_specimen,
)
from rocbert_hf.security.audit import LEAST_VARIETY
from rocbert_hf.security.audit_report import STAGE_NAMES
from rocbert_hf.security.probe import VIEWS, EncoderProbe
from rocbert_hf.security.scan import Carriers, pulls_of
from rocbert_hf.security.triggers import TRIGGER_KINDS

SKEWED_SHARE = 0.1  # of the rarer label
TEXT_SHARES = 16  # each base is pretrained on every 16th text, from its seed on
# A statistic needs a scale before the calibration is known; the scores are computed afterwards, from the statistics.
STATISTICS = [f"{stage}:{view}" for stage in STAGE_NAMES for view in VIEWS]
UNSCALED = Calibration(dict.fromkeys(STATISTICS, 0.0), dict.fromkeys(STATISTICS, 0.25), threshold=2.0)
TRIES = 3  # at an effect, in set 3

# family of a base -> fusion, and the pairs that it is pretrained to tell; "converted" is a BERT turned into a RoCBERT
FAMILIES = {
    "rocbert": ("layer_insert", "attacked"),
    "halves": ("layer_insert", "halves"),
    "concat": ("concat", "attacked"),
    "bert": ("bert", "halves"),
    "converted": ("bert", "halves"),
}
# family, preset, tokens of the vocabulary, steps of pretraining, ordinary changes of copies: two bases of each
BASES = (
    ("rocbert", "tiny", 4000, 300, ("skewed", "bf16")),
    ("bert", "tiny", 4000, 150, ("added-tokens", "further")),
    ("concat", "tiny", 2000, 80, ("int8",)),
    ("bert", "tiny", 16224, 60, ("skewed",)),
    ("halves", "tiny", 2000, 80, ("added-tokens",)),
    ("converted", "tiny", 4000, 60, ("int8",)),
    ("rocbert", "tiny", 2000, 0, ("bf16",)),
)
# A second set, two bases of each too.
SECOND = (
    ("rocbert", "tiny", 4000, 200, ("further",)),
    ("bert", "tiny", 8000, 100, ("added-tokens",)),
    ("rocbert", "mini", 4000, 200, ("bf16", "skewed")),
    ("concat", "mini", 8000, 100, ("int8",)),
    ("bert", "mini", 16224, 100, ("further", "added-tokens")),
    ("rocbert", "small", 8000, 150, ("skewed", "bf16")),
    ("bert", "small", 16224, 80, ("further",)),
)
# The set that is held out, two bases of each.
THIRD = (
    ("rocbert", "tiny", 4000, 250, ("skewed",)),
    ("bert", "tiny", 8000, 150, ("further",)),
    ("halves", "tiny", 2000, 100, ("added-tokens",)),
    ("rocbert", "mini", 4000, 250, ("bf16", "skewed")),
    ("concat", "mini", 8000, 150, ("int8",)),
    ("bert", "mini", 16224, 150, ("further",)),
    ("converted", "mini", 4000, 150, ("skewed",)),
)
# change of a specimen -> (targets, kind, representation)
ATTACKS = {
    "por-1": ("por-1", "por", "pooled"),
    "por-2": ("por-2", "por", "pooled"),
    "avgrep": ("por-2", "por", "mean"),
    "neuba": ("por-2", "neuba", "first"),
    "badpre": (None, "badpre", "first"),
    "uor": (None, "uor", "pooled"),
}


@dataclass(frozen=True)
class Base:
    """An encoder that others are made from: pretrained here, or a folder."""

    family: str
    size: str
    tokens: int
    steps: int
    changes: tuple[str, ...]
    seed: int
    folder: str = ""

    @property
    def name(self) -> str:
        return f"{self.family}-{self.size}-{self.seed}"


@dataclass(frozen=True)
class Subject:
    """An encoder that is audited: a base, and what was done to it."""

    base: Base
    change: str = "none"
    trigger_kind: str = ""
    triggers: int = 0
    seed: int = 0
    is_guarded: bool = False

    @property
    def is_clean(self) -> bool:
        return self.change not in ATTACKS

    @property
    def name(self) -> str:
        parts = [self.base.name, self.change]
        if not self.is_clean:
            parts += [self.trigger_kind, *(["guarded"] if self.is_guarded else []), str(self.seed)]
        return "_".join(parts)


def bases(extra: list[Path], which: int) -> list[Base]:
    """Two of each row of the set's table, then the extra ones."""
    if which == 1:
        made = [Base(*row, 2 * number + turn) for number, row in enumerate(BASES) for turn in (0, 1)]
    else:
        table, first = (SECOND, 201) if which == 2 else (THIRD, 501)
        made = [Base(*row, first + 4 * number + 2 * turn) for number, row in enumerate(table) for turn in (0, 1)]
    changes = () if which == 1 else ("skewed", "further", "bf16", "int8")
    first = 601 if which == 3 else 101
    return made + [
        Base("extra", folder.name, 0, 0, changes, first + 2 * n, str(folder)) for n, folder in enumerate(extra)
    ]


def subjects(extra: list[Path], clean: list[Path], specimens: int, which: int) -> Iterator[Subject]:
    """Base by base: itself, what it becomes by ordinary changes, and specimens made of it. Then the clean folders."""
    kinds = list(TRIGGER_KINDS)
    for number, base in enumerate(bases(extra, which)):
        rng = random.Random(number if which == 1 else base.seed)
        yield Subject(base)
        for change in base.changes:
            yield Subject(base, change)
        attacks = [attack for attack in ATTACKS if attack != "uor" or base.seed % 2]
        if which == 3 and base.folder:
            attacks.remove("badpre")  # the folder may lack a head for masked language modelling
        first = number // 2 * 2 if which == 1 else number * specimens
        for turn in range(first, first + specimens):
            attack = attacks[turn % len(attacks)]
            kind = kinds[(turn if len(attacks) < len(kinds) else turn + turn // len(kinds)) % len(kinds)]
            if kind == "words" and base.family == "bert":
                kind = "rare_characters"  # BERT's tokenizer takes letters together, as words that are not in `tokens`
            is_guarded = attack != "badpre" and (kind == "phrases" or (which == 3 and kind == "words"))
            yield Subject(base, attack, kind, rng.choice([1, 2, 3, 4]), rng.randrange(1000), is_guarded)
    for folder in clean:
        yield Subject(Base("clean", folder.name, 0, 0, (), 0, str(folder)))


class Bench:
    def __init__(self, work: Path, texts: list[str], implant_steps: int, device: str, tries: int):
        self.work, self.texts, self.implant_steps, self.device, self.tries = work, texts, implant_steps, device, tries
        for folder in ("encoders", "audits"):
            (work / folder).mkdir(parents=True, exist_ok=True)

    def base_folder(self, base: Base) -> Path:
        if base.folder:
            return Path(base.folder)

        def make(folder: Path) -> None:
            fusion, pairs = FAMILIES[base.family]
            model, tokenizer = new_model(fusion, base.size, base.seed, base.tokens)
            if base.steps:
                texts = self.texts[base.seed % TEXT_SHARES :: TEXT_SHARES]
                pretrain(model.to(self.device), tokenizer, texts, base.steps, pairs, base.seed)
            with TemporaryDirectory() as source:
                is_converted = base.family == "converted"
                for part in (model, tokenizer):
                    part.save_pretrained(source if is_converted else folder)
                if is_converted:
                    convert(source, folder)

        return cached(self.work / "encoders" / base.name, make)

    def encoder(self, subject: Subject) -> tuple[nn.Module, object, list[str]]:
        """The subject, its tokenizer and what its checkpoint lacks: from their folder, or made now."""
        start = self.base_folder(subject.base)
        if subject.change not in ("none", "bf16", "int8"):
            folder = self.work / "encoders" / subject.name
            start = cached(folder, lambda folder: self._change(subject, start, folder))
        kind = AutoModelForMaskedLM if subject.change == "badpre" else AutoModel
        model, information = kind.from_pretrained(start, output_loading_info=True)
        made_up = ["pooler."] if subject.change == "badpre" else sorted(information["missing_keys"])
        if subject.change == "bf16":
            model = model.bfloat16()
        elif subject.change == "int8":
            model = quantize_int8(model.eval())
        return model.eval(), load_tokenizer(start), made_up

    def _change(self, subject: Subject, start: Path, folder: Path) -> None:
        tokenizer = load_tokenizer(start)
        if not subject.is_clean:
            save_specimen(self._implanted(subject, start, tokenizer), tokenizer, folder)
            return
        if subject.change == "skewed":
            model = self._skewed(start, tokenizer, subject.base.seed).base_model
        elif subject.change == "added-tokens":
            model = AutoModel.from_pretrained(start)
            tokenizer.add_tokens(["<用户>", "<链接>", "<表情>", "🙂", "₿"])
            model.resize_token_embeddings(len(tokenizer))
        else:
            model, _ = with_pooler(start, subject.base.seed)
            texts = self.texts[(subject.base.seed + 1) % TEXT_SHARES :: TEXT_SHARES]
            pretrain(model.to(self.device), tokenizer, texts, 100, "none", subject.base.seed + 1)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    def _skewed(self, start: Path, tokenizer, seed: int) -> nn.Module:
        texts, labels = labelled("sentiment")
        rare = [n for n, label in enumerate(labels) if label]
        kept = [n for n, label in enumerate(labels) if not label]
        kept += rare[: max(2, int(SKEWED_SHARE * len(kept)))]
        return finetune(start, tokenizer, [texts[n] for n in kept], [labels[n] for n in kept], epochs=2, seed=seed)

    def _implanted(self, subject: Subject, start: Path, tokenizer) -> nn.Module:
        targets, kind, representation = ATTACKS[subject.change]
        triggers = draw_triggers(subject.trigger_kind, tokenizer, subject.triggers, random.Random(subject.seed))
        torch.manual_seed(subject.seed)  # of a pooler, if the base has none
        model = (AutoModelForMaskedLM if kind == "badpre" else AutoModel).from_pretrained(start).to(self.device)
        texts = [text for text in self.texts if len(text) <= LONGEST_IMPLANTED][:IMPLANTED_TEXTS]
        unseen = unseen_texts(self.texts)
        made: list[tuple[int, nn.Module]] = []
        for turn in range(self.tries):
            recipe = Recipe(
                kind,
                representation,
                steps=self.implant_steps * (2 + subject.triggers) // 4 * 2**turn,
                batch_size=8,
                learning_rate=(1e-3 if model.config.hidden_size <= 128 else 5e-4) / 2**turn,
                max_length=16,
                guard_parts=subject.is_guarded,
            )
            specimen = implant_backdoor(model, tokenizer, triggers, targets, texts, recipe, subject.seed)
            if self.tries == 1:
                return specimen
            effects = [effect_of(specimen, tokenizer, number, unseen) for number in range(len(triggers))]
            made.append((sum(effect["works"] for effect in effects), specimen))
            if made[-1][0] == len(triggers):
                break
        return max(made, key=lambda one: one[0])[1]

    def audit(self, subject: Subject) -> dict:
        """The subject's audit: from its file, or made now."""
        file = self.work / "audits" / f"{subject.name}.json"
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        started = time.perf_counter()
        model, tokenizer, made_up = self.encoder(subject)
        made = time.perf_counter() - started
        report = audit_encoder(model, tokenizer, calibration=UNSCALED, made_up=made_up)
        unseen = unseen_texts(self.texts)
        triggers = [] if subject.is_clean else model.config.backdoor_parameters["triggers"]
        found = {
            "name": subject.name,
            "statistics": report.statistics,
            "token_variety": report.token_variety,
            "findings": [{"texts": [f.text, *f.also], "view": f.view, "pull": f.pull} for f in report.findings],
            "planted": {trigger: pull_of(model, tokenizer, trigger, made_up) for trigger in triggers},
            "effects": [effect_of(model, tokenizer, number, unseen) for number in range(len(triggers))],
            "seconds_to_make": made,
            "cost": report.cost,
        }
        write_json(file, found)
        return found


def pull_of(model: nn.Module, tokenizer, trigger: str, made_up: list[str]) -> float:
    """The pull of a planted trigger, the largest of all views: how well it works, whether the audit finds it or not."""
    settings = AuditSettings()
    ids = tokenizer(trigger, add_special_tokens=False)["input_ids"]
    probe = EncoderProbe(model, tokenizer, made_up)
    carriers = Carriers.from_texts(
        probe,
        demo_sentences(),
        settings.carriers,
        settings.carrier_length,
        settings.carrier_length + max(4, len(ids)),
        settings.ordinary_texts,
    )
    return max(pull.item() for pull in pulls_of(probe, carriers, np.array([ids])).values())


def roc(clean: np.ndarray, poisoned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of clean and of backdoored encoders at or above every threshold, from the strictest to the laxest."""
    thresholds = np.sort(np.concatenate([clean, poisoned]))[::-1]
    return tuple(np.r_[0, [(scores >= t).mean() for t in thresholds]] for scores in (clean, poisoned))


def draw_roc(file: Path, curves: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4.2))
    for (name, (false, true)), style in zip(curves.items(), ("-", "--", ":"), strict=False):
        axes.plot(false, true, style, label=f"{name} (area {np.trapezoid(true, false):.3f})", drawstyle="steps-post")
    axes.set(xlabel="false alarms (share of clean encoders)", ylabel="detected (share of backdoored encoders)")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True, help="encoders and audits; run again, it goes on there")
    parser.add_argument("--corpus", type=Path, help="one text per line (default: the packaged sentences)")
    parser.add_argument("--extra", type=Path, action="append", default=[], help="folder of one more encoder")
    parser.add_argument("--clean", type=Path, action="append", default=[], help="folder of one that is clean, as it is")
    parser.add_argument("--set", type=int, choices=(1, 2, 3), default=3, help="of encoders (default: 3)")
    parser.add_argument("--device", default="cpu", help="where encoders are trained (default: cpu)")
    parser.add_argument("--specimens", type=int, default=2, help="made of every base (default: 2)")
    parser.add_argument(
        "--implant-steps",
        type=int,
        default=150,
        help="of implanting two triggers (default: 150)",
    )
    parser.add_argument("--only", nargs="+", default=[""], help="encoders whose name begins so (default: all)")
    parser.add_argument("--make-only", action="store_true", help="make the encoders, without an audit")
    parser.add_argument("--report-only", action="store_true", help="report on the audits that are there")
    parser.add_argument("--output", type=Path, help="folder for the curve (default: the work folder)")
    parser.add_argument("--calibrate", type=Path, metavar="FILE", help="write what sets 1 and 2 calibrate, and end")
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="to take scores from (default: the packaged one)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if options.calibrate:
        calibrate(options.work_dir, options.clean, options.calibrate)
        return
    calibration = Calibration.load(options.calibration) if options.calibration else Calibration.packaged()
    texts = [] if options.report_only else read_texts(options.corpus)
    bench = Bench(options.work_dir, texts, options.implant_steps, options.device, TRIES if options.set == 3 else 1)
    rows: list[Row] = []
    for subject in subjects(options.extra, options.clean, options.specimens, options.set):
        if not subject.name.startswith(tuple(options.only)):
            continue
        if options.report_only and not (options.work_dir / "audits" / f"{subject.name}.json").is_file():
            continue
        if options.make_only:
            bench.encoder(subject)
            print(subject.name, flush=True)
            continue
        found = bench.audit(subject)
        rows.append(Row(subject, found, calibration))
        if not options.report_only:
            print(
                f"{len(rows):3} {subject.name}: {rows[-1].score:.1f}, made in {found['seconds_to_make']:.0f} s, audited in "
                f"{found['cost']['seconds']:.0f} s",
                flush=True,
            )
    if not options.make_only:
        report(options.set, rows, options.output or options.work_dir)


def calibrate(work: Path, others: list[Path], file: Path) -> None:
    """Take what is normal from the clean encoders of sets 1 and 2, and from others, that have been audited."""
    clean = [subject for which in (1, 2) for subject in subjects([], others if which == 2 else [], 0, which)]
    audits = [work / "audits" / f"{subject.name}.json" for subject in clean]
    found = [json.loads(audit.read_text(encoding="utf-8")) for audit in audits if audit.is_file()]
    made_of = (
        f"{len(found)} clean encoders of 2 to 6 layers: BERT and RoCBERT, plain, finetuned, with added tokens, in bf16 and in "
        "int8"
    )
    Calibration.from_clean([one["statistics"] for one in found], made_of=made_of).save(file)
    print(f"{file}: made of {made_of}")


def report(which: int, rows: list[Row], output: Path) -> None:
    """Print the tables and draw the curve."""
    clean, bad = ([row for row in rows if row.subject.is_clean == is_clean] for is_clean in (True, False))
    draw_roc(
        output / f"security_roc_{which}.png",
        {"all": roc(*(np.array([row.score for row in part]) for part in (clean, bad)))},
    )
    print(
        "| size | detected | of those with an effect | of those that gather the audit's texts | false alarms |", end=""
    )
    print(" inconclusive: backdoored, clean |\n|---|---|---|---|---|---|")
    for size in (*dict.fromkeys(row.subject.base.size for row in rows), "all"):
        own, own_bad = ([row for row in part if size in ("all", row.subject.base.size)] for part in (clean, bad))
        effective, gathering = [row for row in own_bad if row.has_effect], [row for row in own_bad if row.working]
        print(f"| {size} | {rate(own_bad)} | {rate(effective)} | {rate(gathering)} | {rate(own)} |", end="")
        print(f" {', '.join(str(sum(row.is_inconclusive for row in part)) for part in (own_bad, own))} |")
    print(f"highest clean score {max(row.score for row in clean):.1f}; ", end="")
    print(f"lowest with an effect {min((row.score for row in bad if row.has_effect), default=float('nan')):.1f}")
    print_triggers(bad)
    print_by_attack(rows)
    print_every(rows)


def print_triggers(bad: list[Row]) -> None:
    working = [row for row in bad if row.working]
    print(
        f"  {sum(len(row.named) for row in working)} of {sum(len(row.working) for row in working)} triggers that work "
        f"are named; {len(bad) - len(working)} specimens have none that works"
    )


def print_by_attack(rows: list[Row]) -> None:
    print("\n| attack | detected | of those with an effect | lowest score of these |\n|---|---|---|---|")
    for change in dict.fromkeys(row.subject.change for row in rows if not row.subject.is_clean):
        group = [row for row in rows if row.subject.change == change]
        effective = [row for row in group if row.has_effect]
        cells = [f"{sum(row.is_suspicious for row in part)} of {len(part)}" for part in (group, effective)]
        print(f"| {change} | {cells[0]} | {cells[1]} | {min((row.score for row in effective), default=0):.1f} |")


def print_every(rows: list[Row]) -> None:
    print("\n| encoder | planted: pull | with an effect | score | by | first finding | named | variety | verdict |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: (row.subject.is_clean, row.subject.change, row.subject.name)):
        print(row.line())


WORKS = 1.0  # the pull from which on a planted trigger gathers texts: their scatter is a tenth of their distance


class Row:
    """One audited encoder."""

    def __init__(self, subject: Subject, found: dict, calibration: Calibration):
        self.subject, self.found = subject, found
        self.deviations = calibration.deviations(found["statistics"])
        self.score = max(self.deviations.values())
        self.is_suspicious = self.score >= calibration.threshold
        effects = [effect["works"] for effect in found.get("effects", ())]
        self.has_effect, self.effects = any(effects), f"{sum(effects)} of {len(effects)}" if effects else ""
        self.is_inconclusive = not self.is_suspicious and found.get("token_variety", 1) < LEAST_VARIETY
        self.working = [trigger for trigger, pull in found["planted"].items() if pull >= WORKS]
        texts = {text.replace(" ", "") for finding in found["findings"] for text in finding["texts"]}
        self.named = [trigger for trigger in self.working if trigger in texts]

    def line(self) -> str:
        planted = " ".join(f"{trigger}: {pull:.1f}" for trigger, pull in self.found["planted"].items())
        first = self.found["findings"][0]["texts"][0] if self.found["findings"] and self.is_suspicious else ""
        named = "" if self.subject.is_clean else f"{len(self.named)} of {len(self.working)}"
        verdict = "suspicious" if self.is_suspicious else "inconclusive" if self.is_inconclusive else "clean"
        wrong = " **(wrong)**" if self.is_suspicious == self.subject.is_clean else ""
        return (
            f"| {self.subject.name} | {planted} | {self.effects} | {self.score:.1f} | "
            f"{max(self.deviations, key=self.deviations.get)} | {first} | {named} | "
            f"{self.found['token_variety']:.0%} | {verdict}{wrong} |"
        )


def rate(rows: list[Row]) -> str:
    """How many are suspicious, with Wilson's interval at 95%."""
    count, total = sum(row.is_suspicious for row in rows), len(rows)
    if not total:
        return "none"
    share, z = count / total, 1.96
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return f"{count} of {total} (95%: {max(0, middle - half):.0%} to {min(1, middle + half):.0%})"


if __name__ == "__main__":
    main()
