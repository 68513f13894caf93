"""Whatever is imported first, importing goes through and the classes are with the Auto classes afterwards."""

import subprocess
import sys

import pytest
import torch

from rocbert_hf import RoCBertConfig, RoCBertModel, RoCBertTokenizer

FIRST = (
    "from transformers import AutoConfig, AutoModel, AutoTokenizer",
    "from transformers import BertForPreTraining",
    "from transformers import RoCBertModel",
    "import transformers.modeling_layers",
    "from transformers import Trainer",
)


@pytest.mark.parametrize("first", FIRST)
def test_transformers_classes_can_be_imported_after_the_package(first):
    code = f"""
import rocbert_hf
{first}
from transformers import AutoModel
print(type(AutoModel.from_config(rocbert_hf.RoCBertConfig.from_preset("tiny", shape_vocab_size=9))).__module__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "rocbert_hf.encoder_rocbert", done.stderr[-600:]


@pytest.mark.parametrize(
    "imports",
    [
        "from transformers import AutoModel; import rocbert_hf",
        "from rocbert_hf.tokenization_rocbert import RoCBertTokenizer",
    ],
)
def test_all_three_classes_register_themselves(tmp_path, imports):
    torch.manual_seed(0)
    RoCBertModel(RoCBertConfig.from_preset("tiny", shape_vocab_size=9)).save_pretrained(tmp_path)
    RoCBertTokenizer().save_pretrained(tmp_path)
    code = f"""
{imports}
from transformers import AutoConfig, AutoModel, AutoTokenizer
print(*(type(auto.from_pretrained({str(tmp_path)!r})).__module__ for auto in (AutoConfig, AutoModel, AutoTokenizer)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    modules = [f"rocbert_hf.{part}_rocbert" for part in ("configuration", "encoder", "tokenization")]
    assert done.stdout.split() == modules, done.stderr[-600:]


FLAT = ("acceleration", "channels", "encoder", "fusion", "layers", "losses", "modeling", "pretraining")


def test_every_file_of_the_model_can_be_imported_first():
    code = "import importlib, sys; importlib.import_module(f'rocbert_hf.{sys.argv[1]}_rocbert')"
    runs = [subprocess.Popen([sys.executable, "-c", code, part], stderr=subprocess.PIPE, text=True) for part in FLAT]
    failed = {part: run.communicate()[1][-600:] for part, run in zip(FLAT, runs, strict=True)}
    assert [run.returncode for run in runs] == [0] * len(FLAT), failed
