"""What is known of devices by their names, and the arithmetic of a pass against what torch counts."""

import pytest

from rocbert_hf import RoCBertConfig
from rocbert_hf.pretraining.arguments import PretrainingArguments
from rocbert_hf.pretraining.devices import check_precision, peak_flops, training_flops
from rocbert_hf.pretraining.estimate import example_batch, step_flops

SMALL = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 256}
SMALL |= {"vocab_size": 300, "shape_vocab_size": 300, "pronunciation_vocab_size": 100}
ROWS, LENGTH = 16, 128


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("Tesla V100-SXM2-32GB", 125e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("Tesla T4", 65e12),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA A10G", None),
        ("NVIDIA L40", None),
        ("NVIDIA T400 4GB", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
    ],
)
def test_the_peak_is_that_of_the_device_or_not_known(name, peak):
    assert peak_flops(name, "fp16") == peak


@pytest.mark.parametrize("fusion", ["layer_insert", "attention", "two_step", "concat", "sum", "none"])
@pytest.mark.parametrize(
    "options", [{}, {"anchor": "both"}, {"objective": "mlm_only"}, {"correct_attacked": True}], ids=str
)
def test_arithmetic_of_a_pass_is_what_torch_counts(fusion, options):
    config = RoCBertConfig(num_hidden_layers=4, fusion=fusion, **SMALL)
    check_arithmetic(config, PretrainingArguments(**options))


@pytest.mark.parametrize(
    "options", [{"num_hidden_layers": 2}, {"num_hidden_layers": 3, "enable_shape": False}], ids=str
)
def test_arithmetic_of_shallow_models(options):
    # what a formula of whole layers leaves out weighs more where there are few
    check_arithmetic(RoCBertConfig(**SMALL | options), PretrainingArguments(), tolerance=0.06)


def check_arithmetic(config, arguments, tolerance=0.05):
    batch = example_batch(config, arguments, ROWS, LENGTH)
    rows = sum(ROWS for name in batch if name.endswith("input_ids"))
    predicted = sum(int((batch[name] != -100).sum()) for name in ("labels", "attack_labels") if name in batch)
    counted = step_flops(config, arguments, ROWS, LENGTH)
    assert training_flops(config, rows, LENGTH, predicted) == pytest.approx(
        counted, rel=tolerance
    )  # without the padding of what is read


def test_bfloat16_is_refused_where_there_is_none():
    check_precision("bf16", "NVIDIA A100-SXM4-80GB", True)
    check_precision("fp16", "Tesla V100-SXM2-32GB", False)
    with pytest.raises(ValueError, match="Tesla V100-SXM2-32GB has no bfloat16; use fp16"):
        check_precision("bf16", "Tesla V100-SXM2-32GB", False)
