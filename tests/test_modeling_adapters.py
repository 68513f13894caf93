"""
The model in others' hands: LoRA by peft, weights in 8 and 4 bits by bitsandbytes, offloaded by accelerate, sharded by
FSDP2.
"""

import copy
import re
import warnings

import pytest
import torch

from rocbert_hf import (
    RoCBertConfig,
    RoCBertForPreTraining,
    RoCBertForSequenceClassification,
    RoCBertForTokenClassification,
    RoCBertModel,
)
from rocbert_hf.configuration_rocbert import FUSIONS

from .several_processes import in_two_processes

WEIGHING = ("layer_insert", "attention", "two_step")


def noisy(model, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def lora(model, *targets, seed: int = 1):
    """An adapter on the modules of these names that changes what they compute."""
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=list(targets)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return adapted.eval()


@pytest.mark.parametrize("fusion", [*WEIGHING, "concat", "sum"])
def test_an_adapter_on_the_channels_counts_in_training_and_inference(tiny_sizes, make_inputs, fusion):
    model = noisy(RoCBertModel(RoCBertConfig(**tiny_sizes, fusion=fusion)))
    inputs = make_inputs(model.config)
    with torch.no_grad():
        plain = model(**inputs).last_hidden_state
        targets = {
            "two_step": ["pronunciation_embed", "gate", "encode"],
            "attention": ["pronunciation_embed", "key_shape"],
        }
        adapted = lora(model, *targets.get(fusion, ["pronunciation_embed"]))
        inferred = adapted(**inputs).last_hidden_state
    trained = adapted(**inputs).last_hidden_state
    assert not torch.allclose(inferred, plain, atol=1e-2)
    assert torch.allclose(inferred, trained, atol=1e-4)
    trained.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for name, p in adapted.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("fusion", ["layer_insert", "concat"])
def test_a_learnt_prefix_is_read_in_training_as_in_inference(tiny_sizes, make_inputs, fusion):
    peft = pytest.importorskip("peft")
    config = RoCBertConfig(**tiny_sizes, fusion=fusion, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model, inputs = noisy(RoCBertForSequenceClassification(config)), make_inputs(config)
    plain = model(**inputs).logits
    prefixed = peft.get_peft_model(model, peft.PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4))
    with torch.no_grad():
        prefixed.prompt_encoder["default"].embedding.weight.mul_(3)
        inferred = prefixed.eval()(**inputs).logits
    trained = prefixed.train()(**inputs).logits
    assert not torch.allclose(inferred, plain, atol=1e-3)
    assert torch.allclose(trained, inferred, atol=1e-4)
    trained.square().sum().backward()
    assert prefixed.prompt_encoder["default"].embedding.weight.grad.any()


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PromptEncoderConfig"])
def test_a_learnt_prompt_has_no_sound_and_no_shape(tiny_sizes, make_inputs, fusion, kind):
    """What peft puts before the text is as if the caller had, with padding in the other channels."""
    peft = pytest.importorskip("peft")
    config = RoCBertConfig(**tiny_sizes, fusion=fusion, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model, inputs = noisy(RoCBertForSequenceClassification(config)), make_inputs(config)
    texts = len(inputs["input_ids"])
    prompted = peft.get_peft_model(model, getattr(peft, kind)(task_type="SEQ_CLS", num_virtual_tokens=4))
    with torch.no_grad():
        inferred = prompted.eval()(**inputs).logits
        prompt = prompted.get_prompt(texts)
        by_hand = {
            "inputs_embeds": torch.cat([prompt, model.get_input_embeddings()(inputs["input_ids"])], dim=1),
            "attention_mask": torch.nn.functional.pad(inputs["attention_mask"], (4, 0), value=1),
        }
        for name in ("input_shape_ids", "input_pronunciation_ids", "token_type_ids"):
            by_hand[name] = torch.cat([torch.zeros(texts, 4, dtype=torch.long), inputs[name]], dim=1)
        assert torch.allclose(inferred, prompted.base_model(**by_hand).logits, atol=1e-5)
    trained = prompted.train()(**inputs).logits
    assert torch.allclose(trained, inferred, atol=1e-4)
    trained.square().sum().backward()
    learnt = [p for name, p in prompted.named_parameters() if name.startswith("prompt_encoder")]
    assert learnt
    assert all(p.grad is not None and p.grad.any() for p in learnt)


def test_a_channel_longer_than_the_embeddings_is_refused(tiny_sizes, make_inputs):
    config = RoCBertConfig(**tiny_sizes)
    inputs = make_inputs(config)
    embeddings = torch.zeros(3, 10, config.hidden_size)
    with pytest.raises(ValueError, match=r"`input_shape_ids` has shape \(3, 11\), the text has \(3, 10\)"):
        RoCBertModel(config)(inputs_embeds=embeddings, input_shape_ids=inputs["input_shape_ids"])


@pytest.mark.parametrize("fusion", [*WEIGHING, "concat"])
def test_switching_and_merging_adapters_switches_what_inference_computes(tiny_sizes, make_inputs, fusion):
    peft = pytest.importorskip("peft")
    model = noisy(RoCBertModel(RoCBertConfig(**tiny_sizes, fusion=fusion)))
    inputs = make_inputs(model.config)

    def inferred(model):
        with torch.no_grad():
            return model(**inputs).last_hidden_state

    plain = inferred(model)
    adapted = lora(model, "pronunciation_embed")
    first = inferred(adapted)
    with adapted.disable_adapter():
        assert torch.allclose(inferred(adapted), plain, atol=1e-4)
    adapted.add_adapter("second", peft.LoraConfig(r=2, target_modules=["pronunciation_embed"], init_lora_weights=False))
    adapted.set_adapter("second")
    second = inferred(adapted)
    assert not torch.allclose(second, first, atol=1e-2)
    adapted.set_adapter("default")
    assert torch.allclose(inferred(adapted), first, atol=1e-4)
    merged = adapted.merge_and_unload()
    assert torch.allclose(inferred(merged), first, atol=1e-3)


def test_an_adapter_of_a_classifier_is_whole_without_its_new_pooler(tmp_path, tiny_sizes, make_inputs):
    """A pretraining checkpoint has no pooler, and peft saves none: both times the same new one is made."""
    peft = pytest.importorskip("peft")
    RoCBertForPreTraining(RoCBertConfig(**tiny_sizes)).save_pretrained(tmp_path / "base")
    torch.manual_seed(1)
    base = RoCBertForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))
    inputs = make_inputs(base.config)
    optimizer = torch.optim.Adam((p for p in adapted.parameters() if p.requires_grad), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        adapted(**inputs, labels=torch.tensor([0, 1, 2])).loss.backward()
        optimizer.step()
    adapted.save_pretrained(tmp_path / "adapter")
    torch.manual_seed(2)
    again = RoCBertForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    loaded = peft.PeftModel.from_pretrained(again, tmp_path / "adapter")
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(**inputs).logits, adapted.eval()(**inputs).logits, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_offloaded_weights_give_the_same_hidden_states(tmp_path, tiny_sizes, make_inputs, fusion, where):
    from accelerate import cpu_offload, disk_offload

    encoder = "char_cnn" if where == "cpu" else "char_sum"
    model = noisy(RoCBertModel(RoCBertConfig(**tiny_sizes, fusion=fusion, phonetic_encoder=encoder)))
    inputs = make_inputs(model.config)
    with torch.no_grad():
        expected = model(**inputs)
        offloaded = copy.deepcopy(model)
        if where == "cpu":
            cpu_offload(offloaded, execution_device="cpu")
        else:
            disk_offload(offloaded, str(tmp_path), execution_device="cpu")
        assert next(offloaded.parameters()).device.type == "meta"
        got = offloaded(**inputs)
    assert torch.allclose(got.last_hidden_state, expected.last_hidden_state, atol=1e-5)
    assert torch.allclose(got.pooler_output, expected.pooler_output, atol=1e-5)


@pytest.mark.parametrize("head", ["crf", "bilstm_crf"])
def test_an_offloaded_tagger_decodes_the_same_and_tells_its_layers_weights(tiny_sizes, make_inputs, head):
    from accelerate import cpu_offload

    config = RoCBertConfig(**tiny_sizes, classifier_head=head, num_labels=5, layer_fusion="dynamic")
    model = noisy(RoCBertForTokenClassification(config))
    inputs = make_inputs(config)
    with torch.no_grad():
        expected = model(**inputs, output_layer_weights=True)
        offloaded = copy.deepcopy(model)
        cpu_offload(offloaded, execution_device="cpu")
        got = offloaded(**inputs, output_layer_weights=True)
    assert torch.allclose(got.logits, expected.logits, atol=1e-4)
    assert torch.allclose(got.layer_weights, expected.layer_weights)


@pytest.mark.parametrize(("head", "parts"), [("crf", ["crf"]), ("bilstm_crf", ["bilstm", "crf"])])
def test_an_adapter_of_a_tagger_is_whole_with_what_the_warning_names(tmp_path, tiny_sizes, make_inputs, head, parts):
    """peft saves the tagger's classifier by itself, but not the CRF and the BiLSTM around it."""
    peft = pytest.importorskip("peft")
    config = RoCBertConfig(**tiny_sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    RoCBertForPreTraining(config).save_pretrained(tmp_path / "base")
    inputs = make_inputs(config)

    def base(seed: int):
        torch.manual_seed(seed)
        return RoCBertForTokenClassification.from_pretrained(tmp_path / "base", num_labels=4, classifier_head=head)

    def adapted(**options):
        adapter = peft.LoraConfig(task_type="TOKEN_CLS", r=2, target_modules=["query"], **options)
        return peft.get_peft_model(base(1), adapter).train()

    with pytest.warns(UserWarning, match=re.escape(f"modules_to_save={parts}")):
        adapted()(**inputs, labels=inputs["input_ids"] % 4)
    tagger = adapted(modules_to_save=parts)
    optimizer = torch.optim.Adam((p for p in tagger.parameters() if p.requires_grad), lr=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tagger(**inputs, labels=inputs["input_ids"] % 4).loss.backward()
    optimizer.step()
    tagger.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(base(2), tmp_path / "adapter")
    with torch.no_grad():
        assert torch.allclose(loaded.eval()(**inputs).logits, tagger.eval()(**inputs).logits, atol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_in_8_and_4_bits_give_nearly_the_same_hidden_states(tmp_path, tiny_sizes, make_inputs, fusion, bits):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    sizes = {"hidden_size": 64, "pronunciation_embed_dim": 64, "shape_embed_dim": 64, "intermediate_size": 128}
    model = noisy(RoCBertModel(RoCBertConfig(**tiny_sizes | sizes, fusion=fusion)))
    inputs = make_inputs(model.config)
    model.save_pretrained(tmp_path)
    if bits == 8:
        quantization = BitsAndBytesConfig(load_in_8bit=True)
    else:  # on a CPU, bitsandbytes has no 4-bit layer of so few outputs as `two_step`'s gate
        quantization = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, llm_int8_skip_modules=["gate"]
        )
    quantized = RoCBertModel.from_pretrained(tmp_path, quantization_config=quantization, device_map="cpu").eval()
    packed = {8: bitsandbytes.nn.Linear8bitLt, 4: bitsandbytes.nn.Linear4bit}[bits]
    if fusion == "two_step":
        assert isinstance(quantized.fusion.encode, packed)
    if fusion == "concat":
        assert isinstance(quantized.embeddings.map_inputs_layer, packed)
    assert isinstance(quantized.encoder.layer[0].attention.self.query, packed)
    with torch.no_grad():
        expected, got = (of(**inputs).last_hidden_state.float().flatten() for of in (model, quantized))
    assert torch.nn.functional.cosine_similarity(got, expected, dim=0) > {8: 0.999, 4: 0.95}[bits]
    assert not torch.equal(got, expected)


SHARDED = """
import sys, torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from rocbert_hf import RoCBertConfig, RoCBertForMaskedLM
fusion, sizes = sys.argv[1], eval(sys.argv[2])
plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="transformer_based_wrap")
accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
torch.manual_seed(0)
model = RoCBertForMaskedLM(RoCBertConfig(**sizes, fusion=fusion, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
generator = torch.Generator().manual_seed(1)
sizes = {"input_ids": 97, "input_shape_ids": 61, "input_pronunciation_ids": 41}
batch = {name: torch.randint(5, size, (2, 9), generator=generator) for name, size in sizes.items()}
expected = model(**batch, labels=batch["input_ids"]).loss
with torch.no_grad():
    expected_logits = model.eval()(**batch).logits
model.train()
model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
loss = model(**batch, labels=batch["input_ids"]).loss
assert torch.allclose(loss, expected, atol=1e-4), (loss, expected)
model.eval()
with torch.no_grad():
    assert torch.allclose(model(**batch).logits, expected_logits, atol=1e-4)
model.train()
loss = model(**batch, labels=batch["input_ids"]).loss
accelerator.backward(loss)
optimizer.step()
optimizer.zero_grad()
assert model(**batch, labels=batch["input_ids"]).loss < loss
if accelerator.is_main_process:
    print("sharded as whole")
"""


@pytest.mark.slow
@pytest.mark.parametrize("fusion", FUSIONS)
def test_two_processes_of_fsdp2_train_what_one_does(tmp_path, tiny_sizes, fusion):
    done = in_two_processes(tmp_path, SHARDED, fusion, repr(tiny_sizes))
    assert "sharded as whole" in done.stdout, done.stderr[-3000:]
