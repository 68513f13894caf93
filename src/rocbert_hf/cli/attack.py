"""`rocbert attack`."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..attacks.config import ATTACKS_HELP, PROTECTED
from ..files import written_whole
from ..options import command, option

if TYPE_CHECKING:
    from ..attacks import AdversarialSynthesizer
    from ..data.tables import Row


@dataclass
class AttackOptions:
    """What to attack, how, and where to write it."""

    texts: list[str] = option([], "texts to attack; without any, --input or stdin", positional=True)
    input: Path | None = option(
        None,
        "file with texts: .txt (one text per line), .csv or .tsv (with a header), .jsonl or .json; each may be packed "
        "(.gz, .xz, .bz2, .zst)",
        short="-i",
    )
    column: str = option("text", "column or key of --input that holds the text")
    output: Path | None = option(None, "file to write, in the format of the input", short="-o", unset="to the terminal")
    attacks: str = option("paper", f"what to attack with: {ATTACKS_HELP}")
    ratio: float | None = option(None, "share of the characters to attack", unset="0.15, or as --attacks says")
    scorer: str | None = option(
        None,
        "what scores the words of Eq. 2: word_frequency or random, or the folder or Hub id of a causal language model",
        unset="word_frequency, or as --attacks says",
    )
    protect: list[str] = option(
        [], "what to leave alone, with commas between", choices=PROTECTED, separator=",", unset="nothing"
    )
    seed: int = option(0, "the same seed gives the same texts")
    num_workers: int = option(0, "processes to share the work among")
    jsonl: bool = option(False, "write source, text and edits of each text, one JSON object per line")
    html: Path | None = option(None, "also write a page that shows every edit")


@command([AttackOptions], example="rocbert attack 科比的精神值得永远学习 --seed 1")
def attack(options: AttackOptions) -> None:
    """Make adversarial Chinese text"""
    from ..attacks.page import AttackPage
    from ..data.tables import table_text

    rows, form = _rows(options)
    form = ".jsonl" if options.jsonl else form
    _check_outputs(options, form)
    synthesizer = _synthesizer(options)
    page = AttackPage(config=synthesizer.config)
    with ExitStack() as files:
        html = None if options.html is None else files.enter_context(written_whole(options.html))
        stream = sys.stdout if options.output is None else files.enter_context(written_whole(options.output))
        for piece in table_text(_attacked(rows, synthesizer, options, page), form):
            stream.write(piece)
        if html is not None:
            html.write(page.html())
        stream.flush()


def _rows(options: AttackOptions) -> tuple[Iterator[Row], str]:
    """The rows of the arguments, of a file or of stdin, and the format in which they are written."""
    from ..data.tables import Row, read_rows, rows_of_lines, table_format

    if options.texts and options.input is not None:
        raise ValueError("give texts or --input, not both")
    if options.column != AttackOptions.column and options.input is None:
        raise ValueError(f"--column {options.column} is a column of --input, which is not given")
    if options.texts:
        return (Row("the texts", {"text": text}) for text in options.texts), ".txt"
    if options.input is not None:
        return read_rows(options.input, keep_blank=True), table_format(options.input) or ".txt"
    if sys.stdin.isatty():
        raise ValueError("give texts, or --input, or pipe lines in")
    return rows_of_lines(sys.stdin.buffer, "stdin"), ".txt"


def _check_outputs(options: AttackOptions, form: str) -> None:
    from ..data.tables import table_format

    for name, file in (("output", options.output), ("html", options.html)):
        if file is not None and not file.parent.is_dir():
            raise OSError(f"--{name}: the folder of {file} does not exist")
    if options.html is not None and options.output is not None and options.html.resolve() == options.output.resolve():
        raise ValueError(f"--output and --html must be two files, got {options.output} for both")
    if options.output is not None and table_format(options.output) not in (None, form):
        raise ValueError(f"--output must end in {form}, the format that is written, got {options.output}")


def _synthesizer(options: AttackOptions) -> AdversarialSynthesizer:
    from ..attacks import AdversarialSynthesizer, read_attacks
    from ..attacks.config import is_language_model

    given = {"ratio": options.ratio, "scorer": options.scorer, "protect": options.protect or None}
    settings = {name: value for name, value in given.items() if value is not None}
    config = read_attacks({**read_attacks(options.attacks), **settings})
    if not is_language_model(config["scorer"]):
        return AdversarialSynthesizer(config)
    from ..checkpoints import loading

    with loading("the scorer", config["scorer"]):
        return AdversarialSynthesizer(config)


def _attacked(
    rows: Iterator[Row], synthesizer: AdversarialSynthesizer, options: AttackOptions, page: Any
) -> Iterator[Mapping[str, Any]]:
    """The rows with their texts attacked, or with --jsonl what was done to them; `page` gets every attacked text."""
    from ..data.tables import text_of

    column = options.column if options.input is not None else "text"
    waiting: deque[dict[str, Any]] = deque()  # rows whose attacked text is not there yet

    def texts() -> Iterator[str]:
        for row in rows:
            waiting.append(row.values)
            yield text_of(row, column)

    attacked = synthesizer.attack_stream(texts(), options.seed, options.num_workers)
    for result in _with_progress(attacked, shown=options.output is not None):
        page.add(result)
        values = waiting.popleft()
        yield result.to_dict() if options.jsonl else {**values, column: result.text}


def _with_progress(items: Iterable[Any], shown: bool) -> Iterable[Any]:
    if not (shown and sys.stderr.isatty()):
        return items
    from tqdm import tqdm

    return tqdm(items, unit="text", desc="attacking")
