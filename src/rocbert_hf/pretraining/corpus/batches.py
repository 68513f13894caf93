"""The order in which a pretraining run sees its sentences: mixed, shuffled, cut into batches by length, and resumable.

`SentenceBatches` is the batch sampler of a DataLoader, and `Texts` its dataset. Each process reads and orders the
sentences itself, which is cheap; the DataLoader's workers attack, tokenize and mask them, which is not. So the batches
are the same with any number of workers, and where the run stands is known without asking them.
"""

import copy
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset, Sampler

from .readers import BUFFER_SENTENCES, SentencesInMemory, checksum_of
from .text_source import TextSource, open_source

POOL_BATCHES = 8
MARKS_KEPT = 1024  # pools whose beginning is remembered for `state_dict`; DataLoaders run ahead by a few batches only


class Texts(Dataset):
    """The dataset of a DataLoader whose batch sampler is `SentenceBatches`: the sampler's keys are the examples."""

    def __getitem__(self, key: dict) -> dict:
        return key


class SentenceBatches(Sampler):
    """Batches of `{"text", "epoch"}`, in an order that `seed` fixes and that can be taken up again at any batch.

    The sentences are shuffled, then taken `pool_batches` batches at a time, sorted by length and cut: a batch has
    little padding, and negatives that length alone does not tell apart. The batches of a pool come in random order.

    Args:
        sources: sentences in memory, which are shuffled as a whole; or `TextSource`s, which are read as they are
            needed and shuffled by the buffer. Several sources are mixed by their weights, to the sentence, and each
            begins its next epoch by itself.
        batch_size: sentences of this process's batch. The *global* batch is that of all processes together,
            `batch_size * world_size` sentences, of which each process gets every `world_size`-th: all have like
            lengths.
        seed: of the order.
        rank, world_size: this process's number, and how many there are.
        max_length: characters at which `TextSource`s' sentences are cut.
        pool_batches: global batches that are sorted by length together; fewer if an epoch has fewer, so that a batch does
            not hold the copies of a sentence from several epochs, which have one length.
        epochs: stop after this many; default, never. Every epoch has every sentence exactly once, and without a stop
            a batch may hold the end of one epoch and the beginning of the next. The last batch of all is smaller, and
            the same number of sentences in every process, for which up to `world_size - 1` sentences are left out.
        shard_by: how the sources are shared. "sentences": every process reads everything and keeps its share, so
            that the global batches do not depend on the number of processes; good for one machine. "files": every
            process reads its own files, or its own lines (or sentences in memory) where there are fewer files than
            processes; of a `DatasetRows`, its own files where their number is a multiple of `world_size`, else its own
            rows. For corpora that one process cannot read as fast as all of them train; its position is its own.
        shuffle_buffer: sentences of `TextSource`s that are shuffled together; about 400 bytes of memory each.
        exclude: sentences to leave out: those held out for evaluation.

    Raises:
        OSError, ValueError: a source does not exist or has no text, there are fewer sentences than a global batch
            holds, or an argument is out of range.

    Example:
        >>> batches = SentenceBatches([TextSource("news/*.txt.gz")], batch_size=64, seed=0)
        >>> loader = DataLoader(Texts(), batch_sampler=batches, collate_fn=collator, num_workers=1)
        >>> state = batches.state_dict(consumed=1000)  # after 1000 batches were trained on; later:
        >>> batches.load_state_dict(state)  # the next iteration goes on with batch 1001
    """

    def __init__(
        self,
        sources: Sequence[str] | Sequence[TextSource],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        max_length: int = 126,
        pool_batches: int = POOL_BATCHES,
        epochs: int | None = None,
        shard_by: str = "sentences",
        shuffle_buffer: int = BUFFER_SENTENCES,
        exclude: Collection[str] = (),
    ):
        sizes = {"batch_size": batch_size, "pool_batches": pool_batches, "world_size": world_size}
        for name, value in {**sizes, "shuffle_buffer": shuffle_buffer}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must lie between 0 and world_size - 1 ({world_size - 1}), got {rank}")
        if epochs is not None and epochs < 1:
            raise ValueError(f"epochs must be at least 1, or None for no end, got {epochs}")
        if shard_by not in ("sentences", "files"):
            raise ValueError(f"shard_by must be 'sentences' or 'files', got {shard_by!r}")
        self.run = {"seed": seed, "global_batch": batch_size * world_size}
        self.seed: tuple[int, ...] = (seed,)
        if shard_by == "files":
            self.run |= {"rank": rank, "world_size": world_size}
            self.seed, share = (seed, rank), {"rank": rank, "world_size": world_size}
            rank, world_size = 0, 1  # everything that is read is this process's
        else:
            share = {}
        self.rank, self.world_size = rank, world_size
        self.global_batch = batch_size * world_size
        self.source = _open(sources, max_length=max_length, seed=seed, **share)
        if epochs is not None and isinstance(self.source, Mixture):
            raise ValueError("epochs must be None for several sources: each has epochs of its own length")
        streamed = self.source.buffer_size is not None
        self.run |= {
            "shuffle_buffer": shuffle_buffer if streamed else None,
            "max_length": max_length if streamed else None,  # in memory, sentences are not cut
            "exclude": checksum_of(sorted(set(exclude))),
            "sources": self.source.fingerprint(),
        }
        self.shuffled = _ShuffledSentences(
            self.source, self.seed, shuffle_buffer, self.global_batch, epochs, frozenset(exclude)
        )
        whole_epoch = self.shuffled.sentences_of_epoch
        self.pool_batches = pool_batches
        if whole_epoch is not None:
            self.pool_batches = max(1, min(pool_batches, whole_epoch // self.global_batch))
        self.run["pool_batches"] = self.pool_batches
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
                self.sentences += len(batches[number])
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
        """Let the next iteration go on where `state` was taken, in a run with the same data in the same order.

        Raises:
            ValueError: the state is of another run; the message names what differs.
        """
        names = sorted(self.run.keys() | state["run"].keys())
        told = [
            f"{name} was {state['run'].get(name, 'not noted')!r}, now {self.run.get(name, 'not noted')!r}"
            for name in names
            if state["run"].get(name, "not noted") != self.run.get(name, "not noted")
        ]
        if told:
            raise ValueError(f"the position in the data is of another run: {', '.join(told)}")
        self.start = {name: state[name] for name in ("shuffled", "pool", "before", "skip")}
        self.marks.clear()

    @property
    def report(self) -> dict:
        """What has been read so far: `epoch`, `sentences` since this object was made, lines `skipped` by reason."""
        return {"epoch": self.epoch, "sentences": self.sentences, "skipped": dict(self.source.skipped)}

    def _cut(self, pool: list[tuple[int, str]]) -> list[list[tuple[int, str]]]:
        """Global batches of like lengths."""
        pool.sort(key=lambda example: len(example[1]))
        del pool[len(pool) - len(pool) % self.world_size :]  # of the run's last pool only
        return [pool[i : i + self.global_batch] for i in range(0, len(pool), self.global_batch)]


def sample_sentences(
    sources: Sequence[str] | Sequence[TextSource],
    count: int,
    seed: int,
    max_length: int = 126,
    shuffle_buffer: int = BUFFER_SENTENCES,
) -> list[str]:
    """Different sentences to hold out, drawn from the first buffer; give them to `SentenceBatches` as `exclude`.

    Raises:
        ValueError: there are not more than `count` different sentences there, so none would be left to train on.
    """
    source = _open(sources, max_length=max_length, seed=seed)
    limit = shuffle_buffer if source.buffer_size else float("inf")
    found: list[str] = []
    while len(found) < limit and (read := source.next_sentences()) is not None:
        found += read[1]
    sentences = list(dict.fromkeys(found))
    if not 1 <= count < len(sentences):
        of = f"the {shuffle_buffer:,} that shuffle_buffer allows to draw from" if len(found) >= limit else "this corpus"
        raise ValueError(f"held-out sentences must be between 1 and {len(sentences) - 1} of {of}, got {count}")
    return [sentences[i] for i in np.random.default_rng((seed, 2)).permutation(len(sentences))[:count]]


class Mixture:
    """Several sources as one without end: each gives the share of the sentences that its weight says.

    The next line or row always comes from the source that is furthest behind its share, so that no chance is needed.
    """

    buffer_size = BUFFER_SENTENCES

    def __init__(self, sources: Sequence, weights: Sequence[float]):
        self.sources, self.weights = sources, weights
        self.given = [0] * len(sources)

    def next_sentences(self) -> tuple[int, list[str]]:
        behind = min(range(len(self.sources)), key=lambda i: self.given[i] / self.weights[i])
        source = self.sources[behind]
        while (found := source.next_sentences()) is None:
            pass  # its next epoch begins; an empty source is an error of its own
        self.given[behind] += len(found[1])
        return found

    @property
    def epoch(self) -> int:
        """How often every one of them has been read."""
        return min(source.epoch for source in self.sources)

    def state_dict(self) -> dict:
        return {"given": list(self.given), "sources": [source.state_dict() for source in self.sources]}

    def load_state_dict(self, state: dict) -> None:
        self.given = list(state["given"])
        for source, its_state in zip(self.sources, state["sources"], strict=True):
            source.load_state_dict(its_state)

    def fingerprint(self) -> list:
        return [[weight, source.fingerprint()] for weight, source in zip(self.weights, self.sources, strict=True)]

    @property
    def skipped(self) -> Counter:
        return sum((source.skipped for source in self.sources), Counter())


def _open(sources: Sequence[str] | Sequence[TextSource], rank: int = 0, world_size: int = 1, **options):
    """One source of this process's sentences, at its beginning, of which it is certain that there is something to read."""
    if all(isinstance(source, str) for source in sources):
        return SentencesInMemory(sources[rank::world_size])
    if not all(isinstance(source, TextSource) for source in sources):
        raise ValueError("sources must be sentences or TextSources, all of one kind")
    opened = [open_source(source, rank=rank, world_size=world_size, **options) for source in sources]
    for source in opened:
        beginning = source.state_dict()
        source.next_sentences()
        source.load_state_dict(beginning)
    return (
        opened[0]
        if len(opened) == 1
        else Mixture(opened, [1.0 if source.weight is None else source.weight for source in sources])
    )


class _ShuffledSentences:
    """The sentences of a source in random order: a buffer is filled, shuffled and given out, then the next one.

    A buffer ends with the epoch, so that every sentence of an epoch comes before all of the next. Its position is where
    the source stood when the buffer was begun, and how many sentences of the buffer are used.

    Attributes:
        sentences_of_epoch: how many there are to train on, if the first buffer holds a whole epoch (of several sources, an
            epoch of each); else None.
    """

    def __init__(self, source, seed, buffer_size: int, at_least: int, epochs: int | None, exclude: frozenset[str]):
        self.source, self.seed, self.at_least, self.epochs, self.exclude = source, seed, at_least, epochs, exclude
        self.buffer_size = buffer_size if source.buffer_size else float("inf")
        self.number = self.used = 0
        self.position = source.state_dict()
        self.buffer: list[tuple[int, str]] | None = None
        self.sentences_of_epoch: int | None = None
        self._fill()

    def take(self, count: int) -> list[tuple[int, str]]:
        """The next (epoch, sentence) pairs; fewer than `count` only at the end of the last epoch."""
        taken = []
        while len(taken) < count:
            if self.buffer is None:
                self.source.load_state_dict(self.position)
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
        if (state["buffer"], state["source"]) != (self.number, self.position):
            self.buffer = None
        self.position = copy.deepcopy(state["source"])
        self.number, self.used = state["buffer"], state["used"]

    def _fill(self) -> None:
        """Read a buffer from where the source stands, which is at `position`: empty if all epochs are over."""
        found: list[tuple[int, str]] = []
        epoch_ends = 0
        while len(found) < self.buffer_size and (self.epochs is None or self.source.epoch < self.epochs):
            read = self.source.next_sentences()
            if read is None:
                epoch_ends += 1
                if found or epoch_ends == 2:  # else the last buffer was full just at the epoch's end
                    break
            else:
                epoch, sentences = read
                found += [(epoch, sentence) for sentence in sentences if sentence not in self.exclude]
        if self.number == 0 and (epoch_ends or self.source.epoch):
            # of several sources, the shorter ones have come more than once
            count = len(found) if epoch_ends else len({sentence for _, sentence in found})
            if count < self.at_least:
                raise ValueError(
                    f"the corpus has {count} sentences to train on, fewer than batch_size times the number of processes "
                    f"({self.at_least}): give more text or a smaller batch"
                )
            self.sentences_of_epoch = count
        order = np.random.default_rng((*self.seed, 0, self.number)).permutation(len(found)).tolist()
        self.buffer = [found[i] for i in order]
