"""transformers' tests of pipelines, for every fusion, on tiny models with the packaged vocabulary."""

import json
import os
import unittest
from pathlib import Path

import torch

from rocbert_hf import (
    RoCBertConfig,
    RoCBertForCausalLM,
    RoCBertForMaskedLM,
    RoCBertForSequenceClassification,
    RoCBertForTokenClassification,
    RoCBertModel,
    RoCBertTokenizer,
)
from rocbert_hf.configuration_rocbert import FUSIONS

PIPELINES = {
    "feature-extraction": RoCBertModel,
    "fill-mask": RoCBertForMaskedLM,
    "text-classification": RoCBertForSequenceClassification,
    "text-generation": RoCBertForCausalLM,
    "token-classification": RoCBertForTokenClassification,
    "zero-shot": RoCBertForSequenceClassification,
}
# the mixin reads this folder's list of models when it is imported
MODELS = Path(os.environ["TRANSFORMERS_TINY_MODEL_PATH"])
REPORT = MODELS / "reports/tiny_model_summary.json"
REPORT.parent.mkdir(exist_ok=True)
REPORT.write_text(
    json.dumps(
        {
            head.__name__: {"tokenizer_classes": ["AutoTokenizer"], "processor_classes": []}
            for head in PIPELINES.values()
        }
    )
)

from tests.test_pipeline_mixin import PipelineTesterMixin  # noqa: E402


class PipelineTest(PipelineTesterMixin):
    """Every task on models of one fusion, which are made and saved first."""

    fusion: str
    pipeline_model_mapping = PIPELINES

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        torch.manual_seed(0)
        tokenizer = RoCBertTokenizer()
        for head in PIPELINES.values():
            folder = MODELS / RoCBertConfig.model_type / cls.fusion / head.__name__
            sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 37, "shape_embed_dim": 32}
            config = RoCBertConfig.from_preset(
                "tiny", fusion=cls.fusion, is_decoder=head is RoCBertForCausalLM, **sizes
            )
            head(config).save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    def run_model_pipeline_tests(self, task, repo_name, *arguments, **options):
        return super().run_model_pipeline_tests(task, f"{self.fusion}/{repo_name}", *arguments, **options)


for fusion in FUSIONS:
    name = f"PipelineTest_{fusion}"
    attributes = {"__module__": __name__, "fusion": fusion}
    globals()[name] = type(name, (PipelineTest, unittest.TestCase), attributes)
