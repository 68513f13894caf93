"""What a device can do: which precision and attention to train with, and how much arithmetic per second it has at most."""

import importlib.util
import os
import re
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from transformers import PreTrainedConfig

from ..configuration_rocbert import RoCBertConfig
from .arguments import PretrainingArguments

# Dense floating point operations a second without sparsity, from the vendors' data sheets, by words in what
# `torch.cuda.get_device_name` says; the more special name first.
PEAK_FLOPS = {
    "H200": {"bf16": 989e12, "fp16": 989e12, "no": 67e12},
    "H100 PCIe": {"bf16": 756e12, "fp16": 756e12, "no": 51e12},
    "H100": {"bf16": 989e12, "fp16": 989e12, "no": 67e12},
    "A100": {"bf16": 312e12, "fp16": 312e12, "no": 19.5e12},
    "A800": {"bf16": 312e12, "fp16": 312e12, "no": 19.5e12},
    "A40": {"bf16": 150e12, "fp16": 150e12, "no": 37e12},
    "A10": {"bf16": 125e12, "fp16": 125e12, "no": 31e12},
    "L40S": {"bf16": 362e12, "fp16": 362e12, "no": 91e12},
    "L4": {"bf16": 121e12, "fp16": 121e12, "no": 30e12},
    "V100": {"fp16": 125e12, "no": 15.7e12},
    "T4": {"fp16": 65e12, "no": 8.1e12},
    "RTX 4090": {"bf16": 165e12, "fp16": 165e12, "no": 82e12},
    "RTX 3090": {"bf16": 71e12, "fp16": 71e12, "no": 36e12},
}
# Words that make a name that of another device, or of a part of one.
OTHER_DEVICES = re.compile(r"\b(D|GRID|Laptop|MIG|NVL|SUPER|Ti)\b", re.IGNORECASE)


def peak_flops(device_name: str, precision: str) -> float | None:
    """Floating point operations per second of a device; None if they are not known."""
    if OTHER_DEVICES.search(device_name):
        return None
    for name, peaks in PEAK_FLOPS.items():
        if re.search(rf"\b{name}\b", device_name):
            return peaks.get(precision)
    return None


def training_flops(config: PreTrainedConfig, rows: int, length: int, predicted: int) -> int:
    """Floating point operations of a forward and backward pass: two per weight and token forwards, four backwards.

    Counted are the matrices of encoder, fusion and prediction head, and attention's two products; not what gradient
    checkpointing or the gradient cache compute again, as is usual for model FLOPs utilization (PaLM, appendix B). Of the
    last layer, which RoCBERT computes only where its output is read, that is [CLS] and the predicted tokens, as they
    are without padding.

    Args:
        rows, length: of the batch that goes through the encoder: all views, padding included.
        predicted: tokens whose vocabulary logits are computed.
    """
    hidden, layers, tokens = config.hidden_size, config.num_hidden_layers, rows * length
    keys_and_values = 2 * hidden**2
    others = 2 * hidden**2 + 2 * hidden * config.intermediate_size + 2 * length * hidden  # of a token
    read = rows + predicted if _reads_last_layer_in_part(config) else tokens
    encoder = tokens * (layers * keys_and_values + (layers - 1) * others) + read * others
    head = predicted * (hidden**2 + hidden * config.vocab_size)
    return 6 * (encoder + head) + _fusion_flops(config, tokens)


def _reads_last_layer_in_part(config: PreTrainedConfig) -> bool:
    """Whether the model skips positions of the last layer in pretraining, see `RoCBertModel.forward`."""
    if not isinstance(config, RoCBertConfig) or config._attn_implementation not in (None, "sdpa", "eager"):
        return False
    return config.fusion not in ("layer_insert", "attention") or config.fusion_layer < config.num_hidden_layers


def _fusion_flops(config: PreTrainedConfig, tokens: int) -> int:
    """Of a forward and backward pass of the channels; nothing goes back into the glyph features, which are frozen."""
    if not isinstance(config, RoCBertConfig):
        return 0
    hidden = config.hidden_size
    sound = config.pronunciation_embed_dim * config.enable_pronunciation
    shape = config.shape_embed_dim * config.enable_shape
    channels = 1 + config.enable_pronunciation + config.enable_shape
    match config.fusion:
        case "layer_insert":
            return tokens * hidden * (6 * channels * hidden + 4 * shape) + 6 * channels * hidden**3
        case "attention":
            return tokens * hidden * (6 * (4 * hidden + 2 * sound) + 4 * 2 * shape)
        case "two_step":
            return tokens * hidden * (6 * (channels * (hidden + channels) + sound) + 4 * shape)
        case "concat":
            return tokens * hidden * 6 * (hidden + sound + shape)
    return 0


def choose_precision(requested: str, device: torch.device, name: str, has_bf16: bool) -> tuple[str, str]:
    """The mixed precision to train with, and why.

    Args:
        requested: `PretrainingArguments.mixed_precision`.
        device, name, has_bf16: the kind of device, what it is called, whether it computes in bfloat16.

    Raises:
        ValueError: the device has no arithmetic of the requested kind.
    """
    on_gpu = device.type == "cuda"
    if requested == "auto":
        if not on_gpu:
            return "no", f"{name}: float32"
        if has_bf16:
            return "bf16", f"{name} computes in bfloat16, which needs no loss scaling"
        return "fp16", f"{name} has no bfloat16: float16 with dynamic loss scaling"
    check_precision(requested, name, has_bf16)
    if requested == "fp16" and not on_gpu:
        raise ValueError(f"mixed_precision fp16 needs a GPU or DeepSpeed, and this is {name}; use bf16 or no")
    return requested, f"{name}: as asked"


def check_precision(precision: str, name: str, has_bf16: bool) -> None:
    """
    Raises:
        ValueError: a device of this name computes without bfloat16, and is to train in it.
    """
    if precision == "bf16" and not has_bf16:
        raise ValueError(
            f"mixed_precision bf16: {name} has no bfloat16; use fp16 or auto, or DeepSpeed's config for fp16"
        )


def check_attention(implementation: str, name: str, capability: tuple[int, int] | None) -> str:
    """What computes attention on the device, in words.

    Raises:
        ValueError: the device cannot run it.
    """
    if "flash" in implementation and (capability is None or capability < (8, 0)):
        raise ValueError(
            f"attn_implementation {implementation} needs a GPU of compute capability 8.0 (A100) or later, and this is "
            f"{name}; use sdpa"
        )
    if implementation == "sdpa" and capability is not None and capability < (8, 0):
        return "sdpa (memory-efficient kernels: FlashAttention 2 needs compute capability 8.0)"
    return implementation


def make_accelerator(arguments: PretrainingArguments, output_dir: str | os.PathLike | None = None) -> Accelerator:
    """An `Accelerator` for a run: its precision, accumulation, trackers, and a way for processes to talk on any device.

    Raises:
        ValueError: the device cannot do what is asked, or a tracker is not installed.
    """
    _check_trackers(arguments.trackers)
    in_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    handlers: list = [
        # buffers are constant; a masked language model alone has a pooler that nothing reads
        DistributedDataParallelKwargs(
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=not arguments.contrasts,
        )
    ]
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed, where installed, warns that it must guess
    if in_deepspeed and not torch.cuda.is_available():
        # Accelerate leaves DeepSpeed's processes without a backend on a CPU: each would believe to be alone
        handlers.append(InitProcessGroupKwargs(backend="gloo"))
    precision = None if in_deepspeed else choose_precision(arguments.mixed_precision, *_device())[0]
    check_attention(arguments.attn_implementation, _device()[1], _capability())
    accelerator = Accelerator(
        # else it takes no notice of the other processes
        cpu=processes > 1 and not in_deepspeed and not torch.cuda.is_available(),
        mixed_precision=precision,
        gradient_accumulation_steps=arguments.accumulation(processes),
        kwargs_handlers=handlers,
        log_with=(sorted(arguments.trackers - {"none"}) or None) if output_dir is not None else None,
        project_dir=None if output_dir is None else Path(output_dir) / "runs",
    )
    if in_deepspeed:
        check_precision(accelerator.mixed_precision, *_device()[1:])  # what its config says
    if accelerator.num_processes != processes:
        raise ValueError(
            f"{processes} processes were launched and each believes to be one of {accelerator.num_processes}: launch GPU "
            "runs with accelerate launch, CPU runs with torchrun"
        )
    return accelerator


def describe_devices(accelerator: Accelerator, arguments: PretrainingArguments) -> str:
    """One line for the start of a run: processes, precision, attention, and why."""
    kind = "DistributedDataParallel" if accelerator.num_processes > 1 else "alone"
    if accelerator.distributed_type == "DEEPSPEED":
        stage = accelerator.deepspeed_plugin.zero_stage
        kind = f"DeepSpeed ZeRO stage {stage}"
        why = f"{_device()[1]}: as DeepSpeed's config says"
    else:
        _, why = choose_precision(arguments.mixed_precision, *_device())
    attention = check_attention(arguments.attn_implementation, _device()[1], _capability())
    processes = f"{accelerator.num_processes} process{'es' * (accelerator.num_processes > 1)}"
    precision = {"no": "float32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    return f"{processes} ({kind}), precision {precision} ({why}), attention {attention}"


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def _device() -> tuple[torch.device, str, bool]:
    """This process's kind of device, its name, and whether it computes in bfloat16 (not: emulates it)."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        return device, device_name(device), torch.cuda.get_device_capability(device) >= (8, 0)
    device = torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    return device, device_name(device), True


def _capability() -> tuple[int, int] | None:
    device = _device()[0]
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else None


def _check_trackers(trackers: set[str]) -> None:
    for tracker in sorted(trackers - {"none"}):
        if importlib.util.find_spec(tracker) is None:
            raise ValueError(
                f"report_to {tracker}: the package is not installed. pip install {tracker}, or choose report_to none"
            )
