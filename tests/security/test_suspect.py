"""Nothing from the audited folder is run: no pickle is opened and no code imported."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from rocbert_hf.security import audit_folder
from rocbert_hf.security.suspect import load_suspect


@pytest.fixture
def folder(encoder, tokenizer, tmp_path):
    encoder.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def test_a_checkpoint_is_loaded_in_float32_with_its_pooler(folder, encoder):
    model, tokenizer, made_up = load_suspect(folder)
    assert model.dtype == torch.float32
    assert not any("pooler" in name for name in made_up)
    torch.testing.assert_close(model.pooler.dense.weight, encoder.bert.pooler.dense.weight)
    assert tokenizer.mask_token == "[MASK]"


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


def test_a_pickle_is_never_opened(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save({"x": _Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"encoder .* cannot be loaded"):
        load_suspect(folder)
    assert not (tmp_path / "sprung").exists()


def test_code_in_the_folder_is_not_run_unless_asked(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Config", "AutoModel": "strange.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "strange.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    with pytest.raises(ValueError, match=r"encoder .* cannot be used"):
        load_suspect(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match=r"no config\.json"):
        audit_folder(tmp_path / "empty")


def test_random_weights_are_not_audited_in_place_of_those_that_the_folder_lacks(folder):
    weights = load_file(folder / "model.safetensors")
    renamed = {f"module.{name}": tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"encoder .* cannot be used: the checkpoint lacks weights of the encoder"):
        load_suspect(folder)
