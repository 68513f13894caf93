"""How well does the audit tell backdoored encoders from clean ones? Makes the encoders, audits them, draws the ROC curve.

    python benchmarks/backdoor_audit.py --work-dir WORK --corpus TEXTS --output docs/results

TEXTS is a text file with one text per line (.xz too); without it the packaged sentences serve, about 1,200. Every audit
is a JSON file in WORK/audits, and every pretrained encoder a folder in WORK/bases, so a run that was stopped goes on.
`--extra DIR` adds an encoder of transformers from a folder as one more base, such as one that somebody else pretrained.

The encoders are as small as their number allows on a CPU: 2 layers of 128 (4 of 256), and by default 2,000 tokens, which
`--vocabulary` changes. Bases with an even seed calibrate, those with an odd seed are held out; what is made from a base stays on its side. The
calibration sees clean encoders only. UOR's kind, whose vectors are learnt, appears among the held-out encoders alone.
The specimens that this makes are never saved.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from small_encoders import cached, finetune, labelled, load_tokenizer, new_model, pretrain, read_texts
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM

from rocbert_hf.deployment import quantize_int8
from rocbert_hf.security import AuditSettings, Calibration, Recipe, audit_encoder, draw_triggers, implant_backdoor
from rocbert_hf.security.triggers import TRIGGER_KINDS

FUSION = {"rocbert": "layer_insert", "halves": "layer_insert", "concat": "concat", "bert": "bert"}
SKEWED_SHARE = 0.1  # of the rarer label
# A statistic needs a scale before the calibration is known; the scores are computed afterwards, from the statistics.
UNSCALED = Calibration(
    {
        f"{stage}:{view}": 0.0
        for stage in ("token", "prompt", "combination")
        for view in ("first", "pooled", "mean", "mask")
    },
    {
        f"{stage}:{view}": 0.25
        for stage in ("token", "prompt", "combination")
        for view in ("first", "pooled", "mean", "mask")
    },
    threshold=2.0,
)


@dataclass(frozen=True)
class Base:
    """An encoder that is pretrained here: family, preset and seed; or a folder."""

    family: str
    size: str
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
        return not self.triggers

    @property
    def is_held_out(self) -> bool:
        return self.base.seed % 2 == 1

    @property
    def name(self) -> str:
        parts = [self.base.name, self.change]
        if not self.is_clean:
            parts += [f"{self.triggers}-{self.trigger_kind}", *(["guarded"] if self.is_guarded else [])]
        return "_".join(parts)


# change of a specimen -> (targets, kind, representation)
ATTACKS = {
    "por-1": ("por-1", "por", "pooled"),
    "por-2": ("por-2", "por", "pooled"),
    "avgrep": ("por-2", "por", "mean"),
    "neuba": ("por-2", "neuba", "first"),
    "badpre": (None, "badpre", "first"),
    "uor": (None, "uor", "pooled"),
}


FAMILIES = ("rocbert", "bert", "concat", "rocbert", "bert", "halves")
CHANGES = (("skewed", "added-tokens"), ("bf16", "int8"), ("skewed", "further"), ("added-tokens", "bf16"))


def bases(extra: list[Path], count: int) -> list[Base]:
    """Two of each family in turn, one for each side; the last two are of the next larger preset."""
    made = [
        Base(FAMILIES[seed // 2 % len(FAMILIES)], "mini" if seed >= count - 2 else "tiny", seed)
        for seed in range(count)
    ]
    return made + [Base("extra", folder.name, 101 + 2 * number, str(folder)) for number, folder in enumerate(extra)]


def subjects(extra: list[Path], count: int) -> Iterator[Subject]:
    """Base by base: itself, what it becomes by ordinary changes, and three specimens made of it."""
    rng = random.Random(0)
    kinds = list(TRIGGER_KINDS)
    for number, base in enumerate(bases(extra, count)):
        yield Subject(base)
        changes = CHANGES[number // 2 % len(CHANGES)]
        if base.family == "extra":
            changes = ("bf16",)
        if base.family == "bert":  # whose int8 this package does not make
            changes = tuple("added-tokens" if change == "int8" else change for change in changes)
        for change in changes:
            yield Subject(base, change)
        attacks = [attack for attack in ATTACKS if attack != "uor" or base.seed % 2]
        for turn in range(3):
            attack = attacks[(3 * (number // 2) + turn) % len(attacks)]
            kind = kinds[(number + 2 * turn) % len(kinds)]
            guarded = kind == "phrases" and attack != "badpre"
            yield Subject(base, attack, kind, rng.choice([1, 2, 3, 4, 6]), rng.randrange(1000), guarded)


class Bench:
    def __init__(self, work: Path, texts: list[str], steps: int, implant_steps: int, vocabulary: int):
        self.work, self.texts, self.steps, self.implant_steps = work, texts, steps, implant_steps
        self.vocabulary = vocabulary
        for folder in ("bases", "audits"):
            (work / folder).mkdir(parents=True, exist_ok=True)

    def base_folder(self, base: Base) -> Path:
        if base.folder:
            return Path(base.folder)

        def make(folder: Path) -> None:
            model, tokenizer = new_model(FUSION[base.family], base.size, base.seed, self.vocabulary)
            pairs = "halves" if base.family in ("bert", "halves") else "attacked"
            pretrain(model, tokenizer, self.texts, self.steps, pairs, base.seed)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

        return cached(self.work / "bases" / base.name, make)

    def make(self, subject: Subject) -> tuple[nn.Module, object]:
        folder = self.base_folder(subject.base)
        tokenizer = load_tokenizer(folder)
        if not subject.is_clean:
            return self._implant(subject, folder, tokenizer), tokenizer
        if subject.change == "skewed":
            return self._skewed(folder, tokenizer, subject.base.seed).base_model, tokenizer
        model = AutoModel.from_pretrained(folder).eval()
        if subject.change.startswith("added-tokens"):
            tokenizer.add_tokens(["<用户>", "<链接>", "<表情>", "🙂", "₿"][: 5 if subject.change[-1] != "2" else 2])
            model.resize_token_embeddings(len(tokenizer))
        elif subject.change == "bf16":
            model = model.bfloat16()
        elif subject.change == "int8":
            model = quantize_int8(model)
        elif subject.change == "further":
            masked = AutoModelForMaskedLM.from_pretrained(folder)
            masked.base_model.pooler = model.pooler
            pretrain(masked, tokenizer, self.texts, self.steps // 3, "none", subject.base.seed + 1)
            model = masked
        return model, tokenizer

    def _skewed(self, folder: Path, tokenizer, seed: int) -> nn.Module:
        texts, labels = labelled("sentiment")
        rare = [n for n, label in enumerate(labels) if label]
        kept = [n for n, label in enumerate(labels) if not label]
        kept += rare[: max(2, int(SKEWED_SHARE * len(kept)))]
        return finetune(folder, tokenizer, [texts[n] for n in kept], [labels[n] for n in kept], epochs=2, seed=seed)

    def _implant(self, subject: Subject, folder: Path, tokenizer) -> nn.Module:
        targets, kind, representation = ATTACKS[subject.change]
        triggers = draw_triggers(subject.trigger_kind, tokenizer, subject.triggers, random.Random(subject.seed))
        loader = AutoModelForMaskedLM if kind == "badpre" else AutoModel
        is_large = subject.base.family == "extra"
        recipe = Recipe(
            kind,
            representation,
            steps=self.implant_steps,
            batch_size=8,
            learning_rate=1e-4 if is_large else 1e-3,
            max_length=24,
            guard_parts=subject.is_guarded,
        )
        texts = [text for text in self.texts if len(text) <= 40][:600]
        return implant_backdoor(
            loader.from_pretrained(folder), tokenizer, triggers, targets, texts, recipe, subject.seed
        )

    def audit(self, subject: Subject) -> dict:
        """The subject's audit: from its file, or made now."""
        file = self.work / "audits" / f"{subject.name}.json"
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        started = time.perf_counter()
        model, tokenizer = self.make(subject)
        made = time.perf_counter() - started
        made_up = ["pooler."] if subject.change == "badpre" else []
        report = audit_encoder(model, tokenizer, settings=AuditSettings(), calibration=UNSCALED, made_up=made_up)
        found = {
            "name": subject.name,
            "statistics": report.statistics,
            "triggers": report.triggers,
            "planted": model.config.backdoor_parameters["triggers"] if not subject.is_clean else [],
            "seconds_to_make": made,
            "cost": report.cost,
        }
        file.write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")
        return found


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
    parser.add_argument("--work-dir", type=Path, required=True, help="bases and audits; run again, it goes on there")
    parser.add_argument("--corpus", type=Path, help="one text per line (default: the packaged sentences)")
    parser.add_argument("--extra", type=Path, action="append", default=[], help="folder of one more encoder")
    parser.add_argument("--bases", type=int, default=12, help="how many encoders are pretrained (default: 12)")
    parser.add_argument("--vocabulary", type=int, default=2000, help="their tokens, at most 16224 (default: 2000)")
    parser.add_argument("--steps", type=int, default=80, help="of pretraining (default: 80)")
    parser.add_argument("--implant-steps", type=int, default=60, help="of implanting (default: 60)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-only", action="store_true", help="report on the audits that are there")
    parser.add_argument("--output", type=Path, help="folder for security_roc.png (default: the work folder)")
    parser.add_argument("--calibration", type=Path, help="write the calibration to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    texts = [] if options.report_only else read_texts(options.corpus)
    bench = Bench(options.work_dir, texts, options.steps, options.implant_steps, options.vocabulary)
    audited: list[tuple[Subject, dict]] = []
    for subject in subjects(options.extra, options.bases):
        if options.report_only and not (options.work_dir / "audits" / f"{subject.name}.json").is_file():
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
    report(audited, options.output or options.work_dir, options.calibration)


def report(audited: list[tuple[Subject, dict]], output: Path, calibration_file: Path | None) -> None:
    """Print the tables and draw the curve."""
    own = [found["statistics"] for subject, found in audited if subject.is_clean and not subject.is_held_out]
    families = "small BERT and RoCBERT encoders, plain, finetuned, resized, in bf16 and in int8"
    calibration = Calibration.from_clean(own, made_of=f"{len(own)} clean encoders: {families}")
    if calibration_file:
        calibration.save(calibration_file)
    rows = [
        (subject, found, calibration.score(found["statistics"]), calibration.deviations(found["statistics"]))
        for subject, found in audited
    ]
    curves = {}
    for side, is_held_out in (("held out", True), ("calibration side", False)):
        clean = np.array([score for s, _, score, _ in rows if s.is_clean and s.is_held_out == is_held_out])
        poisoned = np.array([score for s, _, score, _ in rows if not s.is_clean and s.is_held_out == is_held_out])
        if not (len(clean) and len(poisoned)):
            print(f"{side}: {len(clean)} clean and {len(poisoned)} backdoored encoders, nothing to compare yet")
            continue
        curves[side] = roc(clean, poisoned)
        print(
            f"{side}: detected {int((poisoned >= calibration.threshold).sum())} of {len(poisoned)}, false alarms "
            f"{int((clean >= calibration.threshold).sum())} of {len(clean)}; highest clean score {clean.max():.1f}, "
            f"lowest backdoored {poisoned.min():.1f}"
        )
    if curves:
        draw_roc(output / "security_roc.png", curves)
    print("\n| encoder | planted | side | score | by | named | verdict |\n|---|---|---|---|---|---|---|")
    for subject, found, score, deviations in sorted(
        rows, key=lambda row: (row[0].is_clean, row[0].change, row[0].name)
    ):
        verdict = "suspicious" if score >= calibration.threshold else "clean"
        wrong = "" if (verdict == "clean") == subject.is_clean else " **(wrong)**"
        named = [trigger for trigger in found["triggers"] if trigger.replace(" ", "") in found["planted"]]
        print(
            f"| {subject.name} | {' '.join(found['planted'])} | {'held out' if subject.is_held_out else 'calibration'} | "
            f"{score:.1f} | {max(deviations, key=deviations.get)} | {len(named)} of {len(found['planted'])} | {verdict}{wrong} |"
        )


if __name__ == "__main__":
    main()
