"""Options of a run: a YAML file, flags that override it, and one clear error for everything else."""

import pytest

from rocbert_hf.options import parse_options
from rocbert_hf.pretraining.arguments import PretrainingArguments


def parse(tmp_path, text, *flags):
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    return parse_options([PretrainingArguments], ["--config", str(tmp_path / "run.yaml"), *flags])[0]


def test_flags_override_the_file_and_the_file_the_defaults(tmp_path):
    arguments = parse(
        tmp_path, "learning_rate: 5e-4\nbatch_size: 8\n", "--batch-size", "16", "--mixed_precision", "bf16"
    )
    assert (arguments.learning_rate, arguments.batch_size, arguments.mixed_precision) == (5e-4, 16, "bf16")
    assert arguments.max_steps == PretrainingArguments().max_steps


def test_a_file_can_leave_the_end_to_the_clock(tmp_path):
    arguments = parse(tmp_path, "max_steps: null\nminutes: 2\n")
    assert (arguments.max_steps, arguments.minutes) == (None, 2.0)


def test_sentences_are_padded_to_multiples_of_eight_in_mixed_precision_only(tmp_path):
    arguments = PretrainingArguments()
    assert [arguments.padding_multiple(precision) for precision in ("no", "bf16", "fp16")] == [1, 8, 8]
    assert PretrainingArguments(max_length=100).padding_multiple("bf16") == 1
    asked = parse(tmp_path, "max_length: 96\n", "--pad-to-multiple-of", "32")
    assert [asked.padding_multiple(precision) for precision in ("no", "bf16")] == [32, 32]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat: 1", "unknown option 'learning_rat'; did you mean 'learning_rate'?"),
        ("colour: 1", "unknown option 'colour'; known are objective, "),
        ("batch_size: many", "run.yaml: batch_size must be a whole number, got 'many'"),
        ("batch_size: 0", "batch_size must be above 0, got 0"),
        ("mixed_precision: fp8", "fp8"),
        ("- 1", "must hold `option: value` lines, got list"),
        ("a: [", "is not valid YAML"),
        ("max_steps: null", "the run would never end"),
        ("batch_size: [8, 16]", "run.yaml: batch_size must be one value of type int, got [8, 16]"),
        ("learning_rate: {a: 1}", "run.yaml: learning_rate must be one value of type float, got {'a': 1}"),
        ("max_steps: [1]", "run.yaml: max_steps must be one value of type int, got [1]"),
        ("learning_rate: null", "run.yaml: learning_rate must have a value, got null"),
        ("seed:", "run.yaml: seed must have a value, got null"),
        ("mixed_precision: no", "run.yaml: mixed_precision must be text, and YAML takes yes, no, on and off for False"),
        ("seed: -1", "seed must lie between 0 and 2**32 - 1, got -1"),
        ("max_length: 2", "max_length must be at least 3"),
        ("mlm_probability: 0\nobjective: mlm_only", "mlm_probability must be above 0 with objective mlm_only"),
        ("mlm_probability: 1", "mlm_probability must be at least 0 and below 1, got 1"),
        ("distill_prefix: 'query: '", "distill_prefix is for distill_from, which is not given"),
        ("objective: correction\nanchor: clean", "anchor and negatives are of a contrastive loss, and objective corr"),
        ("objective: simcse\nnegatives: both", "anchor and negatives are of attacked sentences, and objective simcse"),
    ],
)
def test_bad_options_are_one_clear_error(tmp_path, capsys, text, message):
    with pytest.raises(SystemExit):
        parse(tmp_path, text)
    assert message in capsys.readouterr().err


def test_a_missing_config_file_and_an_unknown_flag(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_options([PretrainingArguments], ["--config", str(tmp_path / "nowhere.yaml")])
    assert "nowhere.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(tmp_path, "seed: 1", "--sed", "2")
    assert "--sed" in capsys.readouterr().err
