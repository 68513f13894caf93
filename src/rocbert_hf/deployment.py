"""
Models for serving: export to ONNX, and int8 weights on the CPU.

`export_onnx` needs the extra `onnx` (`pip install onnx onnxruntime onnxscript`), which is imported only there.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import tempfile
import warnings
from pathlib import Path

import torch
from torch import nn

from .comparison import max_difference, refuse_not_finite
from .modeling_rocbert import RoCBertForMultipleChoice, RoCBertPreTrainedModel

INPUTS = ("input_ids", "input_shape_ids", "input_pronunciation_ids", "attention_mask", "token_type_ids")
OPSET = 18
# protobuf holds no file over 2 GiB; larger weights go into a file beside the graph
LARGEST_FILE = 1_800_000_000


def export_onnx(
    model: RoCBertPreTrainedModel, path: str | os.PathLike, int8: bool = False, tolerance: float = 1e-3
) -> float:
    """
    Writes an encoder or a head to an ONNX file whose batch and sequence (and, for multiple choice, number of choices)
    are dynamic, and runs it in onnxruntime on batches of other sizes to compare it with the model.

    The graph takes what the tokenizer returns, as int64, and gives the head's outputs under their names. It looks the
    fusion's derived tables up, as the model does in evaluation. The logits of a tagger with a CRF are the emissions, which
    `RoCBertCRF.decode` makes tags of.

    Args:
        model: any RoCBERT model but a decoder, in float32 or, without `int8`, float16; it is left as it was.
        path: of the file, `.onnx`. A model over 1.8 GB gets a second file beside it, `.onnx.data`.
        int8: whether to store the weights of matrix products as int8 and quantise their inputs while running.
        tolerance: of the comparison, relative to the largest output; not applied with `int8`.

    Returns:
        The maximum absolute difference between the outputs of file and model.

    Raises:
        ValueError: the model is a decoder or in another precision, `path` does not end in `.onnx`, or weights or outputs hold
            NaN or infinity.
        OSError: the folder of `path` does not exist.
        ImportError: the extra `onnx` is not installed.
        RuntimeError: the outputs differ by more than `tolerance`; nothing is written.
    """
    path = Path(path)
    _check_exportable(model, path, int8)
    refuse_not_finite(model.state_dict(), "the model")
    was_training = model.training
    tagger = getattr(model, "tagger", None)  # of a head with a CRF
    try:
        model.precompute_tables()
        if tagger is not None:
            tagger.decodes = False
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            draft = Path(folder) / path.name
            _write_graph(model, draft)
            if int8:
                draft = _quantize_file(draft)
            difference, largest = _compare(model, draft)
            if not int8 and not difference <= tolerance * largest:
                raise RuntimeError(
                    f"The exported graph differs from the model by {difference:.2g}, where the largest output is "
                    f"{largest:.2g} and `tolerance` is {tolerance:g} of it."
                )
            for name in (f"{path.name}.data", path.name):  # the graph last, when it is whole
                if (file := draft.with_name(name)).is_file():
                    os.replace(file, path.with_name(name))
    finally:
        if tagger is not None:
            tagger.decodes = True
        model.train()  # forgets the tables
        model.train(was_training)
    return difference


def _check_exportable(model: RoCBertPreTrainedModel, path: Path, int8: bool) -> None:
    if model.config.is_decoder:
        raise ValueError("`model` is a decoder (`config.is_decoder`); only encoders and their heads are exported.")
    # onnxruntime computes nothing in bfloat16 on a CPU, and quantises no inputs in float16
    precisions = (torch.float32,) if int8 else (torch.float32, torch.float16)
    for name, parameter in model.named_parameters():
        if parameter.dtype not in precisions:
            raise ValueError(
                f"`model` must be in {' or '.join(str(one).removeprefix('torch.') for one in precisions)}: call "
                f"`model.float()` first; {name} is {parameter.dtype}."
            )
    if path.suffix != ".onnx":
        raise ValueError(f"`path` must end in .onnx; got {str(path)!r}.")
    if not path.parent.is_dir():
        raise OSError(f"The folder of `path` does not exist: {str(path.parent)!r}.")
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"`export_onnx` needs {', '.join(missing)}: pip install {' '.join(missing)}.")


class _Positional(nn.Module):
    """The model with the inputs in the order of `INPUTS`, and a tuple of tensors as its output."""

    def __init__(self, model: RoCBertPreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids, input_shape_ids, input_pronunciation_ids, attention_mask, token_type_ids):
        inputs = (input_ids, input_shape_ids, input_pronunciation_ids, attention_mask, token_type_ids)
        return tuple(_tensors(self.model(**dict(zip(INPUTS, inputs, strict=True)))).values())


def _tensors(output) -> dict[str, torch.Tensor]:
    return {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}


def _random_inputs(model: RoCBertPreTrainedModel, batch: int, length: int) -> dict[str, torch.Tensor]:
    """Ids and a mask of right padding, (batch, length), or (batch, 3, length) for multiple choice."""
    shape = (batch, 3, length) if isinstance(model, RoCBertForMultipleChoice) else (batch, length)
    generator = torch.Generator().manual_seed(length)
    config = model.config
    sizes = (config.vocab_size, config.shape_vocab_size, config.pronunciation_vocab_size)
    ids = [torch.randint(1, size, shape, generator=generator) for size in sizes]
    mask = torch.ones(shape, dtype=torch.long)
    mask[-1, ..., length // 2 + 1 :] = 0
    ids = [channel * mask for channel in ids]
    device = next(model.parameters()).device
    segments = (torch.arange(length) > length // 2).long().clamp(max=config.type_vocab_size - 1)
    inputs = (*ids, mask, segments.expand(shape).contiguous())
    return {name: tensor.to(device) for name, tensor in zip(INPUTS, inputs, strict=True)}


@torch.no_grad()
def _write_graph(model: RoCBertPreTrainedModel, path: Path) -> None:
    inputs = _random_inputs(model, batch=2, length=8)
    outputs = list(_tensors(model(**inputs)))
    names = ["batch", "choices", "sequence"] if inputs["input_ids"].ndim == 3 else ["batch", "sequence"]
    limits = {"sequence": model.config.max_position_embeddings}
    dims = {axis: torch.export.Dim(name, min=1, max=limits.get(name)) for axis, name in enumerate(names)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            _Positional(model).eval(),
            tuple(inputs.values()),
            dynamic_shapes=tuple(dict(dims) for _ in inputs),
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    held = [*model.parameters(), *model.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in held)
    program.save(path, external_data=size > LARGEST_FILE)


def _quantize_file(path: Path) -> Path:
    """The graph with int8 weights in its matrix products, in a folder of its own; embeddings keep their precision."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = path.parent / "int8"
    folder.mkdir()
    quantized = folder / path.name
    model = onnx.load(path)
    # what the exporter wrote about shapes inside the graph contradicts what the quantiser infers of its own nodes
    del model.graph.value_info[:]
    quantize_dynamic(
        model,
        quantized,
        op_types_to_quantize=["MatMul"],
        weight_type=QuantType.QInt8,
        per_channel=True,
        use_external_data_format=path.with_name(path.name + ".data").exists(),
    )
    return quantized


@torch.no_grad()
def _compare(model: RoCBertPreTrainedModel, path: Path) -> tuple[float, float]:
    """The largest difference of outputs between file and model, and the largest output, on batches of two sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    difference = largest = 0.0
    for batch, length in ((1, 5), (3, 13)):
        inputs = _random_inputs(model, batch, length)
        expected = _tensors(model(**inputs))
        got = session.run(names, {name: tensor.cpu().numpy() for name, tensor in inputs.items()})
        for name, array in zip(names, got, strict=True):
            reference = expected[name].float().cpu()
            difference = max(difference, max_difference(reference, torch.from_numpy(array)))
            largest = max(largest, reference.abs().max().item())
    return difference, largest


def quantize_int8(model: RoCBertPreTrainedModel) -> RoCBertPreTrainedModel:
    """
    A copy of a model for inference on the CPU, whose linear layers hold int8 weights and quantise their inputs while
    running (PyTorch's dynamic quantisation). Embeddings, the fusion with its derived tables, and LayerNorms keep their
    precision. The copy cannot be trained or saved with `save_pretrained`; ONNX export has int8 of its own.

    Args:
        model: any RoCBERT model, in float32 on the CPU.

    Raises:
        ValueError: the model is elsewhere or in another precision, or a weight is NaN or infinite.
        NotImplementedError: this PyTorch no longer has `torch.ao.quantization.quantize_dynamic`.
    """
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            raise ValueError(
                "`model` must be in float32 on the CPU: call `model.float().cpu()` first; "
                f"{name} is {parameter.dtype} on {parameter.device}."
            )
    refuse_not_finite(model.state_dict(), "the model")
    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError:
        raise NotImplementedError(
            f"PyTorch {torch.__version__} no longer quantises in itself; use `export_onnx(..., int8=True)`."
        ) from None
    quantized = copy.deepcopy(model).precompute_tables()
    # the fusion works with slices of its weights, and most of it is tables now
    encoder = quantized.base_model
    fusion, encoder.fusion = encoder.fusion, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation: see the error above for what takes its place
        quantized = quantize_dynamic(quantized, {nn.Linear}, dtype=torch.qint8, inplace=True)
    encoder.fusion = fusion
    return quantized
