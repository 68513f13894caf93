"""The dry run against what torch counts in the real model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rocbert_hf import RoCBertConfig, RoCBertForPreTraining, RoCBertTokenizer
from rocbert_hf.pretraining import collator_for
from rocbert_hf.pretraining.arguments import PretrainingArguments
from rocbert_hf.pretraining.estimate import estimate, example_batch, saved_bytes
from rocbert_hf.pretraining.optimizer import adamw
from rocbert_hf.resources import demo_sentences

SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
SMALL |= {"vocab_size": 300, "shape_vocab_size": 300, "pronunciation_vocab_size": 100}


def run(**options):
    return PretrainingArguments(**{"batch_size": 5, "max_length": 24, "max_steps": 100} | options)


def model_of(config, attention="sdpa"):
    config._attn_implementation = attention
    return RoCBertForPreTraining(config).train()


@pytest.mark.parametrize("layers", [2, 7])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"anchor": "both"},
        {"objective": "mlm_only"},
        {"correct_attacked": True},
        {"objective": "correction", "distill_from": "an encoder"},
    ],
)
def test_arithmetic_is_what_torch_counts(layers, options):
    config, arguments = RoCBertConfig(num_hidden_layers=layers, **SMALL), run(**options)
    with FlopCounterMode(display=False) as counter:
        model_of(config, "eager")(**example_batch(config, arguments, 5, 24)).loss.backward()
    assert estimate(config, arguments, device="CPU").flops == counter.get_total_flops()


@pytest.mark.parametrize("objective", ["multimodal", "correction", "mlm_only", "contrastive_only"])
def test_as_many_tokens_have_labels_as_the_collator_gives(objective):
    arguments = run(objective=objective, correct_attacked=objective == "multimodal", max_length=128)
    assumed = example_batch(RoCBertConfig(num_hidden_layers=2, **SMALL), arguments, 2, 128)
    found = collator_for(arguments, RoCBertTokenizer(), "no")(demo_sentences()[:100])
    for name in {"labels", "attack_labels"} & found.keys():
        read = int(found[name.replace("labels", "attention_mask")].sum()) - 2 * len(found[name])
        share = int((found[name] != -100).sum()) / read
        assert int((assumed[name] != -100).sum()) / (2 * 126) == pytest.approx(share, rel=0.15)


def test_sentence_vectors_take_the_whole_last_layer():
    config = RoCBertConfig(num_hidden_layers=2, **SMALL)
    without, distilled = (estimate(config, run(distill_from=encoder)) for encoder in (None, "an encoder"))
    assert distilled.flops > 1.1 * without.flops


@pytest.mark.parametrize("layers", [2, 7])
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_activations_are_what_autograd_saves(layers, precision):
    config, arguments = RoCBertConfig(num_hidden_layers=layers, **SMALL), run(mixed_precision=precision)
    model, batch = model_of(config), example_batch(config, arguments, 5, 24)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision != "no"):
        saved = saved_bytes(model, lambda: model(**batch).loss)
    assert estimate(config, arguments, device="CPU").memory["plain"].activations == pytest.approx(saved, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "mini"])
def test_the_small_presets_need_what_is_estimated(preset):
    config = RoCBertConfig.from_preset(preset)
    arguments = run(batch_size=16, max_length=64)
    found, batch = estimate(config, arguments, device="CPU"), example_batch(config, arguments, 16, 64)
    model = model_of(config)
    saved = saved_bytes(model, lambda: model(**batch).loss)
    assert found.memory["plain"].activations == pytest.approx(saved, rel=0.15)
    with FlopCounterMode(display=False) as counter:
        model.set_attn_implementation("eager")
        model(**batch).loss.backward()
    assert found.flops == counter.get_total_flops()


def test_memory_of_weights_gradients_and_optimizer():
    config = RoCBertConfig(num_hidden_layers=2, **SMALL)
    model = model_of(config)
    optimizer = adamw(model, 1e-4, 0.01)
    model(**example_batch(config, run(), 5, 24)).loss.backward()
    optimizer.step()
    found = estimate(config, run(), device="CPU")
    plain = found.memory["plain"]
    assert found.parameters == model.num_parameters()
    assert plain.weights == sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    assert plain.gradients == sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.requires_grad)
    states = [tensor for state in optimizer.state.values() for name, tensor in state.items() if name != "step"]
    assert plain.optimizer == sum(tensor.nbytes for tensor in states)


def test_zero_shares_the_optimizer_and_more_devices_share_the_work():
    config = RoCBertConfig(num_hidden_layers=2, **SMALL)
    one, eight = (estimate(config, run(global_batch_size=40), count, "V100") for count in (1, 8))
    assert one.precision == "fp16"
    assert one.flops == pytest.approx(eight.flops, rel=0.01)
    assert eight.memory["ZeRO-1"].optimizer == one.memory["ZeRO-1"].optimizer / 8
    assert eight.memory["ZeRO-1, offloaded"].optimizer == 0
    assert one.days() == pytest.approx(8 * eight.days(), rel=0.01)
    assert one.days("H100") < one.days()


@pytest.mark.parametrize(("layers", "fusion_layer", "share"), [(8, 2, 0.8), (2, 1, 1.3)])
def test_checkpointing_saves_memory_for_arithmetic(layers, fusion_layer, share):
    config = RoCBertConfig(num_hidden_layers=layers, fusion_layer=fusion_layer, **SMALL)
    without, checkpointed = (estimate(config, run(gradient_checkpointing=value)) for value in (False, True))
    assert checkpointed.memory["plain"].activations < share * without.memory["plain"].activations
    assert 1.05 < checkpointed.flops / without.flops < 1.4


@pytest.mark.parametrize("attention", ["flash_attention_2", "flex_attention"])
def test_attention_that_only_a_gpu_has_needs_what_sdpa_needs(attention):
    config = RoCBertConfig(num_hidden_layers=2, **SMALL)
    assert estimate(config, run(attn_implementation=attention)) == estimate(config, run())


def test_what_is_not_known_is_named():
    config = RoCBertConfig(num_hidden_layers=2, **SMALL)
    for options, message in (
        ({"device": "abacus"}, "device must be CPU or one of H200"),
        ({"mfu": 40}, "mfu must lie between 0 and 1"),
        ({"num_processes": 0}, "num_processes must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            estimate(config, run(), **options)
    with pytest.raises(ValueError, match=r"max_length must be at most .* max_position_embeddings, 512, got 513"):
        estimate(config, run(max_length=513))
    with pytest.raises(ValueError, match="V100 has none"):
        estimate(config, run(mixed_precision="bf16"), device="V100")
