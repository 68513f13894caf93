"""What all commands of `rocbert` share: help, version, modules, signals, pipes and errors."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import rocbert_hf
from rocbert_hf import cli
from rocbert_hf.attackers.recipes import ATTACKERS
from rocbert_hf.attacks import ATTACKS
from rocbert_hf.cli import COMMANDS

from ..command_line import rocbert

ROOT = Path(__file__).parents[2]
KOBE = "科比的精神值得永远学习"


def test_version_and_help():
    assert rocbert("--version").stdout == f"rocbert {rocbert_hf.__version__}\n"
    overview = rocbert("--help").stdout
    assert all(re.search(rf"^  {name} +\w", overview, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("command", ["attack", "evaluate", "entities", "finetune", "pretrain"])
def test_help_lists_attacks_and_attackers(command):
    words = set(re.findall(r"\w+", rocbert(command, "--help").stdout))
    assert set(ATTACKS) <= words
    assert command != "evaluate" or set(ATTACKERS) <= words


@pytest.mark.parametrize("module", ["rocbert_hf", "rocbert_hf.cli"])
def test_both_modules_are_the_command(module):
    run = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("rocbert ")


def test_help_imports_neither_torch_nor_transformers():
    code = "import sys; from rocbert_hf.cli import main; main(['--help']); print({'torch', 'transformers'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("set()\n")


def test_threads_sleep_while_they_wait_unless_told_otherwise():
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    code = "import os; from rocbert_hf.cli import main; main(['--version']); print(os.environ['OMP_WAIT_POLICY'])"
    for given, seen in ({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment | given
        )
        assert run.stdout.endswith(f"{seen}\n")


def test_a_misspelt_command_or_flag_is_named_first():
    assert "there is no command atack; did you mean attack?" in rocbert("atack").stderr
    assert (
        "there is no option --outptu; did you mean --output?"
        in rocbert("attack", KOBE, "--seed", "x", "--outptu").stderr
    )


def test_a_blank_after_a_comma_is_no_part_of_a_name():
    spaced = rocbert("attack", KOBE, "--attacks", "phonetic, split", "--seed", 3)
    assert spaced.exit_code == 0, spaced.stderr
    assert spaced.stdout == rocbert("attack", KOBE, "--attacks", "phonetic,split", "--seed", 3).stdout


def test_a_terminal_that_cannot_show_a_character_does_not_end_the_run():
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "rocbert_hf", "attack", KOBE]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert "\\u7cbe\\u795e" in run.stdout  # 精神


@pytest.mark.skipif(os.name == "nt", reason="sends SIGTERM")
def test_sigterm_leaves_no_unfinished_file(tmp_path):
    command = [sys.executable, "-m", "rocbert_hf", "attack", "-o", tmp_path / "out.txt"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdin.write(f"{KOBE}\n" * 10)
        process.stdin.flush()
        while not list(tmp_path.iterdir()):  # it has begun to write, and waits for more lines
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="needs a pipe of a shell")
def test_a_reader_that_goes_away_is_no_error():
    command = f"yes {KOBE} | head -2000 | {sys.executable} -m rocbert_hf attack | head -1"
    run = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=300)
    assert run.stderr == ""


@pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs a clone of the repository")
def test_install_hints_name_packages_that_the_index_has():
    """Anyone could take a name that is on no index: each name is one that setup.py installs, or is listed here."""
    others = {"pycorrector", "kenlm", "parameterized"}  # on the index, and of no extra
    known = others | set(re.findall(r'"([\w.-]+)>=', (ROOT / "setup.py").read_text(encoding="utf-8")))
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    files += [
        file for room in ("src", "docs", "examples", "conversion", "benchmarks") for file in (ROOT / room).rglob("*")
    ]
    for file in files:
        if file.suffix not in (".py", ".md"):
            continue
        for words in re.findall(r"pip install((?: +[\w.=\[\]{}-]+)+)", file.read_text(encoding="utf-8")):
            words = words.split(" --")[0]  # what follows an option is no package
            names = [re.split(r"[=\[]", word)[0] for word in words.rstrip(".").split()]
            names = [name for name in names if name.strip(".") and name[0] not in "-{"]
            assert {name.lower() for name in names} <= known, f"{file}: {words}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "/nope"],
        ["card", "/nope"],
        ["convert", "/nope", "out"],
        ["pretrain", "--model", "/nope"],
        ["finetune", "--model", "/nope", "--train-file", "rows.tsv"],
        ["finetune", "--task-type", "tagging", "--model", "/nope", "--train-file", "demo"],
        ["evaluate", "--model", "/nope", "--data", "rows.tsv"],
        ["entities", "--model", "/nope", "--test-file", "demo"],
        ["audit", "/nope"],
    ],
)
def test_a_folder_that_does_not_exist_is_said_so(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no run has left a model
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "好吃\t1\n难吃\t0\n" * 10, encoding="utf-8")
    outcome = rocbert(*arguments)
    assert outcome.exit_code == 1
    assert re.match(
        r"error: .*/nope'?( cannot be loaded)?:? .*no such folder|error: there is no folder /nope", outcome.stderr
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["pretrain", "--preset", "tiny", "--train-file", "rows.tsv"],
        ["finetune", "--preset", "tiny", "--train-file", "rows.tsv"],
        ["evaluate", "--model", "spam=classifier", "--data", "rows.tsv"],
        ["entities", "--model", "tagger", "--test-file", "demo"],
        ["audit", "tagger"],
        ["attack", "--input", "rows.tsv"],
    ],
)
def test_an_output_that_is_a_file_and_should_be_a_folder_or_the_reverse_is_said_so(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "好吃\t1\n难吃\t0\n" * 10, encoding="utf-8")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    for folder, head, labels in (
        ("classifier", rocbert_hf.RoCBertForSequenceClassification, ["0", "1"]),
        ("tagger", rocbert_hf.RoCBertForTokenClassification, ["O", "B-PER", "I-PER"]),
    ):
        names = dict(enumerate(labels))
        ids = {name: number for number, name in names.items()}
        head(rocbert_hf.RoCBertConfig(**sizes, id2label=names, label2id=ids)).save_pretrained(folder)
        rocbert_hf.RoCBertTokenizer().save_pretrained(folder)
    (tmp_path / "taken").mkdir() if arguments[0] == "attack" else (tmp_path / "taken").write_text("kept")
    outcome = rocbert(*arguments, *(["--output"] if arguments[0] == "attack" else ["--output-dir"]), "taken")
    assert outcome.exit_code == 1
    expected = "taken is a folder: name a file" if arguments[0] == "attack" else "taken is a file"
    error = outcome.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert expected in error


def test_a_command_ends_the_process_group_that_it_began_and_no_other(tmp_path, monkeypatch):
    dist = torch.distributed

    def begin(_argv=None):
        if not dist.is_initialized():
            dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)

    monkeypatch.setattr(cli, "command_named", lambda name: begin)
    assert cli.main(["info"]) == 0
    assert not dist.is_initialized()
    begin()
    assert cli.main(["info"]) == 0
    assert dist.is_initialized()
    dist.destroy_process_group()
