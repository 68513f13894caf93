"""`rocbert attack`."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..attacks.config import PRESETS, PROTECTED
from ..attacks.kinds import ATTACKS
from ..files import OPENERS, open_packed, text_lines, unpacked_name, written_whole
from ..options import command, option


@dataclass
class AttackOptions:
    """What to attack, how, and where to write it."""

    texts: list[str] = option([], "texts to attack; without any, --input or stdin", positional=True)
    input: Path | None = option(
        None, "file with texts: .txt (one text per line), .tsv (with a header) or .jsonl; also packed", short="-i"
    )
    column: str = option("text", "column of a .tsv or key of a .jsonl that holds the text")
    output: Path | None = option(
        None, "file to write, in the format of the input; without it, to the terminal", short="-o"
    )
    preset: str = option("paper", "paper: section 3; wild: also what people do beyond it", choices=PRESETS)
    attacks: list[str] = option([], "only these attacks, with commas between", choices=ATTACKS, separator=",")
    synthesizer: Path | None = option(None, "JSON file with a synthesizer's config, instead of --preset")
    ratio: float | None = option(None, "share of the characters to attack (without it: 0.15)")
    scorer: str | None = option(None, "word_frequency or random, or folder or Hub id of a causal language model")
    protect: list[str] = option([], "what to leave alone, with commas between", choices=PROTECTED, separator=",")
    seed: int = option(0, "the same seed gives the same texts")
    num_workers: int = option(0, "processes to share the work among")
    jsonl: bool = option(False, "write source, text and edits of each text, one JSON object per line")
    html: Path | None = option(None, "also write a page that shows every edit")


@command([AttackOptions], example="rocbert attack 科比的精神值得永远学习 --seed 1")
def attack(options: AttackOptions) -> None:
    """Make adversarial Chinese text"""
    for file in (options.output, options.html):
        if file is not None and not file.parent.is_dir():
            raise OSError(f"the folder of {file} does not exist")
    from ..attacks.page import AttackPage

    synthesizer = _synthesizer(options)
    header, rows = _open_rows(options.texts, options.input, options.column)
    waiting: deque[Callable[[str], str]] = deque()
    attacked = synthesizer.attack_stream(_texts_of(rows, waiting), options.seed, options.num_workers)
    report = AttackPage(config=synthesizer.config)
    with ExitStack() as files:
        page = None if options.html is None else files.enter_context(written_whole(options.html))
        stream = sys.stdout if options.output is None else files.enter_context(written_whole(options.output))
        if header and not options.jsonl:
            stream.write(header + "\n")
        for result in _with_progress(attacked, shown=options.output is not None):
            line_of = waiting.popleft()
            line = json.dumps(result.to_dict(), ensure_ascii=False) if options.jsonl else line_of(result.text)
            stream.write(line + "\n")
            report.add(result)
        if page is not None:
            page.write(report.html())
        stream.flush()


def _synthesizer(options: AttackOptions):
    from ..attacks import AdversarialSynthesizer, CausalLMScorer
    from ..attacks.selection import SCORERS

    settings: dict[str, Any] = {"preset": options.preset}
    if options.synthesizer is not None:
        try:
            settings = json.loads(options.synthesizer.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"--synthesizer must be a JSON file, {options.synthesizer} is not: {error}") from error
        if not isinstance(settings, dict):
            raise ValueError(f"--synthesizer must hold a JSON object, got {type(settings).__name__}")
    for key in ("attacks", "ratio", "protect"):
        if getattr(options, key) not in (None, []):
            settings[key] = getattr(options, key)
    if options.scorer is None or options.scorer in SCORERS:
        return AdversarialSynthesizer({**settings, **({"scorer": options.scorer} if options.scorer else {})})
    return AdversarialSynthesizer(settings, CausalLMScorer.from_pretrained(options.scorer))


# A text, and what makes the output's line of its attacked form.
Row = tuple[str, Callable[[str], str]]


def _open_rows(texts: Sequence[str] | None, file: Path | None, column: str) -> tuple[str, Iterator[Row]]:
    """(header line or "", rows) of the arguments, a file or stdin."""
    if texts and file is not None:
        raise ValueError("give texts or --input, not both")
    if texts:
        return "", ((text, str) for text in texts)
    if file is None:
        if sys.stdin.isatty():
            raise ValueError("give texts, or --input, or pipe lines in")
        return "", ((line, str) for line in _lines(sys.stdin.buffer, "stdin"))
    readers = {".txt": _plain_rows, ".tsv": _tsv_rows, ".jsonl": _jsonl_rows}
    suffix = unpacked_name(file).suffix
    if suffix not in readers:
        raise ValueError(
            f"--input must end in {', '.join(readers)} (or these packed: {', '.join(OPENERS)}), got {file}"
        )
    if not file.is_file():
        raise OSError(f"--input: there is no file {file}")
    return readers[suffix](_file_lines(file), file, column)


def _file_lines(file: Path) -> Iterator[str]:
    with open_packed(file) as stream:
        yield from _lines(stream, file)


def _lines(stream: IO[bytes], name: Path | str) -> Iterator[str]:
    """The lines without their ends."""
    return (line.rstrip("\r\n") for _, line in text_lines(stream, name))


def _plain_rows(lines: Iterator[str], file: Path, column: str) -> tuple[str, Iterator[Row]]:
    return "", ((line, str) for line in lines)


def _tsv_rows(lines: Iterator[str], file: Path, column: str) -> tuple[str, Iterator[Row]]:
    header = next(lines, "")
    names = header.split("\t")
    if column not in names:
        raise ValueError(f"--column must be among the columns of {file} ({', '.join(names)}), got {column!r}")
    at = names.index(column)

    def rows() -> Iterator[Row]:
        for number, line in enumerate(lines, start=2):
            fields = line.split("\t")
            if len(fields) != len(names):
                raise ValueError(f"{file} line {number} must have {len(names)} fields, got {len(fields)}")
            yield fields[at], lambda text, fields=fields: "\t".join([*fields[:at], text, *fields[at + 1 :]])

    return header, rows()


def _jsonl_rows(lines: Iterator[str], file: Path, column: str) -> tuple[str, Iterator[Row]]:
    def rows() -> Iterator[Row]:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{file} line {number} is not JSON: {error}") from error
            if not isinstance(record, dict) or not isinstance(record.get(column), str):
                raise ValueError(f"{file} line {number} must be an object with a string under {column!r}")
            yield record[column], lambda text, record=record: json.dumps({**record, column: text}, ensure_ascii=False)

    return "", rows()


def _texts_of(rows: Iterator[Row], waiting: deque[Callable[[str], str]]) -> Iterator[str]:
    """The texts of the rows; what makes their lines waits until the attacked form is there."""
    for text, line_of in rows:
        waiting.append(line_of)
        yield text


def _with_progress(items: Iterable[Any], shown: bool) -> Iterable[Any]:
    if not (shown and sys.stderr.isatty()):
        return items
    from tqdm import tqdm

    return tqdm(items, unit="text", desc="attacking")
