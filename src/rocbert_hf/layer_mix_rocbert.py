"""Dynamic layer fusion: the encoder's output is a learned mean of all its layers' outputs."""

import torch
from torch import nn
from transformers import initialization as init


class RoCBertLayerMix(nn.Module):
    r"""
    `layer_fusion="dynamic"`: with h_i the output of encoder layer i of 1..L,

        h = gamma sum_i softmax(alpha)_i h_i

    one alpha per layer and one gamma, learned ("Chinese NER Based on Dynamic Fusion and Adversarial Training", 2022,
    Eq. 11-12; the scalar mix of ELMo, Peters et al. 2018, without the embeddings' output). At the start it is the mean.
    """

    def __init__(self, layers: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(layers))
        self.gamma = nn.Parameter(torch.empty(1))
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """The plain mean of all layers."""
        init.zeros_(self.alpha)
        init.ones_(self.gamma)

    def forward(self, scaled: bool = True) -> torch.Tensor:
        """
        What each layer's output is multiplied by: gamma softmax(alpha), (layers,); softmax(alpha) alone if not `scaled`.
        """
        weights = self.alpha.softmax(0)
        return self.gamma * weights if scaled else weights
