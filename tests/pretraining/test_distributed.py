"""Several processes, as a user launches them: DeepSpeed and DistributedDataParallel on a CPU, and sudden death."""

import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from rocbert_hf.pretraining import checkpoints_of, read_log

from ..several_processes import TWO
from . import small_run

DEEPSPEED = Path(__file__).parents[2] / "examples" / "deepspeed"
ALONE = [sys.executable]
SECONDS = 300  # a launch takes 15; DeepSpeed compiles something the first time


def in_deepspeed(config: str) -> list[str]:
    options = ["--use_deepspeed", "--deepspeed_config_file", str(DEEPSPEED / config), "--num_processes", "2"]
    options += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    return [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *options]


needs_deepspeed = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
needs_compiler = pytest.mark.skipif(
    shutil.which("c++") is None, reason="DeepSpeed compiles its communication on a CPU, and there is no C++ compiler"
)
needs_fp16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_fp16_supported(), reason="this CPU does not compute in float16"
)


def start(launcher: list[str], folder: Path, options: dict, **environment: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    with open(folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            [*launcher, small_run.__file__, str(folder), json.dumps(options)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def run(launcher: list[str], folder: Path, options: dict) -> list[dict]:
    """What each process saw."""
    process = start(launcher, folder, options)
    try:
        process.wait(SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, (folder / "output.txt").read_text(encoding="utf-8")[-3000:]
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("rank-*.json"))]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@needs_deepspeed
@needs_compiler
@needs_fp16
def test_deepspeed_zero_1_in_fp16_shards_the_optimizer_and_learns(tmp_path):
    options = {"max_steps": 10, "batch_size": 4, "gradient_accumulation_steps": 2, "gradient_cache": True}
    saw = run(in_deepspeed("zero1_fp16.json"), tmp_path, {**options, "save_steps": 10})
    assert [process["world_size"] for process in saw] == [2, 2]
    assert not {tuple(seen) for seen in saw[0]["sentences"]} & {tuple(seen) for seen in saw[1]["sentences"]}
    for process in saw:
        assert 0.45 < process["optimizer_numbers"] / process["parameters"] < 0.55
    rows = read_log(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.2
    assert rows[-1]["loss_scale"] > 1
    model = AutoModel.from_pretrained(tmp_path / "checkpoint-10", dtype=torch.float32)
    saved = weights(tmp_path)["roc_bert.embeddings.word_embeddings.weight"]
    assert torch.equal(model.get_input_embeddings().weight, saved)


@needs_deepspeed
@needs_compiler
@needs_fp16
@pytest.mark.slow
@pytest.mark.parametrize("config", ["zero1_bf16.json", "zero1_fp16_offload.json"])
def test_the_other_deepspeed_configurations_shard_and_learn_too(tmp_path, config):
    saw = run(in_deepspeed(config), tmp_path, {"max_steps": 10, "learning_rate": 1e-2})
    for process in saw:
        assert process["world_size"] == 2
        assert 0.45 < process["optimizer_numbers"] / process["parameters"] < 0.55
    rows = read_log(tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.2


def test_two_processes_learn_what_one_learns_from_batches_twice_as_large(tmp_path):
    options = {"max_steps": 8, "gradient_accumulation_steps": 2, "gradient_cache": True}
    two = run(TWO, tmp_path / "two", {**options, "batch_size": 4})
    (tmp_path / "one").mkdir()
    small_run.main(tmp_path / "one", {**options, "batch_size": 8})
    one = json.loads((tmp_path / "one" / "rank-0.json").read_text(encoding="utf-8"))
    assert [process["world_size"] for process in (one, *two)] == [1, 2, 2]
    for a, b in zip(read_log(tmp_path / "one"), read_log(tmp_path / "two"), strict=True):
        for name in ("loss", "mlm_loss", "contrastive_loss"):
            assert a[name] == pytest.approx(b[name], abs=1e-4)
    # 8 steps of 16 sentences: all 128, once
    together = [tuple(seen) for process in two for seen in process["sentences"]]
    assert len(set(together)) == len(together) == 128
    assert sorted(together) == sorted(tuple(seen) for seen in one["sentences"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "times"),
    [
        pytest.param(ALONE, 10, id="one process"),
        pytest.param(TWO, 10, id="two processes"),
        pytest.param(
            in_deepspeed("zero1_fp16.json"), 3, id="DeepSpeed", marks=[needs_deepspeed, needs_compiler, needs_fp16]
        ),
    ],
)
def test_killed_again_and_again_the_run_ends_with_the_same_weights(tmp_path, launcher, times):
    options = {"max_steps": 60, "batch_size": 4, "dropout": 0.1, "stream": True, "num_workers": 2}
    options |= {"gradient_accumulation_steps": 2, "gradient_cache": True, "save_steps": 2}
    run(launcher, tmp_path / "whole", options)
    options["resume_from_checkpoint"] = "last"
    rng, killed = random.Random(0), tmp_path / "killed"
    for _ in range(times):
        done = int(checkpoints_of(killed)[-1].name.rpartition("-")[2]) if checkpoints_of(killed) else 0
        process, at = start(launcher, killed, options), done + rng.randint(1, 5)
        deadline = time.monotonic() + SECONDS
        while not (rows := read_log(killed)) or rows[-1]["step"] < at:
            assert time.monotonic() < deadline
            assert process.poll() is None, (killed / "output.txt").read_text(encoding="utf-8")[-3000:]
            time.sleep(rng.uniform(0, 0.02))
        kill_all(process)
    run(launcher, killed, options)
    expected, found = weights(tmp_path / "whole"), weights(killed)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    # fp16 may skip a step: its row has no loss
    losses = [{row["step"]: row.get("loss") for row in read_log(folder)} for folder in (tmp_path / "whole", killed)]
    assert losses[0] == losses[1]


def kill_all(process: subprocess.Popen) -> None:
    """Also those that the launcher started: each is in a session of its own, and would go on."""
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        one.kill()
    process.wait()


@pytest.mark.slow
def test_sigterm_to_all_processes_leaves_a_checkpoint_and_exit_code_0(tmp_path):
    options = {"max_steps": 100_000, "num_workers": 2}
    process = start(ALONE, tmp_path, options)
    while not read_log(tmp_path):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(SECONDS) == 0
    (checkpoint,) = checkpoints_of(tmp_path)
    AutoModel.from_pretrained(checkpoint)


def one_process_a_task(folders: list[Path], options: dict) -> list[subprocess.Popen]:
    """Two processes without a launcher above them, as srun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    return [
        start(ALONE, folder, options, RANK=str(rank), LOCAL_RANK=str(rank), **together)
        for rank, folder in enumerate(folders)
    ]


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_ends_both_with_a_checkpoint_and_exit_code_0(tmp_path):
    processes = one_process_a_task([tmp_path, tmp_path], {"max_steps": 100_000})
    while not read_log(tmp_path):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    processes[1].terminate()
    assert [process.wait(SECONDS) for process in processes] == [0, 0]
    (checkpoint,) = checkpoints_of(tmp_path)
    AutoModel.from_pretrained(checkpoint)


@pytest.mark.slow
def test_processes_with_folders_of_their_own_are_an_error_before_the_training(tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    processes = one_process_a_task(folders, {"save_steps": 2})
    assert all(process.wait(SECONDS) for process in processes)
    for folder in folders:
        assert "every process must see the same" in (folder / "output.txt").read_text(encoding="utf-8")
        assert {path.name for path in folder.iterdir()} == {"output.txt"}
