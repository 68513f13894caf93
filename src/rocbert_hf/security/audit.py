"""Is a pretrained encoder backdoored? The audit, from an encoder to a report."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..checkpoints import readable_tokens
from ..files import locked_folder
from ..resources import demo_sentences
from .audit_report import STAGE_NAMES, AuditReport
from .calibration import Calibration
from .findings import findings_of
from .probe import EncoderProbe
from .pull import token_variety
from .rare_words import TOKENS as WORD_TOKENS
from .scan import Carriers
from .specimens import is_specimen
from .stages import AuditSettings, Progress, Stages

STATE, STATE_OF_REFERENCE = "audit_state.npz", "audit_state_of_reference.npz"
LEAST_VARIETY = 0.1  # of an encoder's tokens, below which a low score says nothing; see `token_variety`
VARIETY_TEXTS = 64


def audit_encoder(
    model: nn.Module,
    tokenizer,
    texts: Sequence[str] | None = None,
    settings: AuditSettings | None = None,
    calibration: Calibration | None = None,
    made_up: Sequence[str] = (),
    name: str = "",
    state_dir: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """
    Look for a task-agnostic backdoor in a BERT-like encoder.

    Args:
        model: an encoder of transformers, or a model on top of one, in any precision.
        tokenizer: its tokenizer.
        texts: ordinary texts in the encoder's language; by default the packaged Chinese ones.
        settings: how thorough it is.
        calibration: what clean encoders have; by default the packaged one.
        made_up: names of parameters that the checkpoint lacked; see `EncoderProbe`.
        name: of the encoder, for the report.
        state_dir: a folder to keep the scan's state in, of one audit at a time. Stopped and called again with the same
            encoder, texts and settings, the audit goes on where it was. Not for a model that was quantised in memory.
        progress: is told what is done.

    Returns:
        `.score` (higher is worse), `.verdict` ("clean", "suspicious" or "inconclusive"), `.triggers` (strings, worst first), and more.

    Raises:
        ValueError: the tokenizer or the texts do not fit. OSError: another process audits with the same `state_dir`.
    """
    with _alone_in(state_dir) as folder:
        state = None if folder is None else folder / STATE
        return _audited(model, tokenizer, made_up, name, calibration, state, texts, settings, progress)


@contextmanager
def _alone_in(state_dir: str | os.PathLike | None) -> Iterator[Path | None]:
    """The folder that the state is kept in, if there is one, with other audits kept out of it."""
    if state_dir is None:
        yield None
        return
    with locked_folder(Path(state_dir)):
        yield Path(state_dir)


def _audited(
    model: nn.Module,
    tokenizer,
    made_up: Sequence[str],
    name: str,
    calibration: Calibration | None,
    state: Path | None,
    texts: Sequence[str] | None,
    settings: AuditSettings | None,
    progress: Progress | None,
) -> AuditReport:
    """As `audit_encoder`; `state` is the file of the scan's state."""
    settings = settings or AuditSettings()
    calibration = calibration or Calibration.packaged()
    started = time.perf_counter()
    with _evaluating(model):
        probe = EncoderProbe(model, tokenizer, made_up)
        # the longest rows: the first pass', and a pair in a carrier of the last
        longest = settings.carrier_length + max(
            settings.group_size, settings.prompt_tokens, WORD_TOKENS, settings.carrier_length + WORD_TOKENS
        )
        framed = probe.framed(np.zeros((1, longest))).shape[1]
        if (readable := readable_tokens(probe.model)) is not None and framed > readable:
            raise ValueError(
                f"carrier_length, group_size and prompt_tokens make texts of {framed} tokens, of which the encoder reads "
                f"{readable}: choose smaller ones"
            )
        stages = STAGE_NAMES if settings.prompt_steps else ("token", "word")
        # a calibration that knows none of these is refused now, and not at the end
        calibration.score({f"{stage}:{view}": 0.0 for stage in stages for view in probe.views})
        carriers = Carriers.from_texts(
            probe,
            demo_sentences() if texts is None else texts,
            settings.carriers,
            settings.carrier_length,
            longest,
            settings.ordinary_texts,
        )
        audit = Stages(probe, carriers, settings, progress or (lambda *_: None))
        confirmed, statistics = audit.run(state)
        findings = findings_of(probe, audit.fresh, confirmed, calibration)
        variety = token_variety(probe.hidden_states(probe.framed(carriers.ordinary[:VARIETY_TEXTS])))
    score = calibration.score(statistics)
    passed = "clean" if variety >= LEAST_VARIETY else "inconclusive"
    return AuditReport(
        name=name,
        score=score,
        threshold=calibration.threshold,
        verdict="suspicious" if score >= calibration.threshold else passed,
        token_variety=variety,
        findings=findings,
        statistics=statistics,
        deviations=calibration.deviations(statistics),
        calibrated_on=calibration.made_of,
        marked_as_specimen=is_specimen(model),
        settings=asdict(settings),
        cost={
            "seconds": round(time.perf_counter() - started, 1),
            "tokens": probe.tokens,
            "vocabulary": len(audit.scanned["token"]),
            "words": len(audit.scanned["word"]),
            "resumed": audit.resumed,
        },
    )


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    needed = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    for parameter, _ in needed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        model.train(was_training)
        for parameter, requires_grad in needed:
            parameter.requires_grad_(requires_grad)


# -- from the command line


def audit_folder(
    source: str | os.PathLike,
    texts: Sequence[str] | None = None,
    settings: AuditSettings | None = None,
    calibration: Calibration | None = None,
    reference: str | os.PathLike | None = None,
    trust_remote_code: bool = False,
    state_dir: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """
    Audit a checkpoint; what `rocbert audit` does.

    Args:
        source: folder or Hub id. Only its JSON, vocabulary and safetensors files are read.
        reference: a clean encoder of the same kind. It is audited first, and takes the place of the calibration's mean.
        trust_remote_code: run the Python files of the folder, and of the reference, if it cannot be loaded otherwise.
        texts, settings, calibration, state_dir, progress: as for `audit_encoder`.

    Raises:
        OSError, ValueError: a checkpoint cannot be loaded, or does not fit, or another process audits with the same
            `state_dir`.
    """
    from .suspect import load_suspect

    calibration = calibration or Calibration.packaged()
    model, tokenizer, made_up = load_suspect(source, trust_remote_code)
    clean = None if reference is None else load_suspect(reference, trust_remote_code)
    with _alone_in(state_dir) as folder:
        state, state_of_reference = (None if folder is None else folder / name for name in (STATE, STATE_OF_REFERENCE))
        common: dict[str, Any] = {"texts": texts, "settings": settings, "progress": progress}
        if clean is not None:
            report = _audited(*clean, str(reference), calibration, state_of_reference, **common)
            calibration = calibration.around(report.statistics, str(reference))
        return _audited(model, tokenizer, made_up, str(source), calibration, state, **common)
