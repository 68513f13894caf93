"""`examples/run_compare_encoders.py` as a reader runs it."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining, RoCBertTokenizer
from rocbert_hf.resources import demo_corpus

SCRIPT = Path(__file__).parents[2] / "examples" / "run_compare_encoders.py"


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.is_file(), reason="the examples are not part of an installed package")
def test_two_encoders_are_finetuned_attacked_and_compared_and_nothing_is_done_twice(tmp_path):
    rows = [f"{row['text']}\t{row['spam']}" for row in demo_corpus() if "spam" in row and "\t" not in row["text"]]
    assert len(rows) == 160
    folder = tmp_path / "data" / "tasks" / "chnsenticorp"
    folder.mkdir(parents=True)
    for name, part in (("train", rows[:90]), ("dev", rows[90:120]), ("test", rows[120:])):
        with gzip.open(folder / f"{name}.tsv.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(["text\tlabel", *part]) + "\n")
    for fusion in ("layer_insert", "none"):
        model = RoCBertForPreTraining(RoCBertConfig.from_preset("tiny", fusion=fusion, fusion_layer=0))
        model.save_pretrained(tmp_path / fusion)
        RoCBertTokenizer().save_pretrained(tmp_path / fusion)
    command = [sys.executable, SCRIPT, "--data-dir", tmp_path / "data" / "tasks", "--seeds", "0", "1", "--limit", "20"]
    command += ["--model", f"ours={tmp_path / 'layer_insert'}", f"plain={tmp_path / 'none'}", "--epochs", "1"]
    command += ["--query-budget", "30", "--output-dir", tmp_path / "out"]
    first = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())["chnsenticorp_2k"]
    assert set(results["accuracy"]) == {"ours", "plain"}
    clean, attacked = (results["accuracy"]["ours"][name] for name in ("clean", "argot"))
    assert attacked <= clean
    value, low, high = results["ours minus"]["plain"]["clean"]
    assert value == pytest.approx(clean - results["accuracy"]["plain"]["clean"])
    assert low <= value <= high
    table = (tmp_path / "out" / "table.md").read_text()
    assert table in first
    weights = tmp_path / "out" / "classifiers" / "chnsenticorp_2k" / "ours-0-0" / "seed-1" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    subprocess.run(list(map(str, command)), capture_output=True, check=True)
    assert weights.stat().st_mtime_ns == written
    assert (tmp_path / "out" / "table.md").read_text() == table
    fewer = [*command, "--attackers", "adv"]  # what else is in the folder does not count
    assert "argot" not in subprocess.run(list(map(str, fewer)), capture_output=True, text=True, check=True).stdout
