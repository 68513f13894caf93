"""`rocbert finetune` under a launcher of several processes."""

import json

import numpy as np
import pytest

from rocbert_hf.attackers import ModelClassifier
from rocbert_hf.finetuning.processes import (
    first_process_first,
    first_process_speaks,
    in_first_process,
    is_first_process,
)
from rocbert_hf.finetuning.tagger import EntityTagger

from ..several_processes import in_two_processes

RUNS = """
import sys
from accelerate import PartialState
from rocbert_hf.cli import main

process = PartialState(cpu=True)  # the runs share one process group
folder = {folder!r}
start = ["finetune", "--preset", "tiny", "--epochs", "2", "--learning-rate", "0.005"]
classify = [*start, "--train-file", folder + "/train.tsv", "--test-file", folder + "/train.tsv"]
runs = {{
    "trained": [*classify, "-o", folder + "/classifier"],
    "refused": [*classify, "-o", folder + "/classifier"],
    "resumed": [*classify, "-o", folder + "/classifier", "--resume"],
    "seeds": [*classify, "--worst-of", "2", "--seeds", "0", "1", "-o", folder + "/seeds"],
    "unreadable": [*start, "--train-file", folder + "/missing.tsv", "-o", folder + "/none"],
    "tagger": [*start, "--task-type", "tagging", "--train-file", "demo", "--limit", "24", "-o", folder + "/tagger"],
    "unlabelled": [*classify, "--unlabelled", folder + "/texts.txt", "--no-compare", "--attackers", "adv",
                   "--attacked-texts", "4", "--plotted-texts", "8", "-o", folder + "/unlabelled"],
}}
for name, arguments in runs.items():
    print("status of", name, process.process_index, main(arguments), flush=True)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(their folder, what they printed, their errors)."""
    folder = tmp_path_factory.mktemp("two")
    rows = ["text\tlabel"] + [f"这家酒店{'很好' if i % 2 else '很差'}{i}\t{i % 2}" for i in range(24)]
    (folder / "train.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "texts.txt").write_text("\n".join(f"第{i}家饭店的菜" for i in range(24)) + "\n", encoding="utf-8")
    done = in_two_processes(folder, RUNS.format(folder=str(folder)))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout, done.stderr


@pytest.mark.slow
def test_two_processes_finetune_every_kind_of_task_and_one_of_them_tells(runs):
    folder, stdout, _ = runs
    for name in ("trained", "resumed", "seeds", "tagger", "unlabelled"):
        assert f"status of {name} 0 0" in stdout
        assert f"status of {name} 1 0" in stdout
    for where in ("classifier", "seeds/seed-0", "seeds/seed-1", "tagger", "unlabelled"):
        assert stdout.count(f"saved in {folder / where}\n") == 1
        assert (folder / where / "trainer_state.json").is_file()
        assert (folder / where / "README.md").is_file()
        assert not (folder / where / "checkpoints").exists()
    assert (folder / "unlabelled" / "report.html").is_file()
    assert set(json.loads((folder / "seeds" / "all_results.json").read_text())["test"]["accuracy"]) == {"mean", "std"}


@pytest.mark.slow
def test_what_is_saved_is_what_two_processes_measured(runs):
    folder, _, _ = runs
    lines = (folder / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]
    texts, labels = zip(*(line.split("\t") for line in lines), strict=True)
    for where in ("classifier", "seeds/seed-0", "unlabelled"):
        results = json.loads((folder / where / "all_results.json").read_text())
        predicted = ModelClassifier(folder / where)(texts).argmax(-1)
        assert results["test"]["accuracy"] == pytest.approx(np.mean(predicted == np.array(labels, dtype=int)))
    assert EntityTagger.from_pretrained(folder / "tagger")(["王芳在北京大学工作。"])


@pytest.mark.slow
def test_an_error_is_told_once_and_ends_both_processes(runs):
    folder, stdout, stderr = runs
    for name, message in (("refused", "holds a finished model"), ("unreadable", "missing.tsv")):
        assert f"status of {name} 0 1" in stdout
        assert f"status of {name} 1 1" in stdout
        assert sum(line.startswith("error: ") and message in line for line in stderr.splitlines()) == 1
    assert stdout.count("is finished already: nothing was trained") == 1
    assert not (folder / "none").exists()


def test_one_process_does_everything_itself(capsys):
    with first_process_speaks():
        print("heard")
    assert capsys.readouterr().out == "heard\n"
    assert is_first_process()
    assert in_first_process(lambda: 3) == first_process_first(lambda: 3) == 3
    with pytest.raises(KeyError, match="gone"):
        in_first_process(lambda: {}["gone"])
