"""Damages input at random, and gives it to what reads folders and files: `python -m tests.damaged_input FOLDER SEED CASES`.

Writes FOLDER/result-SEED.json: how the cases ended, and the failures, each with the seed that repeats it. A case fails if it ends
in anything but a result or one clear error of ours, runs longer than 30 s, or leaves the mark that executed code would.
"""

import contextlib
import gzip
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path

SECONDS = 30
MEMORY = 2 << 30  # bytes that the process may grow to
VALUES = [
    None, True, -1, 0, 1, 2, 7, 10**9, -(10**9), 10**7, 1e308, float("nan"), float("inf"), "", "text", "\x1b[31mred", "../../etc",
    "\u202egnp", [], [1], {}, {"a": {}}, [[[]]], "1", "gelu", "layer_insert", "float16",
]  # fmt: skip


class TooLong(BaseException):
    """The time of a case is over."""


class Mark:
    """A pickle that makes a folder when it is loaded by what executes it."""

    def __init__(self, folder: str):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


# ------------------------------------------------------------------------------------------------ damage


def damaged_json(content, rng: random.Random):
    """`content` with a few of its values, at any depth, replaced, removed, renamed or nested."""
    for _ in range(rng.randint(1, 3)):
        places = list(_places(content))
        if not places:
            return rng.choice(VALUES)
        holder, key = rng.choice(places)
        how = rng.random()
        if how < 0.6:
            holder[key] = rng.choice(VALUES)
        elif how < 0.8:
            del holder[key]
        elif how < 0.9 and isinstance(holder, dict):
            holder[rng.choice(["model_type", "x", "architectures", "auto_map", "fusion"])] = holder.pop(key)
        else:
            nested = holder[key]
            for _ in range(rng.choice([3, 3000])):
                nested = [nested]
            holder[key] = nested
    return content


def _places(content, most: int = 300):
    stack, found = [content], 0
    while stack and found < most:
        holder = stack.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found += 1
            yield holder, key
            if isinstance(holder[key], dict | list):
                stack.append(holder[key])


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """Cut off, with changed, inserted or doubled bytes."""
    content = bytearray(content)
    how = rng.randrange(6)
    if how == 0:
        return bytes(content[: rng.randrange(len(content) + 1)])
    if how == 1:
        return b""
    if how == 2:
        at = rng.randrange(len(content) + 1)
        return bytes(content[:at]) + rng.randbytes(rng.randint(1, 64)) + bytes(content[at:])
    if how == 3:
        return bytes(content) * 2
    reach = min(len(content), rng.choice([16, 200, len(content)]))  # headers more often than the rest
    for _ in range(rng.randint(1, 20)):
        if content:
            content[rng.randrange(max(reach, 1))] = rng.randrange(256)
    return bytes(content)


def damage(file: Path, rng: random.Random, mark: Path) -> None:
    how = rng.random()
    if how < 0.03:
        file.unlink()
    elif how < 0.06:
        file.write_bytes(pickle.dumps(Mark(str(mark))))
    elif file.suffix == ".json" and how < 0.8:
        try:
            content = damaged_json(json.loads(file.read_text(encoding="utf-8")), rng)
        except ValueError:
            content = rng.choice(VALUES)
        file.write_text(_dumped(content), encoding="utf-8")
    elif file.suffix == ".safetensors" and how < 0.5:
        file.write_bytes(_damaged_header(file.read_bytes(), rng))
    else:
        file.write_bytes(damaged_bytes(file.read_bytes(), rng))


def _dumped(content) -> str:
    try:
        return json.dumps(content, ensure_ascii=False)
    except RecursionError:
        return "[" * 100_000


def _damaged_header(content: bytes, rng: random.Random) -> bytes:
    size = int.from_bytes(content[:8], "little")
    try:
        header = damaged_json(json.loads(content[8 : 8 + size]), rng)
        packed = _dumped(header).encode()
    except (ValueError, UnicodeDecodeError):
        packed = rng.randbytes(size % 1000)
    length = len(packed) if rng.random() < 0.8 else rng.choice([0, 1, 2**40, 2**63])
    return length.to_bytes(8, "little") + packed + content[8 + size :]


# ------------------------------------------------------------------------------------------------ readers


def command(*argv: str) -> str:
    """Run `rocbert ARGV`; an error must be one line on stderr."""
    from rocbert_hf.cli import main

    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        status = main(list(argv))
    shown = out.getvalue() + errors.getvalue()
    assert "Traceback" not in shown, shown
    assert "\x1b[31mred" not in shown, "an escape sequence was shown"
    assert "\u202e" not in shown, "a bidirectional override was shown"
    if status:
        assert "error: " in errors.getvalue(), f"exit status {status} without an error: {errors.getvalue()!r}"
        return "refused"
    return "result"


def info(folder: Path) -> str:
    return command("info", str(folder))


def card(folder: Path) -> str:
    return command("card", str(folder))


def convert(folder: Path) -> str:
    return command("convert", str(folder), str(folder.parent / "converted"))


def classify(folder: Path) -> str:
    from rocbert_hf.attackers import ModelClassifier
    from rocbert_hf.checkpoints import loading

    try:
        with loading("the model", str(folder)):
            classifier = ModelClassifier(str(folder))
        classifier(["今天的天气很好。"])
    except (ValueError, OSError):
        return "refused"
    return "result"


def table(file: Path) -> str:
    from rocbert_hf.data import read_labelled

    try:
        read_labelled(str(file))
    except (ValueError, OSError):
        return "refused"
    return "result"


def attack(file: Path) -> str:
    return command("attack", "--input", str(file), "--output", str(file.with_name(f"attacked-{file.name}")))


OF_FOLDERS = {
    "ours": (info, card, convert, classify),
    "bert": (info, convert, classify),
    "roc_bert": (info, convert, classify),
}
OF_FILES = (table, attack)


def run_case(originals: Path, scratch: Path, seed: str) -> tuple[str, str]:
    """(what was read by what, how it ended)."""
    rng = random.Random(seed)
    mark = scratch / "executed"
    source = rng.choice([*OF_FOLDERS, "rows"])
    if source == "rows":
        original = rng.choice(sorted((originals / "rows").iterdir()))
        file = scratch / original.name
        shutil.copy(original, file)
        damage(file, rng, mark)
        reader, target = rng.choice(OF_FILES), file
    else:
        target = scratch / "folder"
        shutil.copytree(originals / source, target)
        files = [file for file in sorted(target.iterdir()) if file.is_file()]
        for file in rng.sample(files, rng.choice([1, 1, 2])):
            damage(file, rng, mark)
        reader = rng.choice(OF_FOLDERS[source])
    ended = reader(target)
    assert not mark.exists(), "code of the input was executed"
    return f"{reader.__name__} of {source}", ended


def make_originals(folder: Path) -> None:
    """Small whole checkpoints of three kinds, and labelled rows in every format."""
    import torch
    import transformers

    from rocbert_hf import RoCBertConfig, RoCBertForSequenceClassification, RoCBertTokenizer
    from rocbert_hf.resources import demo_corpus

    from .conversion.conftest import SIZES, chinese_word_pieces, save_bert, write_three_files

    torch.manual_seed(0)
    save_bert(folder / "bert", head="ForSequenceClassification")
    (folder / "roc_bert").mkdir()
    tokens = chinese_word_pieces()
    write_three_files(folder / "roc_bert", tokens)
    sizes = {**SIZES, "vocab_size": len(tokens), "shape_vocab_size": 500, "pronunciation_vocab_size": 90}
    theirs = transformers.RoCBertConfig(**sizes, shape_embed_dim=24, pronunciation_embed_dim=48)
    transformers.RoCBertForSequenceClassification(theirs).save_pretrained(folder / "roc_bert")
    transformers.RoCBertTokenizer.from_pretrained(folder / "roc_bert").save_pretrained(folder / "roc_bert")
    ours = RoCBertConfig(
        **{**SIZES, "hidden_size": 16, "intermediate_size": 16}, fusion="concat", phonetic_encoder="table"
    )
    RoCBertForSequenceClassification(ours).save_pretrained(folder / "ours")
    RoCBertTokenizer().save_pretrained(folder / "ours")
    (folder / "ours" / "all_results.json").write_text(
        json.dumps({"arguments": {"seed": 0, "attacks": "paper"}, "rocbert": {"after": {"mlm_loss": 1.5}}})
    )
    rows = [{"text": row["text"], "label": str(row["sentiment"])} for row in demo_corpus() if "sentiment" in row][:20]
    (folder / "rows").mkdir()
    tsv = "text\tlabel\n" + "".join(f"{row['text']}\t{row['label']}\n" for row in rows)
    contents = {
        "rows.tsv": tsv,
        "rows.csv": tsv.replace("\t", ","),
        "rows.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "rows.json": json.dumps(rows, ensure_ascii=False),
    }
    for name, content in contents.items():
        (folder / "rows" / name).write_text(content, encoding="utf-8")
    (folder / "rows" / "packed.tsv.gz").write_bytes(gzip.compress(tsv.encode(), mtime=0))


def main(folder: Path, seed: int, cases: int) -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    resource.setrlimit(
        resource.RLIMIT_AS, (12 << 30, 12 << 30)
    )  # an allocation beyond it fails; touched memory is checked

    def over(*_):
        raise TooLong

    signal.signal(signal.SIGALRM, over)
    ended, failures = Counter(), []
    for number in range(cases):
        name, scratch = f"{seed}-{number}", folder / f"case-{seed}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        signal.alarm(SECONDS)
        try:
            what, how = run_case(folder, scratch, name)
            ended[f"{what}: {how}"] += 1
        except (Exception, TooLong):
            failures.append({"seed": name, "error": traceback.format_exc(limit=-6)})
        finally:
            signal.alarm(0)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MEMORY:
            failures.append({"seed": name, "error": "the process grew over 2 GB"})
            break
    result = json.dumps({"ended": ended, "failures": failures}, ensure_ascii=False)
    (folder / f"result-{seed}.json").write_text(result, encoding="utf-8", errors="backslashreplace")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
