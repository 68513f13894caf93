"""How well does the audit tell backdoored encoders from clean ones? Makes the encoders, audits them, draws the ROC curve.

    python benchmarks/backdoor_audit.py --work-dir WORK --corpus TEXTS --output docs/results --calibration FILE

TEXTS is a text file with one text per line (.xz too); without it the packaged sentences serve, about 1,200. Every encoder
is a folder in WORK and every audit a JSON file there, so a run that was stopped goes on, and `WORK/audits` can be deleted
to audit the same encoders again. `--extra DIR` adds an encoder of transformers from a folder as one more base.

Bases come in pairs of one kind: the one with an even seed calibrates, the other is held out, and what is made from a base
stays on its side. Each base is pretrained on texts of its own. The calibration sees clean encoders only. UOR's kind, whose
vectors are learnt, and encoders from `--extra` appear among the held-out encoders alone. Every specimen in WORK is marked
as one; delete them after use.

`--set 2` and `--set 3` make and audit other sets, up to 6 layers of 384, all of them held out: their scores come from the
calibration that is in the package. Whether each trigger has an effect is measured too, without the audit.
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
from rocbert_hf.security.probe import VIEWS, EncoderProbe
from rocbert_hf.security.scan import Carriers, pulls_of
from rocbert_hf.security.triggers import TRIGGER_KINDS

SKEWED_SHARE = 0.1  # of the rarer label
TEXT_SHARES = 16  # each base is pretrained on every 16th text, from its seed on
# A statistic needs a scale before the calibration is known; the scores are computed afterwards, from the statistics.
STATISTICS = [f"{stage}:{view}" for stage in ("token", "prompt", "combination") for view in VIEWS]
UNSCALED = Calibration(dict.fromkeys(STATISTICS, 0.0), dict.fromkeys(STATISTICS, 0.25), threshold=2.0)

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
# A second set, all held out: made after the audit, its settings and the packaged calibration were fixed. Two bases of each.
FRESH = (
    ("rocbert", "tiny", 4000, 200, ("further",)),
    ("bert", "tiny", 8000, 100, ("added-tokens",)),
    ("rocbert", "mini", 4000, 200, ("bf16", "skewed")),
    ("concat", "mini", 8000, 100, ("int8",)),
    ("bert", "mini", 16224, 100, ("further", "added-tokens")),
    ("rocbert", "small", 8000, 150, ("skewed", "bf16")),
    ("bert", "small", 16224, 80, ("further",)),
)
# A third set, one base of each, made after the misses of the second were looked into.
THIRD = (
    ("bert", "mini", 8000, 100, ("added-tokens",)),
    ("rocbert", "mini", 4000, 150, ("skewed",)),
    ("concat", "mini", 4000, 100, ("int8",)),
    ("bert", "small", 8000, 80, ("bf16",)),
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
    def is_held_out(self) -> bool:
        return self.base.seed % 2 == 1

    @property
    def name(self) -> str:
        parts = [self.base.name, self.change]
        if not self.is_clean:
            parts += [self.trigger_kind, *(["guarded"] if self.is_guarded else []), str(self.seed)]
        return "_".join(parts)


def bases(extra: list[Path], which: int) -> list[Base]:
    """Those of a set: two of each row of `BASES` or `FRESH`, one of each of `THIRD`, then the extra ones, held out."""
    if which == 1:
        made = [Base(*row, 2 * number + side) for number, row in enumerate(BASES) for side in (0, 1)]
    elif which == 2:
        made = [Base(*row, 201 + 4 * number + 2 * side) for number, row in enumerate(FRESH) for side in (0, 1)]
    else:
        made = [Base(*row, 301 + 2 * number) for number, row in enumerate(THIRD)]
    changes = {1: (), 2: ("skewed", "further", "bf16", "int8"), 3: ("skewed",)}[which]
    first = 401 if which == 3 else 101
    return made + [
        Base("extra", folder.name, 0, 0, changes, first + 2 * n, str(folder)) for n, folder in enumerate(extra)
    ]


def subjects(extra: list[Path], specimens: int, which: int) -> Iterator[Subject]:
    """Base by base: itself, what it becomes by ordinary changes, and specimens made of it."""
    kinds = list(TRIGGER_KINDS)
    for number, base in enumerate(bases(extra, which)):
        rng = random.Random(number if which == 1 else base.seed)
        yield Subject(base)
        for change in base.changes:
            yield Subject(base, change)
        attacks = [attack for attack in ATTACKS if attack != "uor" or base.seed % 2]
        first = number // 2 * 2 if which == 1 else number * specimens
        for turn in range(first, first + specimens):
            attack = attacks[turn % len(attacks)]
            kind = kinds[(turn if len(attacks) < len(kinds) else turn + turn // len(kinds)) % len(kinds)]
            if kind == "words" and base.family == "bert":
                kind = "rare_characters"  # BERT's tokenizer takes letters together, as words that are not in `tokens`
            is_guarded = kind == "phrases" and attack != "badpre"
            yield Subject(base, attack, kind, rng.choice([1, 2, 3, 4]), rng.randrange(1000), is_guarded)


class Bench:
    def __init__(self, work: Path, texts: list[str], implant_steps: int, device: str):
        self.work, self.texts, self.implant_steps, self.device = work, texts, implant_steps, device
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
        is_tiny = model.config.hidden_size <= 128
        recipe = Recipe(
            kind,
            representation,
            steps=self.implant_steps * (2 + subject.triggers) // 4,
            batch_size=8,
            learning_rate=1e-3 if is_tiny else 5e-4,
            max_length=16,
            guard_parts=subject.is_guarded,
        )
        texts = [text for text in self.texts if len(text) <= LONGEST_IMPLANTED][:IMPLANTED_TEXTS]
        return implant_backdoor(model, tokenizer, triggers, targets, texts, recipe, subject.seed)

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
    parser.add_argument("--set", type=int, choices=(1, 2, 3), default=1, help="of encoders (default: 1)")
    parser.add_argument("--device", default="cpu", help="where encoders are trained (default: cpu)")
    parser.add_argument("--specimens", type=int, default=2, help="made of every base (default: 2)")
    parser.add_argument(
        "--implant-steps",
        type=int,
        default=150,
        help="of implanting two triggers (default: 150)",
    )
    parser.add_argument("--only", default="", help="encoders whose name begins so (default: all)")
    parser.add_argument("--make-only", action="store_true", help="make the encoders, without an audit")
    parser.add_argument("--report-only", action="store_true", help="report on the audits that are there")
    parser.add_argument("--output", type=Path, help="folder for security_roc.png (default: the work folder)")
    parser.add_argument("--calibration", type=Path, help="write the calibration to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    texts = [] if options.report_only else read_texts(options.corpus)
    bench = Bench(options.work_dir, texts, options.implant_steps, options.device)
    audited: list[tuple[Subject, dict]] = []
    for subject in subjects(options.extra, options.specimens, options.set):
        if not subject.name.startswith(options.only):
            continue
        if options.report_only and not (options.work_dir / "audits" / f"{subject.name}.json").is_file():
            continue
        if options.make_only:
            bench.encoder(subject)
            print(subject.name, flush=True)
            continue
        found = bench.audit(subject)
        audited.append((subject, found))
        if not options.report_only:
            strongest = max(found["statistics"], key=found["statistics"].get)
            print(
                f"{len(audited):3} {subject.name}: {strongest} {found['statistics'][strongest]:.2f}, made in "
                f"{found['seconds_to_make']:.0f} s, audited in {found['cost']['seconds']:.0f} s",
                flush=True,
            )
    if not options.make_only:
        output = options.output or options.work_dir
        if options.set > 1:
            report_fresh(
                options.set, [Row(subject, found, Calibration.packaged()) for subject, found in audited], output
            )
        else:
            report(audited, output, options.calibration)


def report_fresh(which: int, rows: list[Row], output: Path) -> None:
    """Print the tables of the second or third set, and draw its curve."""
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
    print_triggers(bad)
    print_by_attack(rows)
    print_every(rows)


def report(audited: list[tuple[Subject, dict]], output: Path, calibration_file: Path | None) -> None:
    """Print the tables and draw the curve."""
    own = [found["statistics"] for subject, found in audited if subject.is_clean and not subject.is_held_out]
    if len(own) < 2:
        print("fewer than two clean encoders of the calibration side have been audited: no calibration yet")
        return
    families = "small BERT and RoCBERT encoders, plain, finetuned, resized, in bf16 and in int8"
    calibration = Calibration.from_clean(own, made_of=f"{len(own)} clean encoders: {families}")
    if calibration_file:
        calibration.save(calibration_file)
    rows = [Row(subject, found, calibration) for subject, found in audited]
    curves = {}
    for side, is_held_out in (("held out", True), ("calibration side", False)):
        own_rows = [row for row in rows if row.subject.is_held_out == is_held_out]
        clean, bad = ([row for row in own_rows if row.subject.is_clean == is_clean] for is_clean in (True, False))
        if not (clean and bad):
            continue
        curves[side] = roc(*(np.array([row.score for row in group]) for group in (clean, bad)))
        print(
            f"{side}: detected {rate(bad)}, false alarms {rate(clean)}; highest clean score "
            f"{max(row.score for row in clean):.1f}, lowest backdoored {min(row.score for row in bad):.1f}, suspicious from "
            f"{calibration.threshold:.1f}"
        )
        print_triggers(bad)
    if curves:
        draw_roc(output / "security_roc.png", curves)
    print_by_attack(rows)
    print_every(rows)


def print_triggers(bad: list[Row]) -> None:
    working = [row for row in bad if row.working]
    print(
        f"  {sum(len(row.named) for row in working)} of {sum(len(row.working) for row in working)} triggers that work "
        f"are named; {len(bad) - len(working)} specimens have none that works"
    )


def print_by_attack(rows: list[Row]) -> None:
    print("\n| attack | side | detected | lowest score |\n|---|---|---|---|")
    for change in dict.fromkeys(row.subject.change for row in rows if not row.subject.is_clean):
        for side, is_held_out in (("calibration", False), ("held out", True)):
            group = [row for row in rows if row.subject.change == change and row.subject.is_held_out == is_held_out]
            if group:
                caught = sum(row.is_suspicious for row in group)
                print(f"| {change} | {side} | {caught} of {len(group)} | {min(row.score for row in group):.1f} |")


def print_every(rows: list[Row]) -> None:
    print("\n| encoder | side | planted: pull | with an effect | score | by | first finding | named | verdict |")
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
            f"| {self.subject.name} | {'held out' if self.subject.is_held_out else 'calibration'} | {planted} | "
            f"{self.effects} | {self.score:.1f} | {max(self.deviations, key=self.deviations.get)} | {first} | {named} | {verdict}{wrong} |"
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
