"""`rocbert pretrain`: from options to a saved model, stopped, resumed and repeated as users do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from rocbert_hf import RoCBertConfig, RoCBertForCausalLM, RoCBertForPreTraining, RoCBertTokenizer
from rocbert_hf.attacks import CausalLMScorer
from rocbert_hf.configuration_rocbert import PRESETS
from rocbert_hf.files import locked_folder
from rocbert_hf.glyphs.features import GlyphEncoder, save_glyph_features
from rocbert_hf.hub import model_card
from rocbert_hf.options import CONFIGS, parse_options
from rocbert_hf.pretraining import PretrainingArguments, read_log
from rocbert_hf.pretraining.run import RunOptions
from rocbert_hf.pretraining.trainer import RoCBertPretrainer
from rocbert_hf.resources import demo_sentences

from ..command_line import rocbert

SHIPPED = Path(__file__).parents[2] / "models" / "rocbert-small-zh"
SMALL = "num_hidden_layers=1,hidden_size=32,num_attention_heads=2,intermediate_size=64,hidden_dropout_prob=0"
QUICK = ["--max-steps", 2, "--held-out", 20, "--batch-size", 16, "--max-length", 32, "--report-to", "none"]
QUICK += ["--config-overrides", SMALL, "--no-baseline"]


def pretrained(folder: Path, *flags) -> dict:
    """The results of a quick run."""
    outcome = rocbert("pretrain", *QUICK, "--output-dir", folder, *flags)
    assert outcome.exit_code == 0, outcome.stderr
    return json.loads((folder / "all_results.json").read_text(encoding="utf-8"))


def refused(folder: Path, *flags) -> str:
    """What a run that is refused says."""
    outcome = rocbert("pretrain", *QUICK, "--output-dir", folder, *flags)
    assert outcome.exit_code in (1, 2)
    assert outcome.stderr.startswith("error: ")
    return outcome.stderr


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished run of two steps with a checkpoint of each; copy it before you change it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    pretrained(folder, "--save-steps", 1)
    return folder


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_it_trains_compares_saves_and_fills_a_mask(tmp_path):
    outcome = rocbert("pretrain", *QUICK, "--baseline", "--output-dir", tmp_path / "model")
    assert outcome.exit_code == 0, outcome.stderr
    for words in ("RoCBERT", "plain BERT", "retrieval by [CLS]", "-vis-pretrain", "masked:", "filled:"):
        assert words in outcome.stdout
    results = json.loads((tmp_path / "model" / "all_results.json").read_text(encoding="utf-8"))
    for model in ("rocbert", "bert"):
        for when in ("before", "after"):
            assert {"mlm_loss", "contrastive_loss", "retrieval_cls", "retrieval_mean"} <= set(results[model][when])
    assert results["rocbert"]["training"]["steps"] == 2
    assert (tmp_path / "model" / "training_curves.png").stat().st_size > 0
    assert results["bert"]["training"]["seconds"] >= results["rocbert"]["training"]["seconds"]
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "model")
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "model"))
    card = model_card(tmp_path / "model")
    assert "20 sentences were held out" in card
    assert "demonstration corpus" in card


def test_own_text_and_overrides(tmp_path):
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps({"content": f"这是第{i}句话，很短。"}, ensure_ascii=False) + "\n" for i in range(60)),
        encoding="utf-8",
    )
    flags = ["--train-file", tmp_path / "mine.jsonl", "--text-column", "content"]
    results = pretrained(tmp_path / "model", *flags, "--config-overrides", SMALL + ",fusion=concat")
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "model").config.fusion == "concat"
    assert results["arguments"]["text_column"] == "content"
    assert results["arguments"]["train_file"] == [str(tmp_path / "mine.jsonl")]


@pytest.mark.parametrize("name", [*PRESETS, "paper"])
def test_packaged_configs_are_found_by_name_and_by_path(name):
    types = (RunOptions, PretrainingArguments)
    run, arguments = parse_options(types, ["--config", name])
    assert run.preset == ("base" if name == "paper" else name)
    assert parse_options(types, ["--config", str(CONFIGS / f"{name}.yaml")]) == (run, arguments)
    if name == "paper":
        assert run.new_config().fusion_normalization == "linear"
        assert run.new_config().fusion_layer == 1
        assert (arguments.anchor, arguments.negatives, arguments.temperature) == ("clean", "originals", 0.01)


def test_the_paper_differs_from_our_base_in_what_the_reference_lists_alone():
    paper, base = (yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8")) for name in ("paper", "base"))
    assert {key for key in paper.keys() | base.keys() if paper.get(key) != base.get(key)} == {
        "output_dir",
        "config_overrides",
        "anchor",
        "negatives",
    }
    assert paper["config_overrides"] == {"fusion_normalization": "linear"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train-file", "nowhere.txt"], "nowhere.txt"),
        (["--held-out", "5000"], "held-out"),
        (["--preset", "huge"], "--preset must be one of tiny"),
        (["--attacks", "none"], "none"),
        (["--config-overrides", "fusoin=concat"], "fusoin"),
        (["--config-overrides", "hidden_size=big"], "hidden_size, which must be of type int, got 'big'"),
        (["--config-overrides", "hidden_dropout_prob=much"], "hidden_dropout_prob, which must be of type float"),
        (["--train-file", "wikipedia", "tests"], "wikipedia=1; without one is"),
        (["--dry-run-devices", "8xAbacus"], "--dry-run-devices must be of CPU or one of"),
        (["--glyph-features", "nowhere"], "nowhere"),
        (["--model", "/nope"], "/nope"),
        (["--resume", "--overwrite"], "not both"),
        (["--distillation-weight", "2"], "distillation_weight is for distill_from, which is not given; got 2.0"),
        (
            ["--resume", "--resume-from-checkpoint", "run/checkpoint-1"],
            "resume_from_checkpoint run/checkpoint-1, not both",
        ),
        (["--model", SHIPPED, "--channels", "open"], "channels is for an encoder that has none, and"),
        (["--held-out", "1"], "held_out must be at least 2"),
        (["--channels", "open"], "channels is for a model that is converted"),
        (["--config-overrides", "hidden_act=glu"], "hidden_act, which must be one of gelu"),
        (["--config-overrides", "pad_token_id=7"], "config_overrides must leave pad_token_id"),
        (["--config-overrides", "vocab_size=100"], "config_overrides must leave vocab_size"),
    ],
)
def test_bad_options_are_one_error_before_any_training(tmp_path, flags, message):
    error = refused(tmp_path, *flags)
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.json*"))


@pytest.mark.slow
def test_without_options_rocbert_misses_at_most_a_third_as_often_as_bert(tmp_path):
    subprocess.run([sys.executable, "-m", "rocbert_hf", "pretrain"], cwd=tmp_path, check=True)
    results = json.loads((tmp_path / "rocbert-tiny" / "all_results.json").read_text(encoding="utf-8"))
    misses = {model: 1 - results[model]["after"]["retrieval_cls"] for model in ("rocbert", "bert")}
    assert misses["rocbert"] <= misses["bert"] / 3
    assert results["rocbert"]["after"]["mlm_loss"] < results["rocbert"]["before"]["mlm_loss"] - 1
    assert results["rocbert"]["after"]["contrastive_loss"] < results["rocbert"]["before"]["contrastive_loss"] / 3


# -- an output folder that holds a run already


def test_a_finished_model_is_not_replaced_without_overwrite(copied):
    before = files_of(copied)
    assert "--overwrite" in refused(copied)
    assert files_of(copied) == before
    results = pretrained(copied, "--overwrite", "--seed", 7)
    assert results["arguments"]["seed"] == 7
    assert not list(copied.glob("checkpoint-*"))


@pytest.mark.parametrize("chosen", ["last", "checkpoint-1"])
def test_overwrite_does_not_delete_the_checkpoint_to_go_on_from(copied, chosen):
    before = files_of(copied)
    chosen = chosen if chosen == "last" else copied / chosen
    assert "overwrite would delete" in refused(copied, "--overwrite", "--resume-from-checkpoint", chosen)
    assert files_of(copied) == before


def test_a_plain_bert_that_sigterm_cuts_short_is_no_baseline(tmp_path, monkeypatch):
    loader = RoCBertPretrainer._loader

    def terminated(self):
        if self.description == "plain BERT":
            os.kill(os.getpid(), signal.SIGTERM)
        return loader(self)

    monkeypatch.setattr(RoCBertPretrainer, "_loader", terminated)
    long = "max_position_embeddings=600"  # for which BERT must have positions too
    overrides = ["--config-overrides", f"{SMALL},{long}", "--max-length", 600]
    results = pretrained(tmp_path / "model", "--baseline", *overrides)
    assert "bert" not in results
    assert "after" in results["rocbert"]
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "model").config.max_position_embeddings == 600


def test_a_finished_run_resumes_to_itself(copied):
    before = files_of(copied)
    outcome = rocbert("pretrain", *QUICK, "--output-dir", copied, "--resume", "--logging-steps", 1)
    assert outcome.exit_code == 0, outcome.stderr
    assert "finished: nothing to do" in outcome.stdout
    assert files_of(copied) == before


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--attacks", "wild"], "attacks was"),
        (["--learning-rate", "2e-3"], "learning_rate was 0.001, now 0.002"),
        (["--temperature", "0.5"], "temperature"),
        (["--objective", "mlm_only"], "objective"),
        (["--negatives", "both"], "negatives"),
        (["--gradient-cache"], "gradient_cache"),
        (["--channel-learning-rate", "2e-3"], "channel_learning_rate"),
    ],
)
@pytest.mark.parametrize("steps", [2, 3], ids=["finished", "longer"])
def test_a_run_goes_on_only_with_the_options_that_shape_its_result(copied, steps, flags, named):
    before = files_of(copied)
    assert named in refused(copied, "--resume", "--max-steps", steps, *flags)
    assert files_of(copied) == before


def test_a_run_goes_on_only_with_the_same_model(copied):
    overrides = SMALL.replace("hidden_dropout_prob=0", "hidden_dropout_prob=0.1")
    error = refused(copied, "--resume", "--max-steps", 3, "--config-overrides", overrides)
    assert "hidden_dropout_prob was 0.0, now 0.1" in error


def test_a_run_goes_on_from_its_last_checkpoint_and_may_become_longer(copied):
    results = pretrained(copied, "--resume", "--max-steps", 3, "--logging-steps", 1, "--num-workers", 1)
    assert results["rocbert"]["training"]["steps"] == 3
    assert [row["step"] for row in read_log(copied)][-1] == 3


def test_without_a_checkpoint_resume_does_not_train_over_a_finished_model(copied):
    for checkpoint in copied.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    before = files_of(copied)
    assert "no checkpoint to go on from" in refused(copied, "--resume", "--max-steps", 3)
    assert files_of(copied) == before


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "trainer_state.json", "process-00000.json"]
)
def test_a_cut_off_checkpoint_is_named_and_the_newest_whole_one_taken(copied, caplog, name):
    cut = copied / "checkpoint-2" / name
    os.truncate(cut, cut.stat().st_size // 2)
    results = pretrained(copied, "--resume", "--max-steps", 3)
    assert results["rocbert"]["training"]["steps"] == 3
    assert str(cut) in caplog.text
    assert f"going on from {copied / 'checkpoint-1'}" in caplog.text


def test_without_a_whole_checkpoint_nothing_begins(copied):
    for checkpoint in copied.glob("checkpoint-*"):
        (checkpoint / "optimizer.safetensors").unlink()
    error = refused(copied, "--resume", "--max-steps", 3)
    assert "no checkpoint is whole" in error
    assert "checkpoint-2/optimizer.safetensors" in error


def test_two_runs_do_not_share_a_folder(tmp_path):
    tmp_path.joinpath("run").mkdir()
    with locked_folder(tmp_path / "run"):
        assert "another process is writing" in refused(tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    pretrained(tmp_path / "run")


# -- what a run starts from


def test_a_run_starts_from_a_checkpoint_with_its_own_vocabulary_and_configuration(tmp_path):
    torch.manual_seed(5)
    config = RoCBertConfig(
        num_hidden_layers=1,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        fusion="sum",
        initializer_range=0.1,
    )
    model = RoCBertForPreTraining(config)
    model.save_pretrained(tmp_path / "source")
    RoCBertTokenizer().save_pretrained(tmp_path / "source")
    flags = ["--model", tmp_path / "source", "--learning-rate", "1e-9", "--config-overrides"]
    pretrained(tmp_path / "more", *flags, "hidden_dropout_prob=0")
    ours = RoCBertForPreTraining.from_pretrained(tmp_path / "more")
    assert (ours.config.fusion, ours.config.hidden_dropout_prob) == ("sum", 0.0)
    for name, tensor in model.state_dict().items():
        assert torch.allclose(ours.state_dict()[name], tensor, atol=1e-6), name
    assert "must leave the weights" in refused(tmp_path / "other", *flags, "fusion=concat")


def test_a_run_starts_from_what_convert_reads(tmp_path):
    torch.manual_seed(5)
    characters = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted({*"".join(demo_sentences())})]
    config = BertConfig(
        vocab_size=len(characters), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(characters) + "\n", encoding="utf-8")
    pretrained(tmp_path / "more", "--model", tmp_path / "bert", "--config-overrides", "hidden_dropout_prob=0")
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / "more").config.model_type == "rocbert"


def test_glyph_features_are_taken_in_and_recorded(tmp_path):
    config = RoCBertConfig(hidden_size=32, num_attention_heads=2)
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(config.shape_vocab_size, 512))).float()
    encoder = GlyphEncoder(torch.nn.Identity(), 32, seed=1)
    save_glyph_features(tmp_path / "glyphs", encoder, features, {"arguments": {"weights": "imagenet"}}, backbone=False)
    results = pretrained(tmp_path / "run", "--glyph-features", tmp_path / "glyphs", "--save-steps", 1)
    for folder in (tmp_path / "run", tmp_path / "run" / "checkpoint-2"):
        recorded = AutoModelForMaskedLM.from_pretrained(folder).config.glyph_features
        assert (recorded["name"], recorded["arguments"]) == ("glyphs", {"weights": "imagenet"})
        weights = load_file(folder / "model.safetensors")
        assert torch.equal(weights["roc_bert.embeddings.shape_embed.weight"], features)
    assert results["arguments"]["glyph_features"] == recorded
    assert "glyphs" in model_card(tmp_path / "run")
    assert "seed" not in refused(tmp_path / "run", "--resume", "--max-steps", 3)  # other glyph features: another model
    assert "glyph_features was {'name': 'glyphs'" in refused(tmp_path / "run", "--resume")  # of a finished run too
    (tmp_path / "glyphs").rename(tmp_path / "others")
    assert "now {'name': 'others'" in refused(tmp_path / "run", "--resume", "--glyph-features", tmp_path / "others")
    (tmp_path / "others").rename(tmp_path / "glyphs")
    flags = ["--output-dir", tmp_path / "run", "--resume", "--glyph-features", tmp_path / "glyphs", "--save-steps", 1]
    assert "finished: nothing to do" in rocbert("pretrain", *QUICK, *flags).stdout


# -- what it would need, and stops of any kind


@pytest.mark.parametrize("name", ["mini", "base"])
def test_a_dry_run_says_what_a_run_would_need_and_does_nothing(tmp_path, name):
    flags = ["--config", name, "--dry-run", "--dry-run-devices", "64xV100", "--output-dir", tmp_path / "none"]
    printed = rocbert("pretrain", *flags).stdout
    for words in ("parameters", "sentences", "weights", "gradients", "V100"):
        assert words in printed
    assert not (tmp_path / "none").exists()


def test_a_dry_run_from_a_checkpoint_counts_that_model(tmp_path):
    config = RoCBertConfig.from_preset("tiny", num_hidden_layers=3, hidden_size=64)
    model = RoCBertForPreTraining(config)
    model.save_pretrained(tmp_path / "source")
    RoCBertTokenizer().save_pretrained(tmp_path / "source")
    flags = ["--dry-run", "--dry-run-devices", "1xCPU", "--max-length", 32, "--batch-size", 2]
    assert f"{model.num_parameters():,}" in rocbert("pretrain", *flags, "--model", tmp_path / "source").stdout
    assert "/nope" in rocbert("pretrain", *flags, "--model", "/nope").stderr


def command(folder: Path, *flags) -> list[str]:
    return [
        sys.executable,
        "-m",
        "rocbert_hf",
        "pretrain",
        *map(str, QUICK),
        "--output-dir",
        str(folder),
        *map(str, flags),
    ]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_interrupting_leaves_nothing_half_written(tmp_path):
    # where the tests themselves run in the background, a child would inherit that SIGINT is ignored
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    endless = command(tmp_path / "model", "--max-steps", 100000)
    with subprocess.Popen(endless, stderr=subprocess.PIPE, text=True, preexec_fn=heed) as process:
        seen = ""
        while "loss=" not in seen:
            new = process.stderr.read(50)
            assert new, seen
            seen += new
        process.send_signal(signal.SIGINT)
        assert "interrupted" in process.stderr.read()
    assert process.returncode == 130
    assert {path.name for path in (tmp_path / "model").iterdir()} <= {"log.jsonl", "runs"}


@pytest.mark.slow
def test_killed_at_random_moments_the_run_ends_as_if_never_stopped(tmp_path):
    flags = ["--max-steps", 40, "--save-steps", 1, "--logging-steps", 1]
    subprocess.run(command(tmp_path / "whole", *flags), check=True, capture_output=True)
    moments = np.random.default_rng(0)
    began = time.perf_counter()
    killed = 0
    while killed < 20:
        process = subprocess.Popen(command(tmp_path / "killed", *flags, "--resume"), stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=float(moments.uniform(1.0, 20.0)))
            assert process.returncode == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        assert time.perf_counter() - began < 1800
    subprocess.run(command(tmp_path / "killed", *flags, "--resume"), check=True, capture_output=True)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}


def test_attacks_come_from_a_file_and_a_language_model_scores_whole_batches(tmp_path, monkeypatch):
    torch.manual_seed(0)
    config = RoCBertConfig(
        num_hidden_layers=1,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        fusion_layer=0,
        is_decoder=True,
    )
    RoCBertForCausalLM(config).save_pretrained(tmp_path / "lm")
    RoCBertTokenizer().save_pretrained(tmp_path / "lm")
    keys = {"attacks": {"split": 2.0, "insert": 1.0}, "ratio": 0.3, "q": 1.0, "scorer": str(tmp_path / "lm")}
    (tmp_path / "attacks.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    asked = []
    losses = CausalLMScorer.losses
    monkeypatch.setattr(
        CausalLMScorer, "losses", lambda self, sentences: asked.append(len(sentences)) or losses(self, sentences)
    )
    results = pretrained(tmp_path / "run", "--attacks", tmp_path / "attacks.yaml", "--batch-size", 8)
    assert results["arguments"]["attacks"].items() >= keys.items()
    assert asked.count(8) >= 2  # the two steps' batches, each in one call
    assert "`split`" in model_card(tmp_path / "run")
    assert "cannot be copied to other processes" in refused(
        tmp_path / "other", "--attacks", tmp_path / "attacks.yaml", "--num-workers", 1
    )
