"""How the channels of sound and shape start in a model made from another encoder: closed, or open."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..characters.similarity import lookalikes_of
from ..modeling_rocbert import RoCBertForPreTraining
from ..tokenization_rocbert import RoCBertTokenizer

# Standard deviation of V2 and V3: w2 / w1 is then below 1e-7 at every width, and float16 can still hold it.
CLOSED = 1e-7
# Weight of the text when the channels start open, where a state is as long as tokens' mean states are on average; sound and
# shape share the rest.
TEXT_SHARE = 0.6
SEEN_ENOUGH = 5  # occurrences from which a token's mean state is taken, not predicted
LENGTH = 64  # tokens of a sentence that are read
# For a score of the fusion to begin at about 0 and yet pass gradients on.
SCORE_STD = 0.02
# GELU(x + 4) is x + 4 to within 1e-3 for x above -1, and LayerNorm takes the 4 away again.
LINEAR_PART_OF_GELU = 4.0
REPLACED_SHARE = 0.15  # of the tokens that `fit_head` replaces by others of the same sound


@torch.no_grad()
def close_channels(fusion) -> None:
    """Make a new `layer_insert` of linear normalisation start as the identity (see the top of `warm_start`)."""
    for matrix in (fusion.key, fusion.value):
        matrix[0].copy_(torch.eye(matrix.shape[-1]))
    fusion.value[1:].normal_(std=CLOSED)


@dataclass(frozen=True)
class TokenStates:
    """
    What the source makes of each token, in the states that the fusion will read.

    Args:
        means: (tokens, hidden), the mean state over all sentences; of a token met too seldom, predicted from its word
            vector by ridge regression.
        frequencies: (tokens,), positive.
    """

    means: torch.Tensor
    frequencies: torch.Tensor


@torch.no_grad()
def open_channels(model: RoCBertForPreTraining, tokenizer: RoCBertTokenizer, sentences: Sequence[str]) -> list[str]:
    """
    Give sound and shape vectors that already mean something to the encoder, and a share of every token.

    - `Ph` of a pronunciation is the mean of the states of the tokens that sound so, weighted by the square root of their
      frequency. (A homophone of 漂 then carries what the characters read "piao" mean on average.)
    - A glyph's features are, in the `shape_embed_dim` directions in which these vary most, the mean of the states of the
      characters that it may stand for: itself, and those that have it among their 20 look-alikes. M is the regression
      that gives the mean back.
    - `K1`, `V1` are multiples of the identity, `K2`, `V2`, `K3`, `V3` small and random. So the softmax begins at 0.6 for the
      text and about 0.2 for sound and shape each, where the square of a state's length is the mean of those of the tokens'
      mean states, weighted by frequency. Most states are longer than their token's mean, and begin with more text.

    Args:
        model: with the source's weights and `layer_insert` fusion of softmax normalisation, a table of pronunciations.
        tokenizer: the packaged vocabulary's.
        sentences: text to take the states of.

    Returns:
        Notes on what was done.
    """
    model.eval()
    states = token_states(model, tokenizer, sentences)
    embeddings, fusion = model.roc_bert.embeddings, model.roc_bert.fusion
    embeddings.pronunciation_embed.weight.copy_(
        sound_vectors(states, torch.tensor(tokenizer.pronunciation_ids), len(embeddings.pronunciation_embed.weight))
    )
    explained = _open_shapes(model, tokenizer, states)
    length = (states.means.square().sum(-1) * states.frequencies).sum() / states.frequencies.sum()
    text_score = math.log(2 * TEXT_SHARE / (1 - TEXT_SHARE)) * math.sqrt(states.means.shape[1])
    for matrix in (fusion.key, fusion.value):
        matrix.normal_(std=SCORE_STD)
        matrix[0].copy_(torch.eye(matrix.shape[-1]) * math.sqrt(text_score / float(length)))
    model.train().eval()  # tables that were derived from the old weights are forgotten
    return [
        f"channels open: text {TEXT_SHARE:.0%}, sound and shape {(1 - TEXT_SHARE) / 2:.0%} each, where a state is as long as "
        f"tokens' mean states are; more text where it is longer, as most are; the glyph features hold "
        f"{explained:.0%} of how the look-alikes' means vary"
    ]


def token_states(model: RoCBertForPreTraining, tokenizer: RoCBertTokenizer, sentences: Sequence[str]) -> TokenStates:
    """The states of every token of the vocabulary at the place of the fusion, in text without channels."""
    table = model.roc_bert.embeddings.word_embeddings.weight.detach()
    totals, counts = torch.zeros_like(table), torch.zeros(len(table))
    for inputs in _text_batches(tokenizer, sentences):
        states = fusion_input(model, inputs)
        read = inputs["attention_mask"].bool()
        totals.index_add_(0, inputs["input_ids"][read], states[read])
        counts += torch.bincount(inputs["input_ids"][read], minlength=len(counts))
    means = totals / counts.clamp(min=1)[:, None]
    seen = counts >= min(SEEN_ENOUGH, int(counts.max()))
    inputs = torch.cat([table, torch.ones(len(table), 1)], dim=1)
    predicted = inputs @ ridge(inputs[seen], means[seen], counts[seen].sqrt(), 1e-3)
    # the vocabulary has Chinese characters by frequency: Zipf's law for those that the sentences leave out
    rank = torch.arange(len(table), dtype=torch.float)
    frequencies = counts + counts.sum() * 1e-4 / (1 + rank / 100)
    return TokenStates(torch.where(seen[:, None], means, predicted), frequencies)


def fusion_input(model: RoCBertForPreTraining, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """What reaches the fusion, (batch, sequence, hidden)."""
    found = []
    hook = model.roc_bert.fusion.register_forward_pre_hook(lambda _, arguments: found.append(arguments[0].detach()))
    try:
        model.roc_bert(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
    finally:
        hook.remove()
    return found[0]


def sound_vectors(states: TokenStates, pronunciation_ids: torch.LongTensor, count: int) -> torch.Tensor:
    """
    The mean state of the tokens with each pronunciation, weighted by the square root of their frequency.

    Args:
        pronunciation_ids: (tokens,). count: pronunciations.

    Returns:
        (count, hidden); a pronunciation without a token has the mean of all tokens.
    """
    weights = states.frequencies.sqrt()[:, None]
    totals = torch.zeros(count, states.means.shape[1]).index_add_(0, pronunciation_ids, states.means * weights)
    shares = torch.zeros(count, 1).index_add_(0, pronunciation_ids, weights)
    everything = (states.means * weights).sum(0) / weights.sum()
    return torch.where(shares > 0, totals / shares.clamp(min=1e-12), everything)


def lookalike_means(states: TokenStates, tokens: Sequence[str], own: float = 0.3, other: float = 0.25) -> torch.Tensor:
    """
    The mean state of what each token may stand for to the eye: itself, and the characters that it is a look-alike of.

    Args:
        tokens: by id.
        own, other: the weights of itself and of the others, times frequency ** 0.75.

    Returns:
        (tokens, hidden).
    """
    weights = states.frequencies**0.75
    ids = {token: index for index, token in enumerate(tokens)}
    pairs = [(ids[other], index) for token, index in ids.items() for other in lookalikes_of(token) if other in ids]
    totals, shares = states.means * weights[:, None] * own, weights * own
    if pairs:
        standing, meant = torch.tensor(pairs).unbind(1)
        totals = totals.index_add(0, standing, states.means[meant] * weights[meant, None] * other)
        shares = shares.index_add(0, standing, weights[meant] * other)
    return totals / shares[:, None]


def _open_shapes(model: RoCBertForPreTraining, tokenizer: RoCBertTokenizer, states: TokenStates) -> float:
    """Fill the glyph features, M and its norm; returns the share of the variance that the features hold."""
    embeddings, fusion = model.roc_bert.embeddings, model.roc_bert.fusion
    size = model.config.shape_embed_dim
    means = lookalike_means(states, tokenizer.convert_ids_to_tokens(range(len(states.means))))
    weights = states.frequencies.sqrt()
    centre = means.mean(0)
    left, strengths, _ = torch.linalg.svd(means - centre, full_matrices=False)
    features = left[:, :size] * strengths[:size]
    features = torch.nn.functional.pad(features / features.std(), (0, max(0, size - features.shape[1])))
    embeddings.shape_embed.weight[torch.tensor(tokenizer.shape_ids)] = features
    projection = ridge(features, means - centre, weights, 1e-4)
    fusion.shape_projection.weight.copy_(projection.T)
    # the norm's scale and bias are those that bring its output nearest to the means, each dimension by itself
    normalized = torch.nn.functional.layer_norm(features @ projection, (len(centre),))
    share = weights[:, None] / weights.sum()
    mean, target = (normalized * share).sum(0), (means * share).sum(0)
    variance = ((normalized - mean).square() * share).sum(0).clamp(min=1e-8)
    scale = ((means - target) * (normalized - mean) * share).sum(0) / variance
    fusion.shape_norm.weight.copy_(scale)
    fusion.shape_norm.bias.copy_(target - scale * mean)
    return float(strengths[:size].square().sum() / strengths.square().sum())


@torch.no_grad()
def fit_head(model: RoCBertForPreTraining, tokenizer: RoCBertTokenizer, sentences: Sequence[str]) -> None:
    """
    Start a masked language modelling head that the source does not have: a ridge regression from the last hidden states
    to the word vectors of the original tokens, of sentences in which some tokens were replaced by others that sound the
    same. The head's GELU is used where it is linear, so it begins as that regression.

    Draws from torch's generator.
    """
    model.eval()
    table = model.roc_bert.embeddings.word_embeddings.weight
    centred = table - table.mean(0)
    sounds, shapes = torch.tensor(tokenizer.pronunciation_ids), torch.tensor(tokenizer.shape_ids)
    size = table.shape[1]
    products, targets = torch.zeros(size + 1, size + 1), torch.zeros(size + 1, size)
    counts = torch.zeros(len(table))
    ordinary = torch.ones(len(table), dtype=torch.bool)
    ordinary[tokenizer.all_special_ids] = False
    for inputs in _text_batches(tokenizer, sentences):
        ids = inputs["input_ids"]
        heard = _others_of_the_same_sound(ids, sounds, ordinary)
        outputs = model.roc_bert(
            input_ids=heard,
            attention_mask=inputs["attention_mask"],
            input_shape_ids=shapes[heard],
            input_pronunciation_ids=sounds[heard],
        )
        wanted = ordinary[ids] & inputs["attention_mask"].bool()
        states = torch.cat([outputs.last_hidden_state[wanted], torch.ones(int(wanted.sum()), 1)], dim=1)
        products += states.T @ states
        targets += states.T @ centred[ids[wanted]]
        counts += torch.bincount(ids[wanted], minlength=len(counts))
    regression = torch.linalg.solve(products + 1e-3 * products.diagonal().mean() * torch.eye(size + 1), targets)
    scale = 1 / (states @ regression).std().clamp(min=1e-12)
    transform = model.cls.predictions.transform
    transform.dense.weight.copy_(regression[:size].T * scale)
    transform.dense.bias.copy_(regression[size] * scale + LINEAR_PART_OF_GELU)
    # a norm that gives logits of a dozen for the token that is meant
    typical = centred[counts > 0].norm(dim=-1).mean().clamp(min=1e-12)
    transform.LayerNorm.weight.fill_(12 / (float(typical) * math.sqrt(size)))
    transform.LayerNorm.bias.zero_()
    logarithms = (counts + 0.5).log()
    model.cls.predictions.bias.copy_((logarithms - logarithms.mean()) / 2)


def _others_of_the_same_sound(
    ids: torch.LongTensor, sounds: torch.LongTensor, ordinary: torch.BoolTensor
) -> torch.LongTensor:
    """The ids with some of the ordinary ones replaced by random tokens of the same pronunciation."""
    order = sounds.argsort(stable=True)
    first = torch.searchsorted(sounds[order], sounds[ids])
    count = torch.searchsorted(sounds[order], sounds[ids], right=True) - first
    others = order[first + (torch.rand(ids.shape) * count).long()]
    replaced = (torch.rand(ids.shape) < REPLACED_SHARE) & ordinary[ids] & ordinary[others]
    return torch.where(replaced, others, ids)


def ridge(inputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, strength: float) -> torch.Tensor:
    """
    Weighted ridge regression.

    Args:
        inputs: (rows, n). targets: (rows, m). weights: (rows,).
        strength: of the penalty, times the mean of the diagonal of `inputs^T diag(weights) inputs`.

    Returns:
        (n, m), what `inputs` are to be multiplied with.
    """
    weighted = inputs * weights[:, None]
    products = weighted.T @ inputs
    penalty = strength * products.diagonal().mean() * torch.eye(products.shape[0]).to(products)
    return torch.linalg.solve(products + penalty, weighted.T @ targets)


def _text_batches(tokenizer: RoCBertTokenizer, sentences: Sequence[str], size: int = 64):
    ordered = sorted(dict.fromkeys(sentences), key=len)
    for start in range(0, len(ordered), size):
        yield tokenizer(
            ordered[start : start + size], padding=True, truncation=True, max_length=LENGTH, return_tensors="pt"
        )
