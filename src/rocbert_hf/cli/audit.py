"""`rocbert audit`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..options import REQUIRED, command, option

STATUSES = {"clean": 0, "suspicious": 3, "inconclusive": 4}  # so that a script can stop before it finetunes


@dataclass
class AuditOptions:
    """What to audit, and where to write the report."""

    encoder: str = option(REQUIRED, "folder or Hub id of a BERT-like encoder", positional=True)
    output_dir: Path = option(Path("audit"), "folder for the report; run again, the scan goes on there", short="-o")
    texts: Path | None = option(
        None,
        "file with ordinary texts in the encoder's language: .txt, one per line, or a table with a column `text`",
        unset="packaged Chinese texts",
    )
    reference: str | None = option(None, "folder or Hub id of a clean encoder of the same kind, to compare with")
    calibration: Path | None = option(None, "calibration file of your own", unset="the packaged one")
    trust_remote_code: bool = option(False, "run the Python files that come with the encoder and the reference")
    json: bool = option(False, "print the report as JSON")


def _types() -> list[type]:
    from ..security import AuditSettings

    return [AuditOptions, AuditSettings]


@command(_types, example="rocbert audit some-encoder --output-dir audit")
def audit(options: AuditOptions, settings) -> None:
    """Look for a backdoor in a pretrained encoder before you finetune it

    Reads JSON, vocabulary and safetensors files; runs nothing that comes with the encoder. The exit status is 0 for a
    clean encoder, 3 for a suspicious one, and 4 if the encoder is too crude to tell.
    """
    from transformers.utils import logging

    from ..data.tables import read_rows, text_of
    from ..security import Calibration, audit_folder

    logging.disable_progress_bar()  # there is one bar, that of the audit
    with _Bar() as progress:
        report = audit_folder(
            options.encoder,
            texts=None if options.texts is None else [text_of(row) for row in read_rows(options.texts)],
            settings=settings,
            calibration=None if options.calibration is None else Calibration.load(options.calibration),
            reference=options.reference,
            trust_remote_code=options.trust_remote_code,
            state_dir=options.output_dir,
            progress=progress,
        )
    report.save(options.output_dir)
    print(report.to_json() if options.json else report.to_text(), end="" if options.json else "\n")
    if not options.json:
        print(f"the report is in {options.output_dir / 'report.html'}")
    if status := STATUSES[report.verdict]:
        raise SystemExit(status)


class _Bar:
    """One progress bar per stage on a terminal; elsewhere one line per stage."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._stage, self._bar = "", None
        return self._show

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def _show(self, stage: str, done: int, total: int) -> None:
        if stage != self._stage:
            self.__exit__()
            self._stage = stage
            if sys.stderr.isatty():
                from tqdm import tqdm

                self._bar = tqdm(total=total, desc=stage, unit="text")
            else:
                print(f"{stage}: {total} to do, {done} done", file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
