"""What a pretraining run will need, before it is started: parameters, memory, arithmetic, days.

Nothing is assumed about the architecture. Parameters are counted on a model without memory; arithmetic and activations
are counted in passes of one or two sentences through models of few layers, since both grow by the same amount with each
layer and each sentence.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Group
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from ..acceleration_rocbert import RoCBertEncoderAttention
from ..configuration_rocbert import RoCBertConfig
from ..modeling_rocbert import RoCBertForPreTraining
from .arguments import PretrainingArguments
from .devices import PEAK_FLOPS
from .masking import IGNORED_LABEL

# Memory of a device, bytes; H100 is the SXM one. "A100" also exists with 40 GB.
DEVICE_MEMORY = {
    name: gigabytes * 1e9
    for name, gigabytes in {
        "H200": 141, "H100": 80, "H100 PCIe": 80, "A100": 80, "A800": 80, "A40": 48, "A10": 24, "L40S": 48, "L4": 24,
        "V100": 32, "T4": 16, "RTX 4090": 24, "RTX 3090": 24,
    }.items()
}  # fmt: skip
MFU = 0.4  # share of the peak that training is taken to reach; the progress bar shows what a run does reach
SENTENCES_A_WORKER = 1500  # of 50 characters, that one core of a Xeon attacks, tokenizes and masks a second
CORRECTED_SHARE = 0.1  # of the tokens of an attacked sentence are to be corrected
SETUPS = {  # name -> ZeRO stage, optimizer state in CPU memory
    "plain": (0, False),
    "ZeRO-1": (1, False),
    "ZeRO-1, offloaded": (1, True),
}


@dataclass(frozen=True)
class Memory:
    """Bytes per device, and `host`: bytes of CPU memory that each process holds instead."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    host: float = 0.0

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class RunEstimate:
    """What `estimate` found; printed by rich as tables.

    parameters, trainable: of the model; the difference is frozen (the glyph table).
    precision: of the arithmetic, "no" being float32.
    memory: by setup, see `SETUPS`.
    flops: floating point operations of an optimizer step, all processes together.
    sentences, tokens: of an optimizer step, all processes together; the tokens of the sentences, without their other
        views.
    steps: of the run; None if the clock ends it.
    num_processes, device: one process has one device of this kind.
    mfu: the share of the device's peak that training is taken to reach.
    """

    parameters: int
    trainable: int
    precision: str
    memory: dict[str, Memory]
    flops: int
    sentences: int
    tokens: int
    steps: int | None
    num_processes: int
    device: str
    mfu: float

    def seconds_per_step(self, device: str | None = None, num_processes: int | None = None) -> float:
        """Seconds per optimizer step on this many devices of a kind (default: those of the run); NaN if not known."""
        peak = PEAK_FLOPS.get(device or self.device, {}).get(self.precision)
        return self.flops / (peak * self.mfu * (num_processes or self.num_processes)) if peak else math.nan

    def tokens_per_second(self) -> float:
        """What the devices will ask of the data, all processes together."""
        return self.tokens / self.seconds_per_step()

    def workers(self) -> float:
        """DataLoader workers per process that this takes."""
        return self.sentences / self.seconds_per_step() / self.num_processes / SENTENCES_A_WORKER

    def days(self, device: str | None = None, num_processes: int | None = None) -> float:
        return (self.steps or math.nan) * self.seconds_per_step(device, num_processes) / 86400

    def __rich__(self) -> Group:
        run = Table(title=f"the run, on {self.num_processes} x {self.device}", title_justify="left", show_header=False)
        run.add_column()
        run.add_column(justify="right")
        run.add_row("parameters", f"{self.parameters:,}")
        run.add_row("of these trained", f"{self.trainable:,}")
        precision = {"no": "float32"}.get(self.precision, self.precision)
        run.add_row("precision", precision)
        run.add_row("sentences per step", f"{self.sentences:,}")
        run.add_row("tokens per step", f"{self.tokens:,}")
        run.add_row("arithmetic per step", f"{_short(self.flops / 1e12)} TFLOP")
        if self.steps:
            run.add_row("steps", f"{self.steps:,}")
            run.add_row("tokens of the run", f"{_short(self.steps * self.tokens / 1e9)} billion")
        if math.isfinite(self.seconds_per_step()):
            run.add_row("seconds per step", _short(self.seconds_per_step()))
            run.add_row("tokens per second needed", f"{self.tokens_per_second():,.0f}")
            run.add_row("DataLoader workers / process", f"{max(1, math.ceil(self.workers()))}")

        capacity = DEVICE_MEMORY.get(self.device, math.inf)
        of = f" of {capacity / 1e9:.0f} GB" if capacity < math.inf else ""
        memory = Table(title=f"memory of one {self.device}{of}, in GB", title_justify="left")
        memory.add_column()
        for name in self.memory:
            memory.add_column(name, justify="right")
        for part in ("weights", "gradients", "optimizer", "activations"):
            memory.add_row(part, *(f"{getattr(needed, part) / 1e9:.2f}" for needed in self.memory.values()))
        memory.add_section()
        totals = [needed.total for needed in self.memory.values()]
        memory.add_row(
            "together", *(f"{total / 1e9:.2f}" + " (too much)" * (total > capacity) for total in totals), style="bold"
        )
        memory.add_row("in CPU memory", *(f"{needed.host / 1e9:.2f}" for needed in self.memory.values()))
        tables = [run, memory]
        if self.steps:
            days = Table(title=f"days at {self.mfu:.0%} of the peak in {precision}", title_justify="left")
            days.add_column("devices")
            counts = sorted({1, 8, 64, self.num_processes})
            for count in counts:
                days.add_column(f"{count}", justify="right")
            for device in PEAK_FLOPS:
                if self.precision in PEAK_FLOPS[device]:
                    wanted = (self.days(device, count) for count in counts)
                    days.add_row(device, *(_short(number) if number >= 0.01 else "< 0.01" for number in wanted))
            tables.append(days)
        return Group(*tables)


def estimate(
    config: RoCBertConfig,
    arguments: PretrainingArguments,
    num_processes: int = 1,
    device: str = "A100",
    mean_length: int | None = None,
    mfu: float = MFU,
) -> RunEstimate:
    """What a run needs.

    Args:
        config: of the model, a `RoCBertForPreTraining`.
        arguments: of the run. `mixed_precision="auto"` is bf16 where the device has it, else fp16, and float32 on a CPU.
        num_processes: one per device.
        device: a key of `devices.PEAK_FLOPS`, or "CPU", for which there are no times.
        mean_length: tokens of the corpus' sentences, [CLS] and [SEP] included, from which times follow; default,
            `max_length`. Memory is always that of a batch of the longest.
        mfu: the share of the device's peak that training reaches.

    Raises:
        ValueError: the device is not known or does not have the precision, sentences are longer than the model's
            positions, or a number is out of range.
    """
    if device != "CPU" and device not in PEAK_FLOPS:
        raise ValueError(f"device must be CPU or one of {', '.join(PEAK_FLOPS)}, got {device!r}")
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu must lie between 0 and 1, got {mfu}")
    if num_processes < 1:
        raise ValueError(f"num_processes must be at least 1, got {num_processes}")
    absolute = config.position_embedding_type == "absolute"
    if absolute and arguments.max_length > config.max_position_embeddings:
        raise ValueError(
            f"max_length must be at most the model's max_position_embeddings, {config.max_position_embeddings}, got "
            f"{arguments.max_length}"
        )
    length = arguments.max_length if mean_length is None else min(mean_length, arguments.max_length)
    precision = _precision(arguments.mixed_precision, device)
    passes = arguments.accumulation(num_processes)
    with torch.device("meta"):
        model = RoCBertForPreTraining(config)
    sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    trainable, parameters = sum(sizes), model.num_parameters()
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    activations = activation_bytes(config, arguments, arguments.batch_size, arguments.max_length, precision, device)
    return RunEstimate(
        parameters=parameters,
        trainable=trainable,
        precision=precision,
        memory={
            name: _memory(parameters, trainable, buffers, activations, precision, num_processes, stage, offload)
            for name, (stage, offload) in SETUPS.items()
            if stage == 0 or precision != "no"
        },
        flops=step_flops(config, arguments, arguments.batch_size, length, num_processes) * passes * num_processes,
        sentences=arguments.batch_size * passes * num_processes,
        tokens=arguments.batch_size * passes * num_processes * length,
        steps=arguments.max_steps,
        num_processes=num_processes,
        device=device,
        mfu=mfu,
    )


def step_flops(
    config: RoCBertConfig, arguments: PretrainingArguments, rows: int, length: int, num_processes: int = 1
) -> int:
    """Floating point operations of one forward and backward pass of one process: matrix products, as torch counts them.

    What gradient checkpointing and the gradient cache compute again is included, the encoder of `distill_from` is not.

    Args:
        rows, length: sentences of the batch, tokens of each.
    """

    # of one anchor and positive, forwards and backwards; and forwards once more
    of_one_product = (8 if arguments.gradient_cache else 6) * config.hidden_size
    similarities = of_one_product * (_views(arguments) - 1)  # of the model's own loss, which is counted with it
    model = _small_model(config, dropout=False, attention="eager")
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable()

    def counted(rows: int) -> int:
        batch = example_batch(config, arguments, rows, length)
        with FlopCounterMode(display=False) as counter:
            model(**batch).loss.backward()
        flops = counter.get_total_flops()
        if arguments.gradient_cache:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model(**batch)
            flops += counter.get_total_flops()
        return flops - rows * rows * similarities

    def of_all_rows() -> int:
        return _grown(counted, (1, 2), rows)

    # what the model fills masked tokens up with goes through the head's two matrices
    one = example_batch(config, arguments, 1, length)
    labelled = [rows * int((one[name] != IGNORED_LABEL).sum()) for name in ("labels", "attack_labels") if name in one]
    filling = sum(-count % RoCBertForPreTraining.kernel_rows for count in labelled)
    of_one = (8 if arguments.gradient_cache else 6) * config.hidden_size * (config.hidden_size + config.vocab_size)
    return (
        _of_all_layers(of_all_rows, model, config)
        + filling * of_one
        + rows * rows * num_processes * of_one_product * _products(arguments)
    )


def activation_bytes(
    config: RoCBertConfig, arguments: PretrainingArguments, rows: int, length: int, precision: str, device: str
) -> int:
    """Bytes that autograd keeps of a forward pass for the backward pass.

    On a GPU layer norms compute in float32 under autocast; on a CPU attention with dropout or in half
    precision keeps its weights.

    Args:
        rows, length: sentences of the batch, tokens of each.
    """
    everything = _ActivationCount(config, arguments, length, precision, on_gpu=device != "CPU")
    saved = _of_all_layers(lambda: everything.of(rows), everything.model, config)
    if not arguments.gradient_checkpointing:
        return saved
    # All layers but the last keep only their input, and one of them at a time computes the rest again. What the last one
    # and the heads kept is free by then, which is not counted on.
    deeper = copy.deepcopy(config)
    deeper.num_hidden_layers = max(config.num_hidden_layers, config.fusion_layer + 2)
    count = _ActivationCount(deeper, arguments, length, precision, on_gpu=device != "CPU")
    layers = len(count.model.base_model.encoder.layer)
    a_layer = count.of(rows) - _with_layers(count.model, layers - 1, lambda: count.of(rows))
    inputs = rows * _views(arguments) * length * config.hidden_size * 4
    return saved - (config.num_hidden_layers - 1) * (a_layer - inputs) + a_layer


class _ActivationCount:
    """Counts what autograd keeps, in a model of few layers; see `activation_bytes`."""

    def __init__(
        self, config: RoCBertConfig, arguments: PretrainingArguments, length: int, precision: str, on_gpu: bool
    ):
        self.config, self.arguments, self.length, self.precision = config, arguments, length, precision
        self.dropped = 0
        # what these GPU kernels keep is what sdpa keeps: queries, keys, values, the output and one number per query
        on_gpu_alone = any(kernel in arguments.attn_implementation for kernel in ("flash", "flex"))
        attention = "sdpa" if on_gpu_alone else arguments.attn_implementation
        self.model = _small_model(config, dropout=not on_gpu, attention=attention)
        for module in self.model.modules():
            if on_gpu and isinstance(module, RoCBertEncoderAttention):
                module.eval()  # no GPU computes it as a CPU in training does
            if on_gpu and isinstance(module, torch.nn.Dropout) and config.hidden_dropout_prob:
                module.register_forward_hook(self._count_dropped)
            if on_gpu and precision != "no" and isinstance(module, torch.nn.LayerNorm):
                module.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(), *inputs[1:]))

    def of(self, rows: int) -> int:
        """Bytes of a batch of so many sentences."""
        return _grown(self._measured, (1, 2), rows)

    def _measured(self, rows: int) -> int:
        self.dropped = 0
        batch = example_batch(self.config, self.arguments, rows, self.length)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision != "no"):
            return saved_bytes(self.model, lambda: self.model(**batch).loss) + self.dropped

    def _count_dropped(self, module, inputs, output) -> None:
        self.dropped += output.numel()


def saved_bytes(model: torch.nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes of all tensors but the model's own that autograd saves during `forward`, each storage once."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, torch.UntypedStorage] = {}  # keeps them alive, so that no address comes twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in found.values())


def example_batch(
    config: RoCBertConfig, arguments: PretrainingArguments, rows: int, length: int
) -> dict[str, torch.Tensor | bool]:
    """A batch of the objective's views and labels, all sentences of one length, (rows, length) each; and, with distillation,
    that the model is to return sentence vectors, for which it computes the last layer everywhere."""
    sizes = {
        "input_ids": config.vocab_size,
        "input_shape_ids": config.shape_vocab_size,
        "input_pronunciation_ids": config.pronunciation_vocab_size,
    }
    view = {name: torch.arange(rows * length).view(rows, length) % (size - 5) + 5 for name, size in sizes.items()}
    view["attention_mask"] = torch.ones(rows, length, dtype=torch.long)
    view["token_type_ids"] = torch.zeros(rows, length, dtype=torch.long)
    batch = dict(view)
    batch["labels"] = _labelled(view["input_ids"], _labels_a_row(arguments, length))
    if _views(arguments) > 1:
        batch |= {f"attack_{name}": ids for name, ids in view.items()}
    if _views(arguments) > 2:
        batch |= {f"labels_{name}": ids for name, ids in view.items()}
    if arguments.correct_attacked:
        batch["attack_labels"] = _labelled(view["input_ids"], round(CORRECTED_SHARE * (length - 2)))
    if arguments.distill_from is not None:
        batch["return_sentence_vectors"] = True
    return batch


def _short(number: float) -> str:
    """Two digits at least, and all digits before the point."""
    return f"{number:,.0f}" if abs(number) >= 99.5 else f"{number:.2g}"


def _labelled(ids: torch.Tensor, count: int) -> torch.Tensor:
    """-100 but for `count` tokens of each row, after [CLS]."""
    labels = torch.full_like(ids, -100)
    labels[:, 1 : 1 + count] = ids[:, 1 : 1 + count]
    return labels


def _labels_a_row(arguments: PretrainingArguments, length: int) -> int:
    if arguments.objective == "contrastive_only":
        return 0
    share = arguments.mlm_probability
    if arguments.objective == "correction":  # what was masked, and of the others what was attacked
        share += (1 - share) * CORRECTED_SHARE
    return round(share * (length - 2))


def _views(arguments: PretrainingArguments) -> int:
    if not arguments.contrasts:
        return 1
    return 2 if arguments.anchor == "masked" else 3


def _products(arguments: PretrainingArguments) -> int:
    """Similarities of a sentence to each of the batch that the contrastive loss takes."""
    if not arguments.contrasts:
        return 0
    return (2 if arguments.anchor == "both" else 1) * (2 if arguments.negatives == "both" else 1)


def _grown(measure: Callable[[int], int], measured: tuple[int, int], wanted: int) -> int:
    """What `measure` would give for `wanted`, from what it gives for two numbers, as it grows by the same each time."""
    first, second = (measure(number) for number in measured)
    return first + (second - first) * (wanted - measured[0]) // (measured[1] - measured[0])


def _small_model(config: RoCBertConfig, dropout: bool, attention: str) -> RoCBertForPreTraining:
    """A model of the same kind with so few layers that one more adds what every further one adds.

    They are those up to the fusion's, one behind it, the last one, which computes less than the others, and the one more.
    """
    config = copy.deepcopy(config)
    config.num_hidden_layers = min(config.num_hidden_layers, config.fusion_layer + 2)
    if not dropout:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config._attn_implementation = attention
    config.use_cache = False  # it would warn
    with torch.random.fork_rng(devices=[]):
        model = RoCBertForPreTraining(config).train()
    model.kernel_rows = 1  # so that each further sentence adds what the one before it added
    return model


def _of_all_layers(measure: Callable[[], int], model: RoCBertForPreTraining, config: RoCBertConfig) -> int:
    """What `measure` would give for all layers of the configuration, from what it gives for those of `model`."""
    layers = len(model.base_model.encoder.layer)
    if layers == config.num_hidden_layers:
        return measure()
    return _grown(lambda layers: _with_layers(model, layers, measure), (layers - 1, layers), config.num_hidden_layers)


def _with_layers(model: RoCBertForPreTraining, layers: int, measure: Callable[[], int]) -> int:
    """What `measure` gives while the model has its first `layers` layers only."""
    encoder = model.base_model.encoder
    everything = encoder.layer
    encoder.layer = everything[:layers]
    try:
        return measure()
    finally:
        encoder.layer = everything


def _memory(
    parameters: int,
    trainable: int,
    buffers: int,
    activations: int,
    precision: str,
    num_processes: int,
    stage: int,
    offload: bool,
) -> Memory:
    """Bytes per device: AdamW in float32, and under ZeRO weights and gradients in 16 bits beside a float32 copy."""
    if stage == 0:
        return Memory(4 * parameters + buffers, 4 * trainable, 8 * trainable, activations)
    # a float32 copy, two moments, and while the step is made the gradients in float32: all of this process's share
    share = (4 + 8 + 4) * trainable / num_processes
    weights, gradients = 2 * parameters + buffers, 2 * trainable
    return Memory(weights, gradients, 0.0 if offload else share, activations, share if offload else 0.0)


def _precision(requested: str, device: str) -> str:
    if device == "CPU":
        return "no" if requested == "auto" else requested
    peaks = PEAK_FLOPS[device]
    if requested == "auto":
        return "bf16" if "bf16" in peaks else "fp16"
    if requested not in peaks:
        raise ValueError(f"mixed_precision {requested}: {device} has none; it has {', '.join(peaks)}")
    return requested
