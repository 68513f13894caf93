"""
What RoCBERT's tagger has above the encoder: a BiLSTM, and a conditional random field (CRF) over the tags of a sentence.

Lample et al., "Neural Architectures for Named Entity Recognition" (NAACL 2016). The loss is that of pytorch-crf, and a
test compares the two; it is written here because a checkpoint must load with transformers and torch alone.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from transformers import initialization as init

from .configuration_rocbert import RoCBertConfig

# What a forbidden transition costs: no sum of scores of a real sentence makes up for it, and sums stay finite.
FORBIDDEN = -1e4


def scheme_penalties(labels: Sequence[str], scheme: str | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Which tags may follow each other.

    Args:
        labels: the tags by their number: "O", "B-PER", ...
        scheme: "BIO", "BMES" or "IOBES"; None allows everything.

    Returns:
        `FORBIDDEN` where the scheme forbids it and else 0, float32: of the first tag (tags,), of one tag after another
        (tags, tags), and of the last tag (tags,).
    """
    size = len(labels)
    first, pairs, last = np.zeros(size, np.float32), np.zeros((size, size), np.float32), np.zeros(size, np.float32)
    if scheme is None:
        return first, pairs, last
    kinds = [label.partition("-")[0] for label in labels]
    types = [label.partition("-")[2] for label in labels]
    # in BIO an entity may end after any of its tags
    opens = {"BIO": "", "BMES": "BM", "IOBES": "BI"}[scheme]
    for i in range(size):
        if kinds[i] in ("I", "M", "E"):
            first[i] = FORBIDDEN
        if kinds[i] in opens:
            last[i] = FORBIDDEN
        for j in range(size):
            continues = kinds[j] in ("I", "M", "E")
            inside = types[i] == types[j] and kinds[i] in ("B", "I", "M")
            if (continues and not inside) or (kinds[i] in opens and not continues):
                pairs[i, j] = FORBIDDEN
    return first, pairs, last


class TagOrder(NamedTuple):
    """
    An order of the tags in which the transitions that a scheme allows lie in blocks, so that no others are looked at.

    After a tag that ends an entity or stands outside ("O", S and E) come "O", B and S; after B and M come E and M of the
    same type. The first kind is a block of `size - 2 types` squared tags, the second one of 2 by 2 for each type.

    Args:
        types: number of types of entity; 0 for one block of all tags, in the order that they have.
        forwards: the tags as B, "O", S, E, M, each for all types, to read a sentence from its beginning.
        backwards: the tags as E, "O", S, B, M, to read it from its end: the same blocks.
    """

    types: int
    forwards: np.ndarray
    backwards: np.ndarray


def tag_order(labels: Sequence[str], scheme: str | None) -> TagOrder:
    """The order for these tags: in blocks if the scheme is BMES or IOBES and each type has all its tags."""
    types = list(dict.fromkeys(label.partition("-")[2] for label in labels if label != "O"))
    kinds = {"BMES": "BMES", "IOBES": "BIES"}.get(scheme, "")
    if not kinds or sorted(labels) != sorted(["O", *(f"{kind}-{type_}" for kind in kinds for type_ in types)]):
        return TagOrder(0, np.arange(len(labels)), np.arange(len(labels)))
    first, inside, last, single = ([labels.index(f"{kind}-{type_}") for type_ in types] for kind in kinds)
    outside = [labels.index("O"), *single]
    return TagOrder(
        len(types), np.array([*first, *outside, *last, *inside]), np.array([*last, *outside, *first, *inside])
    )


class ChainScores(NamedTuple):
    """
    What a path scores beside its emissions.

    Args:
        start, end: (tags,), of the first and of the last tag; float32.
        transitions: (tags, tags), [i, j] of tag j after tag i.
        order: blocks of the transitions that are allowed; all others must be `FORBIDDEN`.
    """

    start: np.ndarray
    transitions: np.ndarray
    end: np.ndarray
    order: TagOrder


def viterbi(emissions: np.ndarray, lengths: np.ndarray, chain: ChainScores) -> np.ndarray:
    """
    The best path of every sentence of a batch, all sentences at once.

    Args:
        emissions: (batch, sequence, tags), padded on the right; float32.
        lengths: (batch,), at least 1.
        chain: what tags score beside them.

    Returns:
        (batch, sequence) tags; 0 behind the end of a sentence.
    """
    # The first half of each sentence is read forwards and its second half backwards, both at once: half as many steps.
    batch, length, size = emissions.shape
    _, transitions, end, order = chain
    left = np.maximum(lengths // 2, 1)
    right = lengths - left
    half = (int(lengths.max()) + 1) // 2
    best = _best_from_both_ends(emissions, lengths, chain, half)
    # where they meet: the best pair of neighbours
    rows, places = np.arange(batch), np.arange(length)
    across = transitions[order.forwards][:, order.backwards]
    met = best[left - 1, :, rows][:, :, None] + across + best[right - 1, :, batch + rows][:, None]
    last, first = np.divmod(met.reshape(batch, -1).argmax(1), size)
    last = np.where(right > 0, last, (best[0, :, :batch].T + end[order.forwards]).argmax(1))
    # from there, each half back to its beginning
    best = np.ascontiguousarray(best.transpose(0, 2, 1))
    # infinity makes it choose the tag where the halves meet, whatever was chosen behind the end of a half
    best[np.concatenate([left, right]) - 1, np.arange(2 * batch), np.concatenate([last, first])] = np.inf
    into = np.concatenate(
        [transitions.T[order.forwards][:, order.forwards], transitions[order.backwards][:, order.backwards]]
    )
    side = np.repeat([0, size], batch)
    path, chosen, scores = np.empty((half, 2 * batch), np.intp), side.copy(), np.empty_like(best[0])
    for here, tags in zip(best[::-1], path[::-1], strict=True):
        # the best score of each tag here, and what it takes to the tag that was chosen next
        np.add(into.take(chosen, 0, scores, "clip"), here, scores)
        np.add(scores.argmax(1, tags), side, chosen)
    from_end = places >= left[:, None]
    steps = np.where(from_end, lengths[:, None] - 1 - places, places)
    names = np.concatenate(order[1:])
    whole = names[(path + side)[np.maximum(steps, 0), rows[:, None] + batch * from_end]]
    whole[steps < 0] = 0
    return whole


def max_marginals(emissions: np.ndarray, lengths: np.ndarray, chain: ChainScores) -> np.ndarray:
    """
    The score of the best path of the sentence that has a certain tag at a certain place.

    The tag with the highest one at each place makes the path of `viterbi` (unless two paths score the same), so whoever
    takes the highest value of each token gets the best path.

    Args:
        emissions, lengths, chain: as for `viterbi`.

    Returns:
        (batch, sequence, tags), less the score of the best path: 0 for the tags on it. Behind the end: 0.
    """
    batch, longest = len(lengths), int(lengths.max())
    best = _best_from_both_ends(emissions, lengths, chain, longest)
    from_end = lengths[:, None] - 1 - np.arange(longest)
    # back to the order of the labels
    forwards, backwards = np.argsort(chain.order.forwards), np.argsort(chain.order.backwards)
    both = best[:, forwards, :batch].transpose(2, 0, 1) - emissions[:, :longest]
    both += best[np.maximum(from_end, 0), :, np.arange(batch, 2 * batch)[:, None]][..., backwards]
    both -= both.max(-1, keepdims=True)
    both[from_end < 0] = 0
    through = np.zeros_like(emissions)
    through[:, :longest] = both
    return through


def _best_from_both_ends(emissions: np.ndarray, lengths: np.ndarray, chain: ChainScores, steps: int) -> np.ndarray:
    """
    The scores of the best beginning up to each tag, and of the best rest from each tag on.

    Args:
        emissions, lengths, chain: as for `viterbi`.
        steps: how many tokens to read from either end; at most the length of the longest sentence.

    Returns:
        (steps, tags, 2 batch): of the first tokens of each sentence, with its tags in the order `forwards`, then of its
        last ones, the very last one first, with the tags in the order `backwards`.
    """
    batch, _, size = emissions.shape
    start, transitions, end, order = chain
    if (lengths == lengths[0]).all():
        turned = emissions[:, lengths[0] - 1 :: -1][:, :steps]
    else:
        places = np.maximum(lengths[:, None] - 1 - np.arange(steps), 0)
        turned = emissions[np.arange(batch)[:, None], places]
    types, wide = order.types, size - 2 * order.types
    best = np.empty((steps, size, 2 * batch), np.float32)
    # of a transition: from "O", S and E into "O", B and S; from B, then from M, into E and M of the same type
    between, within = np.empty((wide, wide, 2 * batch), np.float32), np.empty((2, 2, types, 2 * batch), np.float32)
    for side, read, first, pairs, tags in (
        (slice(batch), emissions[:, :steps], start, transitions, order.forwards),
        (slice(batch, None), turned, end, transitions.T, order.backwards),
    ):
        best[:, np.argsort(tags), side] = read.transpose(1, 2, 0)
        best[0, :, side] += first[tags][:, None]
        pairs = pairs[tags][:, tags]
        between[..., side] = pairs[types : types + wide, :wide, None]
        of_type = pairs[[*range(types), *range(wide + types, size)], wide:].reshape(2, types, 2, types)
        within[..., side] = of_type.diagonal(axis1=1, axis2=3)[..., None]
    sums, most = np.empty_like(between), np.empty_like(best[0])
    into_outside, into_type = most[:wide], most[wide:].reshape(within[0].shape)
    from_inside = np.empty_like(into_type)
    before = best[:-1]
    for outside, opened, inside, here in zip(
        before[:, types : types + wide, None], before[:, :types], before[:, wide + types :], best[1:], strict=True
    ):
        np.maximum.reduce(np.add(between, outside, sums), 0, None, into_outside)
        if types:
            np.add(within[0], opened, into_type)
            np.maximum(into_type, np.add(within[1], inside, from_inside), out=into_type)
        np.add(here, most, here)
    return best


class RoCBertCRF(nn.Module):
    r"""
    A linear-chain CRF: of all tag sequences y of a sentence x,

        score(x, y) = start[y_1] + sum_t emissions[t, y_t] + sum_t transitions[y_(t-1), y_t] + end[y_n]
        log p(y | x) = score(x, y) - log sum_(y') exp score(x, y')

    The parameters have pytorch-crf's names and initial values. A scheme limits what is decoded, not the loss.

    Args:
        labels: the tags by their number.
        scheme: "BIO", "BMES", "IOBES" or None.
    """

    def __init__(self, labels: Sequence[str], scheme: str | None = None):
        super().__init__()
        size = len(labels)
        self._penalties, self._order = scheme_penalties(labels, scheme), tag_order(labels, scheme)
        self.start_transitions = nn.Parameter(torch.empty(size))
        self.transitions = nn.Parameter(torch.empty(size, size))
        self.end_transitions = nn.Parameter(torch.empty(size))
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Small random transitions, as pytorch-crf has them."""
        for parameter in (self.start_transitions, self.transitions, self.end_transitions):
            init.uniform_(parameter, -0.1, 0.1)

    def forward(self, emissions: torch.Tensor, tags: torch.LongTensor | None, mask: torch.Tensor) -> torch.Tensor:
        """
        The negative log-likelihood of each sentence, in float32 (or wider); or, without tags, `max_marginals`, which
        callers get in this way, since offloaded and adapted weights are there only while the module is called.

        Args:
            emissions: (batch, sequence, tags).
            tags: (batch, sequence), or None.
            mask: bool (batch, sequence), `True` from the first token on, without gaps.

        Returns:
            (batch,), or (batch, sequence, tags) without tags.
        """
        if tags is None:
            return self.max_marginals(emissions, mask)
        emissions = emissions if emissions.dtype == torch.float64 else emissions.float()
        return self._log_partition(emissions, mask) - self._score(emissions, tags, mask)

    def _score(self, emissions, tags, mask) -> torch.Tensor:
        chosen = emissions.gather(2, tags[..., None])[..., 0]
        steps = self.transitions[tags[:, :-1], tags[:, 1:]]
        last = tags.gather(1, mask.sum(1, keepdim=True) - 1)[:, 0]
        total = (chosen * mask).sum(1) + (steps * mask[:, 1:]).sum(1)
        return total + self.start_transitions[tags[:, 0]] + self.end_transitions[last]

    def _log_partition(self, emissions, mask) -> torch.Tensor:
        until = self.start_transitions + emissions[:, 0]
        for at in range(1, emissions.shape[1]):
            longer = torch.logsumexp(until[:, :, None] + self.transitions, dim=1) + emissions[:, at]
            until = torch.where(mask[:, at, None], longer, until)
        return torch.logsumexp(until + self.end_transitions, dim=1)

    def decode(self, emissions: torch.Tensor, mask: torch.Tensor) -> torch.LongTensor:
        """
        The best path that the scheme allows.

        Args:
            emissions, mask: as in `forward`.

        Returns:
            (batch, sequence) tags on the emissions' device, 0 behind the end of a sentence.
        """
        return torch.from_numpy(viterbi(*self._as_numpy(emissions, mask))).to(emissions.device)

    @torch.compiler.disable  # NumPy computes it: a compiled graph ends before it
    def max_marginals(self, emissions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`max_marginals` of these emissions under the scheme: (batch, sequence, tags), without gradients."""
        return torch.from_numpy(max_marginals(*self._as_numpy(emissions, mask))).to(emissions.device)

    @torch.no_grad()
    def _as_numpy(self, emissions, mask):
        first, pairs, last = self._penalties
        scores = (self.start_transitions, self.transitions, self.end_transitions)
        start, transitions, end = (scores_.float().cpu().numpy() for scores_ in scores)
        lengths = mask.cpu().numpy().sum(1)
        chain = ChainScores(start + first, transitions + pairs, end + last, self._order)
        return emissions.float().cpu().numpy(), lengths, chain


class RoCBertBiLSTM(nn.Module):
    """
    One LSTM reads each sentence forwards and one backwards: what a bidirectional `nn.LSTM` gives for packed sentences.

    The second one gets every sentence turned round within its own length, so that padding never comes before it, and
    nothing has to be packed.
    """

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.forwards = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.backwards = nn.LSTM(input_size, hidden_size, batch_first=True)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, sequence, input), and a mask without gaps from the first token on -> (batch, sequence, 2 hidden)."""
        places = torch.arange(states.shape[1], device=states.device)
        # position t of a sentence of n tokens is n - 1 - t; padding changes places among itself
        turned = mask.sum(1, keepdim=True) - 1 - places
        turned = torch.where(turned < 0, turned + states.shape[1], turned)
        backwards, _ = self.backwards(_at(states, turned))
        forwards, _ = self.forwards(states)
        return torch.cat([forwards, _at(backwards, turned)], dim=-1)


class RoCBertTaggingHead(nn.Module):
    """
    Scores of every token's tags: `classifier_head` of the configuration is "linear", "crf" or "bilstm_crf".

    In evaluation the logits of a head with a CRF are its max-marginals, so that the tag with the highest logit at each
    token makes the best path; in training, and in a graph that is being exported or traced, they are the emissions.

    Attributes:
        decodes: whether it is so in evaluation too; `export_onnx` switches it off to compare emissions with emissions.
        warnings_given: what it has said of a training that leaves a part of it out.
    """

    def __init__(self, config: RoCBertConfig):
        super().__init__()
        labels = tuple(config.id2label[number] for number in range(config.num_labels))
        size = config.hidden_size
        # of tokens without a label; tags of words have no "O", but S may stand beside any whole word too
        alone = [number for kind in "OS" for number, label in enumerate(labels) if label.partition("-")[0] == kind]
        self.outside = alone[0] if alone else 0
        self.decodes = True
        self.warnings_given: set[str] = set()
        self.bilstm = None
        if config.classifier_head == "bilstm_crf":
            self.bilstm = RoCBertBiLSTM(size, config.lstm_hidden_size)
            size = 2 * config.lstm_hidden_size
        self.classifier = nn.Linear(size, config.num_labels)
        self.crf = RoCBertCRF(labels, config.tagging_scheme)

    def forward(
        self,
        states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        num_items: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            states: (batch, sequence, hidden), after dropout.
            attention_mask: (batch, sequence), padding on either side; None for no padding.
            labels: (batch, sequence). Tokens with -100 do not count in the mean. The first and the last token of a sentence,
                [CLS] and [SEP], are then outside every entity ("O", or S if there is no "O") in the path. The CRF leaves out
                all others, such as the further pieces of a word, as if their neighbours stood side by side. What is
                decoded has a tag for every token, whatever the labels are.
            num_items: what the sum over all sentences is divided by; default: the number of labels.

        Returns:
            Logits (batch, sequence, tags), and the mean negative log-likelihood per labelled token, if there are labels.
        """
        mask = torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
        if attention_mask is not None:
            mask = attention_mask.bool()
        # whichever side is padded
        order, back = _kept_first(mask)
        mask = mask.gather(1, order)
        states = _at(states, order)
        emissions = self.classifier(states if self.bilstm is None else self.bilstm(states, mask))
        loss = None
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self._warn_of_untrained_parts(labels is not None)
        if labels is not None:
            loss = self._losses(emissions, labels.gather(1, order), mask)
            loss = loss.sum() / ((labels >= 0).sum().clamp(min=1) if num_items is None else num_items)
        if self.decodes and not self.training and not _is_exporting():
            emissions = self.crf(emissions, None, mask)
        return _at(emissions, back), loss

    def _warn_of_untrained_parts(self, has_labels: bool) -> None:
        """Once, if an adapter leaves what stands around the classifier as it was drawn, or a loss is not the CRF's."""
        parts = [name for name in ("bilstm", "crf") if getattr(self, name) is not None]
        if not has_labels:
            text = (
                "a tagger with a CRF is in training and was given no labels: a loss on its logits, such as Trainer's with "
                "label_smoothing_factor, does not train the CRF"
            )
        elif _is_trained(self.classifier) and (
            frozen := [name for name in parts if not _is_trained(getattr(self, name))]
        ):
            text = (
                f"the classifier of the tagger is trained, its {' and '.join(frozen)} not: peft does not save them, so what "
                f"is loaded again has others, unless they come from a checkpoint; give peft modules_to_save={parts}"
            )
        else:
            return
        if text not in self.warnings_given:
            self.warnings_given.add(text)
            warnings.warn(text, stacklevel=2)

    def _losses(self, emissions: torch.Tensor, tags: torch.LongTensor, mask: torch.Tensor) -> torch.Tensor:
        """The negative log-likelihood of each sentence without the tokens inside it that have no tag."""
        places = torch.arange(mask.shape[1], device=mask.device)
        kept = mask & ((tags >= 0) | (places == 0) | (places == mask.sum(1, keepdim=True) - 1))
        order, _ = _kept_first(kept)
        tags = tags.masked_fill(tags < 0, self.outside)
        return self.crf(_at(emissions, order), tags.gather(1, order), kept.gather(1, order))


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _is_exporting() -> bool:
    """Whether a graph is made that can hold no NumPy; one of `torch.compile` ends before it."""
    # torch.compiler.is_exporting is not in torch 2.6, and is true for torch.compile too up to 2.12
    exported = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return exported or torch.jit.is_tracing()


def _kept_first(kept: torch.Tensor) -> tuple[torch.LongTensor, torch.LongTensor]:
    """The places (batch, sequence) of the tokens that are kept and then of the others, each in their order, and the way back."""
    # ONNX knows no stable sort
    back = torch.where(kept, kept.cumsum(1), kept.sum(1, keepdim=True) + (~kept).cumsum(1)) - 1
    places = torch.arange(kept.shape[1], device=kept.device).expand(kept.shape)
    return torch.zeros_like(back).scatter(1, back, places), back


def _at(states: torch.Tensor, places: torch.LongTensor) -> torch.Tensor:
    """(batch, sequence, size) at (batch, sequence) places."""
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
