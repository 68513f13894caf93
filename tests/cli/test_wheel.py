"""The package as a wheel brings it: every command runs in an environment of its own, far from the clone."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="there is nothing to build a wheel from"),
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """`run(*arguments)` of the wheel's own `rocbert`, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    source = shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(".*", "build", "*.egg-info"))
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", wheel],
        check=True,
        capture_output=True,
    )
    # What the package needs is there already. A path of PYTHONPATH comes without its .pth files, and so without the clone.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONPATH"] = sysconfig.get_paths()["purelib"]
    shutil.rmtree(source)
    work = folder / "work"
    work.mkdir()

    def run(*arguments) -> str:
        command = [python.with_name("rocbert"), *map(str, arguments)]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    code = "import rocbert_hf; print(rocbert_hf.__file__)"
    place = subprocess.run([python, "-c", code], cwd=work, env=environment, capture_output=True, text=True, check=True)
    assert str(folder / "venv") in place.stdout
    return run, work


def test_every_command_runs_from_the_wheel(installed):
    run, work = installed
    assert run("--version").startswith("rocbert ")
    quick = ["--max-steps", 3, "--held-out", 20, "--batch-size", 16, "--no-baseline", "--report-to", "none"]
    assert "saved model" in run("pretrain", *quick, "--output-dir", "tiny")
    assert "model_type" in run("info", "tiny") or "fusion" in run("info", "tiny")
    assert "written to" in run("card", "tiny", "--name", "me/tiny", "--overwrite")
    assert len(run("attack", "科比的精神值得永远学习", "--seed", 1)) > 5
    pretrain = ["--config-overrides", "fusion=concat,num_hidden_layers=1", "--output-dir", "concat"]
    run("pretrain", *quick, *pretrain)
    assert "maximum difference of outputs" in run("convert", "concat", "theirs")
    rows = [f"{text}\t{label}" for label, text in enumerate(["服务很好，味道不错", "太难吃了，不会再来"])]
    (work / "reviews.tsv").write_text("\n".join(["text\tlabel", *rows * 20]) + "\n", encoding="utf-8")
    if importlib.util.find_spec("rocbert_hf.finetuning") is None:
        pytest.skip("there is no finetuning in the package yet")
    files = ["--train-file", "reviews.tsv", "--test-file", "reviews.tsv", "--output-dir", "classifier"]
    run("finetune", "--model", "tiny", *files, "--epochs", 1)
    report = ["--limit", 4, "--attackers", "adv", "--output-dir", "report"]
    run("evaluate", "--model", "classifier", "--data", "reviews.tsv", *report)
    assert (work / "report" / "report.html").is_file()
