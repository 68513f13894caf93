"""The order in which a pretraining run sees its sentences: shuffled, cut into batches by length, and resumable.

`SentenceBatches` is the batch sampler of a DataLoader, and `Texts` its dataset. Each process reads and orders the
sentences itself, which is cheap; the DataLoader's workers attack, tokenize and mask them, which is not. So the batches
are the same with any number of workers, and where the run stands is known without asking them.
"""

import copy
import zlib
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset, Sampler

POOL_BATCHES = 8
MARKS_KEPT = 1024  # pools whose beginning is remembered for `state_dict`; DataLoaders run ahead by a few batches only


class Texts(Dataset):
    """The dataset of a DataLoader whose batch sampler is `SentenceBatches`: the sampler's keys are the examples."""

    def __getitem__(self, key: dict) -> dict:
        return key


class SentencesInMemory:
    """A list of sentences, again and again; one of the things that `SentenceBatches` reads from.

    Like every source it has the number of the `epoch` being read, `next_sentences` (a few sentences that belong
    together, or None once at the end of an epoch), and the position: `state_dict`, `load_state_dict`.
    """

    buffer_size = None  # no other memory is taken by shuffling all of it

    def __init__(self, sentences: Sequence[str]):
        self.sentences = sentences
        self.epoch = 0
        self.index = 0

    def next_sentences(self) -> list[str] | None:
        if self.index == len(self.sentences):
            self.epoch, self.index = self.epoch + 1, 0
            return None
        self.index += 1
        return [self.sentences[self.index - 1]]

    def state_dict(self) -> dict:
        return {"epoch": self.epoch, "index": self.index}

    def load_state_dict(self, state: dict) -> None:
        self.epoch, self.index = state["epoch"], state["index"]

    def fingerprint(self) -> str:
        """What tells this corpus from another, so that a run is not resumed on the wrong one."""
        checksum = 0
        for sentence in self.sentences:
            checksum = zlib.crc32(sentence.encode("utf-8", "surrogatepass"), checksum)
        return f"{len(self.sentences)} sentences, checksum {checksum:08x}"


class SentenceBatches(Sampler):
    """Batches of `{"text", "epoch"}`, in an order that `seed` fixes and that can be taken up again at any batch.

    The sentences are shuffled, then taken `pool_batches` batches at a time, sorted by length and cut: a batch has
    little padding, and negatives that length alone does not tell apart. The batches of a pool come in random order.

    Args:
        sources: the sentences, in memory.
        batch_size: sentences of this process's batch. The *global* batch is that of all processes together,
            `batch_size * world_size` sentences, of which each process gets every `world_size`-th: all have like
            lengths. The global batches depend on their size, not on how many processes share them.
        seed: of the order.
        rank, world_size: this process's number, and how many there are.
        pool_batches: global batches that are sorted by length together.
        epochs: stop after this many; default, never. Every epoch has every sentence exactly once, and without a stop
            a batch may hold the end of one epoch and the beginning of the next. The last batch of all is smaller, and
            the same number of sentences in every process, for which up to `world_size - 1` sentences are left out.

    Raises:
        ValueError: there are fewer sentences than a global batch holds, or an argument is out of range.

    Example:
        >>> batches = SentenceBatches(sentences, batch_size=64, seed=0)
        >>> loader = DataLoader(Texts(), batch_sampler=batches, collate_fn=collator, num_workers=1)
        >>> state = batches.state_dict(consumed=1000)  # after 1000 batches were trained on; later:
        >>> batches.load_state_dict(state)  # the next iteration goes on with batch 1001
    """

    def __init__(
        self,
        sources: Sequence[str],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        pool_batches: int = POOL_BATCHES,
        epochs: int | None = None,
    ):
        for name, value in (("batch_size", batch_size), ("pool_batches", pool_batches), ("world_size", world_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie between 0 and world_size - 1 ({world_size - 1}), got {rank}")
        if epochs is not None and epochs < 1:
            raise ValueError(f"epochs must be at least 1, or None for no end, got {epochs}")
        self.global_batch = batch_size * world_size
        if len(sources) < self.global_batch:
            raise ValueError(_too_few(len(sources), self.global_batch))
        self.rank, self.world_size = rank, world_size
        self.pool_batches = pool_batches
        self.seed = (seed,)
        source = SentencesInMemory(sources)
        self.shuffled = _ShuffledSentences(source, self.seed, self.global_batch, epochs)
        self.run = {"seed": seed, "global_batch": self.global_batch, "pool_batches": pool_batches}
        self.run["sources"] = source.fingerprint()
        self.start = {"shuffled": self.shuffled.state_dict(), "pool": 0, "before": 0, "skip": 0}
        self.marks: deque[dict] = deque(maxlen=MARKS_KEPT)
        self.epoch = self.sentences = 0

    def __iter__(self) -> Iterator[list[dict]]:
        self.shuffled.load_state_dict(self.start["shuffled"])
        self.marks.clear()
        pool_number, given, skip = self.start["pool"], self.start["before"], self.start["skip"]
        while True:
            self.marks.append({"shuffled": self.shuffled.state_dict(), "pool": pool_number, "before": given})
            batches = self._cut(self.shuffled.take(self.pool_batches * self.global_batch))
            order = np.random.default_rng((*self.seed, 1, pool_number)).permutation(len(batches))
            for number in order[skip:]:
                self.epoch = max(epoch for epoch, _ in batches[number])
                self.sentences = (given + skip + 1) * self.global_batch
                skip += 1
                yield [{"text": text, "epoch": epoch} for epoch, text in batches[number][self.rank :: self.world_size]]
            if len(batches) < self.pool_batches:
                return
            given, skip, pool_number = given + len(batches), 0, pool_number + 1

    def state_dict(self, consumed: int) -> dict:
        """Where the run stands after `consumed` batches since its very beginning, as JSON has it.

        A DataLoader asks for batches before they are trained on; hence the number.
        """
        marks = self.marks or [self.start]
        mark = next((mark for mark in reversed(marks) if mark["before"] <= consumed), None)
        if mark is None or consumed < 0:
            raise ValueError(
                f"consumed must be a batch of the latest pools, from {marks[0]['before']} on, got {consumed}"
            )
        return copy.deepcopy({**mark, "skip": consumed - mark["before"], "run": self.run})

    def load_state_dict(self, state: dict) -> None:
        """Let the next iteration go on where `state` was taken, in a run with the same corpus, seed and batch size.

        Raises:
            ValueError: the state is of another run; the message names what differs.
        """
        differing = [name for name, value in self.run.items() if state["run"].get(name) != value]
        if differing:
            told = ", ".join(f"{name} was {state['run'].get(name)!r}, now {self.run[name]!r}" for name in differing)
            raise ValueError(f"the position in the data is of another run: {told}")
        self.start = {name: state[name] for name in ("shuffled", "pool", "before", "skip")}
        self.marks.clear()

    @property
    def report(self) -> dict:
        """What has been read: `epoch`, the number of `sentences` in all processes."""
        return {"epoch": self.epoch, "sentences": self.sentences}

    def _cut(self, pool: list[tuple[int, str]]) -> list[list[tuple[int, str]]]:
        """Global batches of like lengths."""
        pool.sort(key=lambda example: len(example[1]))
        del pool[len(pool) - len(pool) % self.world_size :]  # of the run's last pool only
        return [pool[i : i + self.global_batch] for i in range(0, len(pool), self.global_batch)]


class _ShuffledSentences:
    """The sentences of a source in random order: a buffer is filled, shuffled and given out, then the next one.

    A buffer ends with the epoch, so that every sentence of an epoch comes before all of the next. Its position is where
    the source stood when the buffer was begun, and how many sentences of the buffer are used.
    """

    def __init__(self, source, seed: tuple[int, ...], at_least: int, epochs: int | None):
        self.source, self.seed, self.at_least, self.epochs = source, seed, at_least, epochs
        self.number = self.used = 0
        self.position = source.state_dict()
        self.buffer: list[tuple[int, str]] | None = None

    def take(self, count: int) -> list[tuple[int, str]]:
        """The next (epoch, sentence) pairs; fewer than `count` only at the end of the last epoch."""
        taken = []
        while len(taken) < count:
            if self.buffer is None:
                self._fill()
            elif self.used == len(self.buffer):
                if not self.buffer:
                    break
                self.number, self.used, self.position = self.number + 1, 0, self.source.state_dict()
                self._fill()
            new = self.buffer[self.used : self.used + count - len(taken)]
            self.used += len(new)
            taken += new
        return taken

    def state_dict(self) -> dict:
        return {"source": copy.deepcopy(self.position), "buffer": self.number, "used": self.used}

    def load_state_dict(self, state: dict) -> None:
        self.position = copy.deepcopy(state["source"])
        self.number, self.used = state["buffer"], state["used"]
        self.buffer = None

    def _fill(self) -> None:
        self.source.load_state_dict(self.position)
        found = []
        limit = self.source.buffer_size or float("inf")
        if self.epochs is None or self.source.epoch < self.epochs:
            epoch = self.source.epoch
            while len(found) < limit and (sentences := self.source.next_sentences()) is not None:
                found += [(epoch, sentence) for sentence in sentences]
            if self.number == 0 and len(found) < min(self.at_least, limit):
                raise ValueError(_too_few(len(found), self.at_least))
        order = np.random.default_rng((*self.seed, 0, self.number)).permutation(len(found)).tolist()
        self.buffer = [found[i] for i in order]


def _too_few(sentences: int, global_batch: int) -> str:
    return (
        f"the corpus has {sentences} sentences to train on, fewer than batch_size times the number of processes "
        f"({global_batch}): give more text or a smaller batch"
    )
