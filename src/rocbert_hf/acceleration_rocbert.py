"""
What makes RoCBERT fast, apart from what it computes: every function and class here gives the results of a plainer one.

Dropout from random bits, attention that drops out on a CPU, the last layer at chosen positions, and tables that
inference looks up instead of computing.
"""

from collections.abc import Callable

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.roc_bert.modeling_roc_bert import RoCBertSelfAttention, eager_attention_forward

from .configuration_rocbert import RoCBertConfig
from .fusion_rocbert import dot, weighted_sum

# ------------------------------------------------------------------------------------------------ dropout, attention


class RoCBertDropout(nn.Dropout):
    """
    Dropout that on a CPU draws 16 random bits per element, four elements at a time, which takes a third of the time that
    torch's takes there; the rate is rounded to a multiple of 2**-16, and what is kept is scaled by the rounded rate.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.draws_itself(input):
            return super().forward(input)
        steps = 1 << 16
        dropped = round(self.p * steps)
        bits = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
        kept = bits.view(torch.int16)[: input.numel()].view(input.shape) >= dropped - steps // 2
        return input.mul(kept).mul_(steps / (steps - dropped))

    def draws_itself(self, input: torch.Tensor) -> bool:
        """Whether there is something to drop, and it is done here."""
        return self.training and input.device.type == "cpu" and 0 < self.p < 1 and not torch.compiler.is_compiling()


class RoCBertEncoderAttention(RoCBertSelfAttention):
    """
    The self-attention of transformers, by the implementation that the configuration names. Only "sdpa" in training on a CPU
    is computed here where torch has no kernel for it that is fast: dropout takes a detour there, and the backward pass in
    half precision takes four times as long as that of the equation written out.
    """

    def __init__(self, config: RoCBertConfig, is_causal: bool = False, layer_idx: int | None = None):
        super().__init__(config, is_causal=is_causal, layer_idx=layer_idx)
        self.dropout = RoCBertDropout(config.attention_probs_dropout_prob)

    def forward(self, hidden_states, attention_mask=None, past_key_values=None, **kwargs):
        plain = self.is_decoder or not self.training or self.config._attn_implementation != "sdpa"
        if plain or past_key_values is not None:  # of an encoder, what prefix tuning puts before the text
            return super().forward(hidden_states, attention_mask, past_key_values, **kwargs)
        return self.attend(hidden_states, hidden_states, attention_mask), None

    def attend(
        self, queried: torch.Tensor, hidden_states: torch.Tensor, attention_mask=None, positions=None
    ) -> torch.Tensor:
        """
        What the positions `queried`, (batch, n, hidden), see of all `hidden_states`, (batch, sequence, hidden).

        Args:
            attention_mask: (batch, 1, 1 or n, sequence), as transformers makes it for the implementation.
            positions: (batch, n), where in the text they are; only attention that knows positions reads it.

        Returns:
            (batch, n, hidden).
        """
        return self.mix(*self.project(queried, hidden_states), attention_mask)[0].flatten(-2)

    def project(self, queried: torch.Tensor, hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries (batch, heads, n, size) of the one, keys and values (batch, heads, sequence, size) of the other."""
        return tuple(
            projected.unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)
            for projected in (self.query(queried), self.key(hidden_states), self.value(hidden_states))
        )

    def mix(self, query, key, value, attention_mask=None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The values by their weights, (batch, n, heads, size), and the weights where the implementation tells them."""
        if self._is_faster_here(query):
            scores = (query * self.scaling) @ key.transpose(-1, -2)
            if attention_mask is not None:
                scores += additive_mask(attention_mask, scores.dtype)
            return (self.dropout(scores.softmax(-1)) @ value).transpose(1, 2), None
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        dropout = self.dropout.p if self.training else 0.0
        return attend(self, query, key, value, attention_mask, dropout=dropout, scaling=self.scaling, is_causal=False)

    def _is_faster_here(self, query: torch.Tensor) -> bool:
        if self.config._attn_implementation != "sdpa" or not self.training or torch.compiler.is_compiling():
            return False
        half_precision = query.device.type == "cpu" and query.dtype.itemsize == 2
        return half_precision or self.dropout.draws_itself(query)


def additive_mask(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What to add to attention's scores: 0 where a mask of bools is true, and a very negative number elsewhere."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min / 2)


def at_positions(hidden_states: torch.Tensor, positions: torch.LongTensor) -> torch.Tensor:
    """(batch, sequence, hidden) at (batch, n) positions: (batch, n, hidden)."""
    return hidden_states.gather(1, positions[..., None].expand(-1, -1, hidden_states.shape[-1]))


def layer_at(
    layer: nn.Module, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None, positions: torch.LongTensor
) -> torch.Tensor:
    """
    The output of an encoder layer at some positions alone: these look at all tokens, but only for them are the query,
    the attention's output and the feed-forward part computed.

    Args:
        layer: a `RoCBertLayer`.
        hidden_states: (batch, sequence, hidden); attention_mask: (batch, 1, 1 or sequence, sequence).
        positions: (batch, n).

    Returns:
        (batch, n, hidden), equal to the full output at these positions.
    """
    selected = at_positions(hidden_states, positions)
    # in an encoder every query may look at the same keys
    mask = None if attention_mask is None else attention_mask[:, :, :1]
    context = layer.attention.self.attend(selected, hidden_states, mask, positions)
    return layer.feed_forward(layer.attention.output(context, selected))


# ------------------------------------------------------------------------------------------------ derived tables


class DerivedTables(nn.Module):
    """
    Tables computed from weights, which inference need not compute again for every batch.

    In evaluation, without gradients, they are computed on first use and kept until one of the weights changes. They are
    used only if it is certain that computing gives the same: the modules whose weights they hold must be plain ones, not
    wrapped by adapters, hooks, offloading or sharding. A compiled or exported graph must not hold a copy of weights that
    can change under it, so it computes them anew, unless `precompute` has promised that they will not.

    PyTorch's version counter shows a change of a weight. Writes through `weight.data` go past it: on a CPU a sample of
    the values shows these too; on other devices call `train()` and `eval()` after them.
    """

    def __init__(self):
        super().__init__()
        self._kept: tuple[list, dict[str, torch.Tensor]] | None = None

    def usable(self, *parts: nn.Module) -> bool:
        """Whether the caller may read `get` instead of computing differentiably from these modules."""
        if self.training or torch.is_grad_enabled():
            return False
        if self._buffers:
            return True
        return not torch.compiler.is_compiling() and all(map(_is_plain, parts))

    def get(
        self, weights: list[torch.Tensor], compute: Callable[[], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """The tables that `compute` returns, computed again only if one of `weights` has changed since."""
        if self._buffers:
            return self._buffers
        state = [_state_of(weight) for weight in weights]
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self._compute(compute, weights[0].device))
        return self._kept[1]

    @torch.no_grad()
    def precompute(self, device: torch.device, compute: Callable[[], dict[str, torch.Tensor]]) -> None:
        """Keeps the tables as they are now, in compiled and exported graphs too, until `train()`."""
        self.train(True).train(False)
        for name, table in self._compute(compute, device).items():
            self.register_buffer(name, table, persistent=False)

    @staticmethod
    def _compute(compute, device: torch.device) -> dict[str, torch.Tensor]:
        with torch.autocast(device.type, enabled=False):
            return compute()

    def train(self, mode: bool = True):
        if mode:
            self._kept = None
            self._buffers.clear()
            self._non_persistent_buffers_set.clear()
        return super().train(mode)

    def __getstate__(self):
        return {**self.__dict__, "_kept": None}


def _is_plain(module: nn.Module) -> bool:
    """Whether what a module computes is decided by its own weights alone, all of them in memory and whole."""
    package = __name__.rpartition(".")[0]
    for part in module.modules():
        home = type(part).__module__
        # adapters, quantisation, parametrisation and sharding each put a class of their own in a module's place
        if not home.startswith(("torch.nn.modules.", "transformers.models.")) and home.rpartition(".")[0] != package:
            return False
        if part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part):
            return False
    return all(type(w) is nn.Parameter and w.device.type != "meta" for w in module.parameters())


def _state_of(weight: torch.Tensor) -> tuple:
    """What differs after a change of a weight."""
    # tensors made in inference mode cannot be written to, so they count no versions
    version = 0 if weight.is_inference() else weight._version
    sample = ()
    if weight.device.type == "cpu":
        flat = weight.detach().view(-1) if weight.is_contiguous() else weight.detach().reshape(-1)
        sample = tuple(flat[:: max(1, len(flat) // 16)].tolist())
    return weight.data_ptr(), weight.dtype, weight.requires_grad, version, sample


class FusionTables(DerivedTables):
    """
    A fusion from tables over the ids of its channels: a subclass says what part of the equation depends on a channel
    alone, which the tables hold by id (`compute`), and how it meets the hidden states (`combine`).
    """

    def fuse(
        self, hidden_states: torch.Tensor, ids: dict[str, torch.LongTensor], embeddings: nn.Module, fusion: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        What `fusion` returns for the vectors that these ids have.

        Args:
            hidden_states: (batch, sequence, hidden).
            ids: (batch, sequence), by channel.
            embeddings, fusion: the model's `RoCBertEmbeddings` and `RoCBertFusion`.
        """
        weights = [*embeddings.channel_weights(), *fusion.parameters()]
        tables = self.get(weights, lambda: self.compute(fusion, embeddings.channel_tables()))
        rows = {channel: nn.functional.embedding(ids[channel], tables[channel]) for channel in ids}
        fused, weights = self.combine(fusion, hidden_states, rows, tables)
        return fused.to(hidden_states.dtype), weights

    def usable_for(self, embeddings: nn.Module, fusion: nn.Module) -> bool:
        """Whether `fuse` may be called."""
        return self.usable(*embeddings.channel_parts(), fusion)

    def precompute_for(self, embeddings: nn.Module, fusion: nn.Module) -> None:
        """See `precompute`."""
        device = next(fusion.parameters()).device
        self.precompute(device, lambda: self.compute(fusion, embeddings.channel_tables()))

    def compute(self, fusion: nn.Module, vectors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Args:
            vectors: (entries, dim), all of a channel's vectors, by channel.

        Returns:
            By channel, (entries, anything); and what else `combine` needs.
        """
        raise NotImplementedError

    def combine(self, fusion, hidden_states, rows, tables) -> tuple[torch.Tensor, torch.Tensor]:
        """`H'` and the weights, from each token's rows of the tables, (batch, sequence, anything), by channel."""
        raise NotImplementedError


class LayerInsertTables(FusionTables):
    """`layer_insert`, rows `[X, K V^T X]`: one product per token is left, that of the text with itself."""

    def compute(self, fusion, vectors):
        text, *others = fusion.bilinear("text", *vectors)
        tables = {"text": text}
        for (channel, x), matrix in zip(vectors.items(), others, strict=True):
            x = fusion.project_shapes(x) if channel == "shape" else x
            tables[channel] = torch.cat([x, x @ matrix.T], dim=-1)
        return tables

    def combine(self, fusion, hidden_states, rows, tables):
        vectors, scores = [hidden_states], [dot(hidden_states @ tables["text"].to(hidden_states.dtype), hidden_states)]
        for row in rows.values():
            vector, key = row.chunk(2, dim=-1)
            vectors.append(vector)
            scores.append(dot(hidden_states, key))
        weights = fusion.normalize(torch.stack(scores, dim=-1))
        return weighted_sum(weights, vectors), weights


class AttentionTables(FusionTables):
    """`attention`, rows `[key, value]`."""

    def compute(self, fusion, vectors):
        return {channel: torch.cat(fusion.key_and_value(channel, x), dim=-1) for channel, x in vectors.items()}

    def combine(self, fusion, hidden_states, rows, tables):
        return fusion.attend(hidden_states, [row.chunk(2, dim=-1) for row in rows.values()])


class TwoStepTables(FusionTables):
    """`two_step`, rows of the products of `X` with its columns of `U` and `D`."""

    def compute(self, fusion, vectors):
        return {
            channel: torch.cat(self._products(fusion, channel, fusion.project(channel, x)), dim=-1)
            for channel, x in vectors.items()
        }

    def combine(self, fusion, hidden_states, rows, tables):
        channels = len(fusion.channels)
        products = [self._products(fusion, "text", hidden_states)]
        products += [(row[..., :channels], row[..., channels:]) for row in rows.values()]
        scores, encoded = zip(*products, strict=True)
        weights = fusion.weigh(sum(scores) + fusion.gate.bias, ["text", *rows])
        mixed = weighted_sum(weights, list(encoded)) + fusion.encode.bias
        return fusion.norm(mixed.to(hidden_states.dtype)), weights

    @staticmethod
    def _products(fusion, channel: str, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        size = x.shape[-1]
        start = fusion.channels.index(channel) * size
        gated, encoded = (layer.weight[:, start : start + size] for layer in (fusion.gate, fusion.encode))
        return nn.functional.linear(x, gated), nn.functional.linear(x, encoded)


# a fusion without an entry is computed from its weights in inference too
FUSION_TABLES: dict[str, type[FusionTables]] = {
    "layer_insert": LayerInsertTables,
    "attention": AttentionTables,
    "two_step": TwoStepTables,
}
