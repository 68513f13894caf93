"""Whatever is imported first, importing goes through and the classes are with the Auto classes afterwards."""

import subprocess
import sys

import pytest

FIRST = (
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
    assert done.stdout.strip() == "rocbert_hf.modeling_rocbert", done.stderr[-600:]
