"""The command `rocbert`. What a command needs is imported inside it, so that the others start fast."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from typer.core import TyperCommand

from ..files import DECOMPRESSION_ERRORS, written_whole

app = typer.Typer(
    help="RoCBERT: adversarial Chinese text, and a BERT that stays right under it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def main() -> None:
    """RoCBERT: adversarial Chinese text, and a BERT that stays right under it."""


@contextmanager
def one_clear_error() -> Iterator[None]:
    """Bad input ends the command with one line on stderr and status 1, not with a traceback."""
    try:
        yield
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is wrong. Python would complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def attack(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to attack. Without any, --input or stdin.")] = None,
    input_file: Annotated[
        Path | None,
        typer.Option("--input", "-i", help=".txt (a text a line), .tsv (with a header) or .jsonl; also .gz."),
    ] = None,
    column: Annotated[str, typer.Option(help="The column of a .tsv or key of a .jsonl that holds the text.")] = "text",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write, in the format of the input. Default: stdout.")
    ] = None,
    preset: Annotated[str, typer.Option(help="paper (section 3), or wild (also what people do beyond it).")] = "paper",
    attacks: Annotated[str | None, typer.Option(help="Only these, with commas between: phonetic,split")] = None,
    config: Annotated[Path | None, typer.Option(help="A JSON file with a config, instead of --preset.")] = None,
    ratio: Annotated[float | None, typer.Option(help="Share of the characters to attack. Default: 0.15")] = None,
    scorer: Annotated[str | None, typer.Option(help="word_frequency or random, or a causal language model.")] = None,
    protect: Annotated[
        str | None, typer.Option(help="Leave alone: url,email,mention,hashtag,number,special_token")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same texts.")] = 0,
    num_workers: Annotated[int, typer.Option(help="Processes to share the work among.")] = 0,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Write source, text and edits of each, one JSON a line.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page that shows every edit.")] = None,
) -> None:
    """Make adversarial Chinese text.

    Example: rocbert attack 科比的精神值得永远学习 --seed 1
    """
    with one_clear_error():
        for file in (output, html):
            if file is not None and not file.parent.is_dir():
                raise OSError(f"the folder of {file} does not exist")
        from ..attacks.page import Report

        synthesizer = _synthesizer(preset, config, {"attacks": attacks, "ratio": ratio, "protect": protect}, scorer)
        header, rows = _open_rows(texts, input_file, column)
        waiting: deque[Callable[[str], str]] = deque()
        attacked = synthesizer.attack_stream(_texts_of(rows, waiting), seed, num_workers)
        report = Report(config=synthesizer.config)
        with ExitStack() as files:
            page = None if html is None else files.enter_context(written_whole(html))
            stream = sys.stdout if output is None else files.enter_context(written_whole(output))
            if header and not jsonl:
                stream.write(header + "\n")
            for result in _with_progress(attacked, shown=output is not None):
                line_of = waiting.popleft()
                line = json.dumps(result.to_dict(), ensure_ascii=False) if jsonl else line_of(result.text)
                stream.write(line + "\n")
                report.add(result)
            if page is not None:
                page.write(report.page())
            stream.flush()


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="Folder, or repository of the Hub.")],
    output: Annotated[Path, typer.Argument(help="Folder to write, a new one.")],
    vocabulary: Annotated[
        str | None, typer.Option(help="Of BERT and ERNIE: characters (default), or source to keep its word pieces.")
    ] = None,
    fusion_layer: Annotated[int | None, typer.Option(help="Of BERT and ERNIE: the layer that is fused.")] = None,
    phonetic_encoder: Annotated[
        str | None, typer.Option(help="Of BERT and ERNIE: char_sum (default), char_cnn or table.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of BERT and ERNIE: of the weights that the source lacks.")] = None,
    shape_features: Annotated[
        Path | None, typer.Option(help="Of the authors' layout: img_embed.shape_embed, where the checkpoint lacks it.")
    ] = None,
    pronunciations: Annotated[
        Path | None, typer.Option(help="Of the authors' layout: prounciation.proun_id, to compare sizes.")
    ] = None,
) -> None:
    """Convert a checkpoint: transformers' roc_bert, the authors' layout, any Chinese BERT or ERNIE.

    A checkpoint of this package is converted to transformers' roc_bert.

    Example: rocbert convert hfl/chinese-macbert-base rocbert-macbert
    """
    options = {name: value for name, value in locals().items() if name not in ("source", "output")}
    with one_clear_error():
        from ..conversion import convert

        typer.echo(convert(source, output, **options))


class ListsTasks(TyperCommand):
    """Ends its help with the public tasks, which are looked up only then."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:
        from ..data.tasks import TASKS

        self.epilog = f"Tasks: {', '.join(TASKS)}"
        super().format_help(ctx, formatter)


@app.command(cls=ListsTasks)
def evaluate(
    model: Annotated[
        list[str], typer.Option("--model", "-m", help="Folder or Hub id of a classifier, or NAME=DIR; repeatable.")
    ],
    task: Annotated[list[str] | None, typer.Option(help="A public task, of those below; repeatable.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with the files of the tasks.")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help=".tsv, .csv, .jsonl or .json (also .gz), or a dataset of the Hub as owner/name:config."),
    ] = None,
    text_column: Annotated[str, typer.Option(help="Of --data.")] = "text",
    pair_column: Annotated[str | None, typer.Option(help="Of --data: the second text, which is not attacked.")] = None,
    label_column: Annotated[str, typer.Option(help="Of --data.")] = "label",
    split: Annotated[str | None, typer.Option(help="To read. Default: the task's, or test.")] = None,
    limit: Annotated[int | None, typer.Option(help="Texts to attack, drawn at random. Default: all")] = None,
    attackers: Annotated[str, typer.Option(help="With commas between.")] = "adv,textfooler,argot",
    attacks: Annotated[
        str, typer.Option(help="Also ADV with one attack alone, each of these: phonetic,split or all.")
    ] = "",
    ratio: Annotated[
        str, typer.Option(help="Also every attacker with at most these shares of the characters: 0.05,0.1")
    ] = "",
    max_share: Annotated[float, typer.Option(help="Share of the characters that may be attacked.")] = 0.2,
    query_budget: Annotated[int, typer.Option(help="Queries a text.")] = 2000,
    synonyms: Annotated[
        str | None,
        typer.Option(help="Of textfooler and argot: masked_lm=DIR_OR_ID or vectors=FILE. Default: a small thesaurus."),
    ] = None,
    defence: Annotated[
        list[str] | None,
        typer.Option(help="Also every model behind spelling=DIR_OR_ID (masked language model) or pycorrector."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Folder or Hub id that measures similarity. Default: by characters.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder; run again, it goes on there.")] = Path(
        "robustness"
    ),
    cut: Annotated[bool, typer.Option("--cut", help="Cut texts that are longer than a model reads.")] = False,
    max_length: Annotated[int | None, typer.Option(help="Tokens a model reads. Default: all it can.")] = None,
    batch_size: Annotated[int, typer.Option(help="Texts of one forward pass.")] = 64,
    num_workers: Annotated[int, typer.Option(help="Calls of a model at the same time, each in a thread.")] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ... Default: a GPU if there is one.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample, the attacks and the intervals.")] = 0,
) -> None:
    """Measure how right classifiers stay under attack; the report is OUTPUT/report.html.

    Example: rocbert evaluate --model my-classifier --data reviews.tsv --limit 300 --output robustness
    """
    with one_clear_error():
        from transformers.utils import logging

        from ..evaluation.run import EvaluationArguments
        from ..evaluation.run import evaluate as run

        logging.disable_progress_bar()  # there is one bar, that of the attacks
        arguments = EvaluationArguments(
            model=model,
            task=task or [],
            data_dir=None if data_dir is None else str(data_dir),
            data=data or [],
            split=split,
            text_column=text_column,
            pair_column=pair_column,
            label_column=label_column,
            limit=limit,
            attackers=[attackers],
            attacks=[attacks],
            ratio=[ratio],
            max_share=max_share,
            query_budget=query_budget,
            synonyms=synonyms,
            defence=defence or [],
            encoder=encoder,
            output_dir=str(output),
            cut=cut,
            max_length=max_length,
            batch_size=batch_size,
            num_workers=num_workers,
            device=device,
            seed=seed,
        )
        run(arguments, progress=sys.stderr.isatty())
        typer.echo(f"the report is in {output / 'report.html'}")


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    name: Annotated[
        str | None, typer.Option(help="Of the repository, such as me/rocbert. Default: the folder's.")
    ] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", help="Of the weights, as the Hub spells it: apache-2.0")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the card that is there.")] = False,
) -> None:
    """Write the model card of a checkpoint, README.md in its folder, from what the training run left there.

    Example: rocbert card rocbert-tiny --name me/rocbert-tiny
    """
    with one_clear_error():
        from ..hub.description import model_card

        text, file = model_card(folder, name, license_name), folder / "README.md"
        if file.exists() and not overwrite:
            raise OSError(f"{file} exists; --overwrite replaces it")
        with written_whole(file) as stream:
            stream.write(text)
        typer.echo(f"written to {file}")


@app.command()
def info(
    folder: Annotated[Path, typer.Argument(help="Folder of a checkpoint.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what is in a checkpoint: fusion, sizes, dtype, hashes. Loads no weights and opens no pickle.

    Example: rocbert info rocbert-tiny
    """
    with one_clear_error():
        from ..hub.description import describe, overview

        description = describe(folder)
        typer.echo(json.dumps(description, ensure_ascii=False, indent=2) if as_json else overview(description))


def _synthesizer(preset: str, config: Path | None, given: dict[str, Any], scorer: str | None):
    """The synthesizer that the options of `rocbert attack` describe."""
    from ..attacks import AdversarialSynthesizer, CausalLMScorer
    from ..attacks.selection import SCORERS

    settings: dict[str, Any] = {"preset": preset}
    if config is not None:
        try:
            settings = json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"--config must be a JSON file, {config} is not: {error}") from error
        if not isinstance(settings, dict):
            raise ValueError(f"--config must hold a JSON object, {config} holds {type(settings).__name__}")
    for key, value in given.items():
        if value is not None:
            settings[key] = value.split(",") if isinstance(value, str) else value
    if scorer is None or scorer in SCORERS:
        return AdversarialSynthesizer({**settings, **({"scorer": scorer} if scorer else {})})
    return AdversarialSynthesizer(settings, CausalLMScorer.from_pretrained(scorer))


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
    suffix = Path(file.stem).suffix if file.suffix == ".gz" else file.suffix
    if suffix not in readers:
        raise ValueError(f"--input must end in {', '.join(readers)} (or these with .gz), got {file}")
    if not file.is_file():
        raise OSError(f"--input: there is no file {file}")
    return readers[suffix](_file_lines(file), file, column)


def _file_lines(file: Path) -> Iterator[str]:
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        yield from _lines(stream, file)


def _lines(stream: IO[bytes], name: Path | str) -> Iterator[str]:
    """The lines without their ends. Only at \\n: str.splitlines would also split at U+2028 and others inside a text."""
    try:
        for number, line in enumerate(stream, start=1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{name} line {number} is not UTF-8: {error.reason}") from error
    except DECOMPRESSION_ERRORS as error:
        raise OSError(f"{name} is damaged: {error}") from error


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
