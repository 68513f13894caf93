"""The order of the sentences: the same for any number of workers and processes, each once an epoch, resumable."""

import bz2
import gzip
import hashlib
import itertools
import json
import lzma
from collections import Counter
from dataclasses import replace

import pyarrow
import pyarrow.parquet
import pytest
from torch.utils.data import DataLoader

from rocbert_hf.data.tables import table_text
from rocbert_hf.files import OPENERS, write_whole
from rocbert_hf.pretraining.corpus.batches import SentenceBatches, Texts, sample_sentences
from rocbert_hf.pretraining.corpus.readers import TextFiles
from rocbert_hf.pretraining.corpus.text_source import TextSource

SENTENCES = ["句" * (1 + 37 * i % 97) + str(i) for i in range(500)]


def first(batches, count):
    return list(itertools.islice(batches, count))


def texts_of(batches):
    return [example["text"] for batch in batches for example in batch]


def test_every_epoch_has_every_sentence_once_in_its_own_order():
    examples = list(itertools.chain(*first(SentenceBatches(SENTENCES, 7, seed=3), 300)))
    epochs = [[example["text"] for example in examples if example["epoch"] == number] for number in range(4)]
    assert all(sorted(texts) == sorted(SENTENCES) for texts in epochs)
    assert len({tuple(texts) for texts in epochs}) == 4
    assert [example["epoch"] for example in examples] != sorted(example["epoch"] for example in examples)


def test_the_seed_fixes_the_order():
    runs = [first(SentenceBatches(SENTENCES, 7, seed), 100) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert texts_of(runs[0]) != texts_of(runs[2])


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_do_not_change_the_batches(num_workers):
    loader = DataLoader(
        Texts(), batch_sampler=SentenceBatches(SENTENCES, 8, 0), collate_fn=list, num_workers=num_workers
    )
    assert first(loader, 20) == first(SentenceBatches(SENTENCES, 8, 0), 20)


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_the_batches_of_one(world_size):
    together = first(SentenceBatches(SENTENCES, 12, seed=5), 90)
    shares = [
        first(SentenceBatches(SENTENCES, 12 // world_size, seed=5, rank=rank, world_size=world_size), 90)
        for rank in range(world_size)
    ]
    for batch, *parts in zip(together, *shares, strict=True):
        assert {len(part) for part in parts} == {12 // world_size}
        assert Counter(texts_of(parts)) == Counter(texts_of([batch]))


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_of_some_epochs_ends(world_size):
    runs = [
        list(SentenceBatches(SENTENCES, 8, seed=0, rank=rank, world_size=world_size, epochs=2))
        for rank in range(world_size)
    ]
    seen = Counter(text for run in runs for text in texts_of(run))
    assert set(seen) == set(SENTENCES)
    assert set(seen.values()) == {2}
    assert len({tuple(map(len, run)) for run in runs}) == 1


def test_sentences_that_do_not_fill_a_row_of_every_process_are_left_out():
    runs = [list(SentenceBatches(SENTENCES, 8, seed=0, rank=rank, world_size=3, epochs=1)) for rank in range(3)]
    assert len({tuple(map(len, run)) for run in runs}) == 1
    seen = Counter(text for run in runs for text in texts_of(run))
    assert len(seen) == 498
    assert set(seen.values()) == {1}


@pytest.mark.parametrize("consumed", [0, 1, 7, 8, 9, 100, 131])
def test_a_run_goes_on_where_it_stopped(consumed):
    expected = first(SentenceBatches(SENTENCES, 7, seed=1), 200)
    batches = SentenceBatches(SENTENCES, 7, seed=1)
    first(batches, consumed + 5)  # a DataLoader runs ahead
    state = json.loads(json.dumps(batches.state_dict(consumed)))

    resumed = SentenceBatches(SENTENCES, 7, seed=1)
    resumed.load_state_dict(state)
    assert resumed.state_dict(consumed) == state
    assert first(resumed, 30) == expected[consumed : consumed + 30]
    again = SentenceBatches(SENTENCES, 7, seed=1)
    again.load_state_dict(resumed.state_dict(consumed + 20))
    assert first(again, 20) == expected[consumed + 20 : consumed + 40]


def test_a_run_may_go_on_with_another_number_of_processes():
    batches = SentenceBatches(SENTENCES, 12, seed=1)
    expected = first(batches, 50)
    resumed = SentenceBatches(SENTENCES, 6, seed=1, rank=1, world_size=2)
    resumed.load_state_dict(batches.state_dict(30))
    assert first(resumed, 20) == [batch[1::2] for batch in expected[30:]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "seed was 1, now 2"),
        ({"batch_size": 6}, "global_batch was 7, now 6"),
        ({"sources": SENTENCES[1:]}, "sources was '500 sentences"),
        ({"exclude": SENTENCES[:3]}, "exclude was '0 sentences, .*', now '3 sentences"),
    ],
)
def test_the_position_of_another_run_is_refused(change, message):
    run = {"sources": SENTENCES, "batch_size": 7, "seed": 1}
    batches = SentenceBatches(**run)
    first(batches, 3)
    with pytest.raises(ValueError, match=message):
        SentenceBatches(**run | change).load_state_dict(batches.state_dict(2))


def test_a_position_in_text_that_is_cut_or_chosen_otherwise_is_refused(tmp_path):
    plain(tmp_path, "a.jsonl", [json.dumps({"text": line, "title": line}) for line in LINES])
    source = TextSource(str(tmp_path / "a.jsonl"))
    run = {"sources": [source], "batch_size": 7, "seed": 1}
    state = SentenceBatches(**run).state_dict(0)
    SentenceBatches(**run, exclude=()).load_state_dict(state)
    for change, message in (
        ({"max_length": 30}, "max_length was 126, now 30"),
        ({"sources": [replace(source, column="title")]}, "sources was '.* column text', now '.* column title'"),
    ):
        with pytest.raises(ValueError, match=message):
            SentenceBatches(**run | change).load_state_dict(state)
    del state["run"]["max_length"], state["run"]["exclude"]  # as it was before these were kept
    with pytest.raises(ValueError, match="exclude was 'not noted'"):
        SentenceBatches(**run).load_state_dict(state)


@pytest.mark.parametrize("world_size", [2, 3])
def test_sentences_in_memory_are_shared_as_files_are(world_size):
    runs = [
        first(SentenceBatches(SENTENCES, 8, seed=0, rank=rank, world_size=world_size, shard_by="files"), 70)
        for rank in range(world_size)
    ]
    seen = Counter(example["text"] for run in runs for batch in run for example in batch if example["epoch"] == 0)
    assert seen == Counter(SENTENCES)


@pytest.mark.parametrize("blank", ["", "　 "])
def test_lines_are_shared_evenly_whatever_is_blank(tmp_path, blank):
    file = plain(tmp_path, "a.txt", [text for line in LINES for text in (line, blank)])
    options = {"seed": 0, "world_size": 2, "shard_by": "files", "shuffle_buffer": 50}
    runs = [first(SentenceBatches([TextSource(file)], 8, rank=rank, **options), 50) for rank in range(2)]
    shares = [{e["text"] for batch in run for e in batch if e["epoch"] == 0} for run in runs]
    assert [len(share) for share in shares] == [200, 200]
    assert set.union(*shares) == set(LINES)


def test_batches_hold_like_lengths():
    batches = first(SentenceBatches(SENTENCES, 10, seed=0), 48)
    tokens = sum(len(text) for text in texts_of(batches))
    padded = sum(max(len(example["text"]) for example in batch) * len(batch) for batch in batches)
    assert padded < 1.15 * tokens  # of batches drawn at random half is padding


@pytest.mark.parametrize("in_memory", [True, False])
def test_of_a_small_corpus_no_batch_holds_a_sentence_of_several_epochs_if_it_need_not(tmp_path, in_memory):
    texts = [text for text in SENTENCES if len(text) < 60][:48]
    sources = texts if in_memory else [TextSource(plain(tmp_path, "a.txt", texts))]
    batches = first(SentenceBatches(sources, 16, seed=0), 30)
    for number in range(0, 30, 3):
        assert sorted(texts_of(batches[number : number + 3])) == sorted(texts)


def test_bad_arguments_are_named():
    for options, message in (
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 501}, "500 sentences .* fewer than batch_size"),
        ({"batch_size": 251, "world_size": 2}, r"fewer than batch_size times the number of processes \(502\)"),
        ({"rank": 2, "world_size": 2}, "rank must lie between 0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"seed": -1}, "seed must not be negative, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            SentenceBatches(**{"sources": SENTENCES, "batch_size": 7, "seed": 0} | options)


# ---- sources that are read as they are needed


LINES = [f"第{i}句" + "话" * (i * 7 % 30) for i in range(400)]


def plain(folder, name, lines, opener=open):
    with opener(folder / name, "wb") as file:
        file.write("".join(line + "\n" for line in lines).encode())
    return str(folder / name)


def jsonl(folder, name, lines):
    return plain(folder, name, [json.dumps({"text": line}) for line in lines])


def parquet(folder, lines):
    """A dataset as the Hub has it: a folder of parquet files."""
    folder.mkdir()
    for part in range(3):
        texts = lines[part::3]
        table = pyarrow.table({"id": range(len(texts)), "text": texts})
        pyarrow.parquet.write_table(table, folder / f"train-{part}-of-3.parquet", row_group_size=25)
    return str(folder)


@pytest.fixture(
    scope="module", params=["plain", "packed", "jsonl", "csv", "dataset", "parquet file", "files", "mixture"]
)
def sources(request, tmp_path_factory):
    """The same 400 lines from every kind of source."""
    folder = tmp_path_factory.mktemp("corpus")
    match request.param:
        case "plain":
            return [TextSource(plain(folder, "a.txt", LINES))]
        case "packed":
            return [TextSource(plain(folder, "a.txt.xz", LINES, lzma.open))]
        case "jsonl":
            return [TextSource(jsonl(folder, "a.jsonl", LINES))]
        case "csv":
            for part in range(3):
                rows = ({"id": str(number), "text": text} for number, text in enumerate(LINES[part::3]))
                write_whole(folder / f"{part}.csv.gz", "".join(table_text(rows, ".csv")))
            return [TextSource(str(folder))]
        case "dataset":
            return [TextSource(parquet(folder / "data", LINES))]
        case "parquet file":
            return [TextSource(f"{parquet(folder / 'data', LINES)}/*.parquet")]
        case "files":
            for part in range(5):
                plain(folder, f"{part}.txt.gz", LINES[part::5], gzip.open)
            return [TextSource(str(folder))]
        case "mixture":
            some = TextSource(plain(folder, "a.txt", LINES[:100]))
            return [some, TextSource(parquet(folder / "data", LINES[100:]), weight=3)]


SMALL_BUFFER = {"batch_size": 6, "seed": 1, "shuffle_buffer": 90, "pool_batches": 3}


@pytest.mark.parametrize("shard_by", ["sentences", "files"])
@pytest.mark.parametrize("world_size", [1, 2])
def test_every_source_gives_every_sentence_once_an_epoch(sources, shard_by, world_size):
    runs = [
        first(SentenceBatches(sources, **SMALL_BUFFER, shard_by=shard_by, rank=rank, world_size=world_size), 140)
        for rank in range(world_size)
    ]
    seen = Counter(text for run in runs for batch in run for text in [e["text"] for e in batch if e["epoch"] == 0])
    assert seen == Counter(LINES)


@pytest.mark.parametrize("shard_by", ["sentences", "files"])
def test_every_source_goes_on_where_it_stopped(sources, shard_by):
    options = SMALL_BUFFER | {"shard_by": shard_by, "rank": 1, "world_size": 2}
    expected = first(SentenceBatches(sources, **options), 120)
    for consumed in (0, 5, 40, 77):  # 33 global batches per epoch
        batches = SentenceBatches(sources, **options)
        first(batches, consumed + 4)
        state = json.loads(json.dumps(batches.state_dict(consumed)))
        resumed = SentenceBatches(sources, **options)
        resumed.load_state_dict(state)
        assert first(resumed, 30) == expected[consumed : consumed + 30]


def test_a_packed_file_is_unpacked_once_an_epoch(tmp_path, monkeypatch):
    opened = []

    def noted(*given):
        opened.append(given)
        return gzip.open(*given)

    monkeypatch.setitem(OPENERS, ".gz", noted)
    source = TextSource(plain(tmp_path, "a.txt.gz", LINES, gzip.open))
    batches = SentenceBatches([source], batch_size=8, seed=0, shuffle_buffer=50)
    opened.clear()
    assert {example["epoch"] for batch in first(batches, 140) for example in batch} == {0, 1, 2}
    assert len(opened) <= 3


def test_small_sources_that_are_mixed_are_counted_together(tmp_path):
    sources = [TextSource(plain(tmp_path, f"{n}.txt", LINES[20 * n : 20 * n + 20]), weight=1 + n) for n in range(2)]
    assert SentenceBatches(sources, 40, seed=0).pool_batches == 1
    assert SentenceBatches(sources, 13, seed=0).pool_batches == 3
    with pytest.raises(ValueError, match="40 sentences to train on, fewer than"):
        SentenceBatches(sources, 41, seed=0)
    with pytest.raises(ValueError, match="37 sentences to train on, fewer than"):
        SentenceBatches(sources, 40, seed=0, exclude=LINES[18:21])


def test_what_describes_the_files_of_a_folder_is_not_their_text(tmp_path):
    for part in range(2):
        plain(tmp_path, f"c4.{part}.json.gz", [json.dumps({"text": line}) for line in LINES[part::2]], gzip.open)
    (tmp_path / ".cache").mkdir()
    for name in ("dataset_infos.json", "README.md", ".cache/a.txt"):
        (tmp_path / name).write_text("{}")
    batches = SentenceBatches([TextSource(str(tmp_path))], 8, 0, epochs=1)
    assert sorted(texts_of(batches)) == sorted(LINES)
    assert batches.report["skipped"] == {}


def test_nothing_but_a_buffer_is_read_ahead(tmp_path):
    file = tmp_path / "a.txt"
    plain(tmp_path, "a.txt", LINES)
    with file.open("ab") as stream:
        stream.seek(2**40)  # a file of a terabyte, nearly all of it a hole
        stream.write(b"\n")
    batches = SentenceBatches([TextSource(str(file))], batch_size=10, seed=0, shuffle_buffer=50)
    assert set(texts_of(first(batches, 30))) <= set(LINES)


def test_weights_are_shares_of_the_sentences(tmp_path):
    long = "长句。" * 100  # a document of several sentences
    sources = [
        TextSource(plain(tmp_path, "a.txt", LINES), weight=0.2),
        TextSource(plain(tmp_path, "b.txt", [f"{i}{long}" for i in range(9)]), weight=0.3),
    ]
    texts = texts_of(first(SentenceBatches(sources, 10, seed=0, shuffle_buffer=100), 100))
    assert sum("长" in text for text in texts) / len(texts) == pytest.approx(0.6, abs=0.02)


BAD_LINES = {
    "not UTF-8": "坏的".encode("gb18030"),
    "not JSON": b'{"text": "half',
    "no text": b'{"content": "a"}',
    "too long": json.dumps({"text": "长" * 1_000_001}).encode(),
    "control characters": json.dumps({"text": "\x00\x01\x02\x03好"}).encode(),
    "half a character": b'{"text": "\\ud83d"}',
}


def test_bad_lines_are_counted_and_skipped(tmp_path):
    good = [json.dumps({"text": line}).encode() for line in LINES]
    lines = [line for pair in itertools.zip_longest(good, BAD_LINES.values()) for line in pair if line]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([b"x" * 9_000_000, *lines]))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"\n".join(good))[:-100])
    batches = SentenceBatches([TextSource((str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl.gz")))], 8, 0, epochs=1)
    assert set(texts_of(list(batches))) == set(LINES)
    expected = dict.fromkeys(BAD_LINES, 1) | {"too long": 2, "damaged file": 1}
    assert batches.report["skipped"] == expected
    assert batches.report["epoch"] == 0


@pytest.mark.parametrize("packing", [gzip, lzma, bz2])
def test_a_file_damaged_in_the_middle_is_read_up_to_there_and_again(tmp_path, packing):
    lines = [f"{i} {hashlib.sha256(str(i).encode()).hexdigest()}" for i in range(20_000)]
    packed = bytearray(packing.compress("\n".join(lines).encode()))
    damaged = len(packed) * 3 // 4
    packed[damaged : damaged + 100] = bytes(100)
    path = tmp_path / f"a.txt.{ {gzip: 'gz', lzma: 'xz', bz2: 'bz2'}[packing] }"
    path.write_bytes(packed)
    reader = TextFiles(path, on_error="skip")
    found = []
    while (read := reader.next_sentences()) is not None:
        found += read[1]
        if len(found) == 5_000:
            state = reader.state_dict()
    assert found[:12_000] == lines[:12_000]  # some of what follows is garbage, whose checksum comes later
    assert reader.skipped["damaged file"] == 1
    again = TextFiles(path, on_error="skip")
    again.load_state_dict(state)
    rest = []
    while (read := again.next_sentences()) is not None:
        rest += read[1]
    assert rest == found[5_000:]


def test_rows_without_text_are_counted_and_skipped(tmp_path):
    table = pyarrow.table({"text": [None, *LINES, "\x01\x02"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    batches = SentenceBatches([TextSource(str(tmp_path / "a.parquet"))], 8, 0, epochs=1)
    assert sorted(texts_of(list(batches))) == sorted(LINES)
    assert batches.report["skipped"] == {"no text": 1, "control characters": 1}


BAD_ROWS = {
    "not the header's fields": b"1\n",
    "not UTF-8": "1,坏的\n".encode("gb18030"),
    "too long": f"1,{'长' * 1_000_001}\n".encode(),
    "control characters": "1,\x01\x02\x03好\n".encode(),
}


@pytest.mark.parametrize("form", [".csv", ".tsv"])
def test_bad_rows_of_tables_are_counted_and_skipped(tmp_path, caplog, form):
    comma = b"," if form == ".csv" else b"\t"
    good = [f"{number},{line}\n".encode() for number, line in enumerate(LINES)]
    rows = [row for pair in itertools.zip_longest(good, BAD_ROWS.values()) for row in pair if row]
    if form == ".csv":
        rows += [b'9,"a"b\n', b'9,"never closed\n', b"9,lost\n"]
    lines = [row.replace(b",", comma, 1) for row in (b"id,text\n", *rows)]
    for name, content in (
        ("a", lines),
        ("b", [b"id,id\n".replace(b",", comma), *good]),
        ("c", [b"id,text\n"]),
        ("d", [lines[0], lines[1]]),
    ):
        (tmp_path / f"{name}{form}").write_bytes(b"".join(content))
    (tmp_path / f"e{form}.gz").write_bytes(gzip.compress(b"".join([lines[0], *lines[-200:]]))[:-100])
    batches = SentenceBatches([TextSource(str(tmp_path))], 8, 0, epochs=1)
    assert set(texts_of(list(batches))) == set(LINES)
    expected = dict.fromkeys(BAD_ROWS, 1) | {"columns of one name": 1, "damaged file": 1}
    if form == ".csv":  # the csv module itself takes no longer field than 131,072 characters
        expected |= {"not a row": 3}
        del expected["too long"]
    assert batches.report["skipped"] == expected
    assert f"a{form} line 3: must have 2 fields, got 1; skipped" in caplog.text


def test_a_run_goes_on_behind_a_bad_row_and_counts_it_once(tmp_path):
    lines = [f"{number}\t{line}" for number, line in enumerate(LINES)]
    lines[20::50] = ["bad"] * len(lines[20::50])
    sources = [TextSource(plain(tmp_path, "a.tsv", ["id\ttext", *lines]))]
    expected = SentenceBatches(sources, **SMALL_BUFFER)
    batches = first(expected, 100)
    for world_size in (1, 2):
        options = SMALL_BUFFER | {"batch_size": 6 // world_size, "world_size": world_size}
        resumed = SentenceBatches(sources, **options)
        resumed.load_state_dict(json.loads(json.dumps(expected.state_dict(40))))
        assert first(resumed, 60) == [batch[::world_size] for batch in batches[40:]]
        assert resumed.report["skipped"] == expected.report["skipped"]
    assert expected.report["skipped"]["not the header's fields"] >= 8


def test_what_cannot_be_read_at_all_is_an_error_at_once(tmp_path):
    plain(tmp_path, "few.txt", LINES[:5])
    (tmp_path / "blank.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\n" * 20_000)
    (tmp_path / "gb.txt").write_bytes("好\n".encode("gb18030"))
    (tmp_path / "empty").mkdir()
    data, mixed = parquet(tmp_path / "data", LINES), parquet(tmp_path / "mixed", LINES)
    plain(tmp_path / "mixed", "urls.txt", ["http://a.cn"] * 400)
    table = plain(tmp_path, "table.xlsx", LINES)
    (tmp_path / "wrong.csv").write_text("text,label\n坏\n", encoding="utf-8")
    (tmp_path / "twice.tsv").write_text("text\ttext\n好\t坏\n", encoding="utf-8")
    for source, error, message in (
        (TextSource(str(tmp_path / "nowhere.txt")), FileNotFoundError, "nowhere.txt does not exist"),
        (TextSource("nobody/no-such-dataset"), OSError, "nobody/no-such-dataset"),
        (TextSource(str(tmp_path / "few.txt")), ValueError, "the corpus has 5 sentences to train on, fewer than"),
        (TextSource(str(tmp_path / "blank.txt")), ValueError, "the corpus is empty .*blank.txt"),
        (TextSource(str(tmp_path / "gb.txt")), ValueError, "is empty .*bad lines were skipped: not UTF-8: 1"),
        (TextSource(str(tmp_path / "binary.txt")), ValueError, "first 10,000 lines cannot be used"),
        (TextSource(data, column="content"), ValueError, r"no text column 'content', found \['id', 'text'\]"),
        (TextSource(data, split="dev"), ValueError, "dev"),
        (TextSource(mixed), ValueError, "must be of one kind, got .*parquet and .*urls.txt"),
        (TextSource(f"{mixed}/*"), ValueError, "must be of one kind"),
        (TextSource(table), ValueError, r"must end in \.txt, .* or in \.parquet, .* got .*table.xlsx"),
        (TextSource(str(tmp_path / "wrong.csv")), ValueError, "is empty .*skipped: not the header's fields: 1"),
        (TextSource(str(tmp_path / "twice.tsv")), ValueError, "is empty .*skipped: columns of one name: 1"),
        (TextSource(str(tmp_path / "twice.tsv"), column="words"), ValueError, "columns of one name: 1"),
    ):
        with pytest.raises(error, match=message):
            SentenceBatches([source], 8, 0)
    with pytest.raises(ValueError, match="epochs must be None for several sources"):
        SentenceBatches([TextSource(data)] * 2, 8, 0, epochs=1)
    with pytest.raises(ValueError, match="all of one kind"):
        SentenceBatches([TextSource(data), "句"], 1, 0)
    for weight in (0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"weight .* must be above 0 and finite"):
            TextSource(data, weight=weight)


def test_held_out_sentences_are_not_trained_on(sources):
    held_out = sample_sentences(sources, 30, seed=0, shuffle_buffer=1000)
    assert held_out == sample_sentences(sources, 30, seed=0, shuffle_buffer=1000)
    assert len(set(held_out)) == 30
    texts = texts_of(first(SentenceBatches(sources, **SMALL_BUFFER, exclude=held_out), 120))
    assert set(texts) == set(LINES) - set(held_out)
    with pytest.raises(ValueError, match=r"between 1 and 399 of .*, got 401"):
        sample_sentences(sources, 401, seed=0, shuffle_buffer=1000)
    with pytest.raises(ValueError, match=r"of the 90 that shuffle_buffer allows to draw from, got 200"):
        sample_sentences(sources, 200, seed=0, shuffle_buffer=90)


def test_thuctc_is_its_unpacked_folder(tmp_path, monkeypatch):
    """A folder per topic, a file per news article."""
    for topic, number in (("财经", 0), ("体育", 7), ("体育", 9)):
        file = tmp_path / "THUCNews" / topic / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"标题{number}\n　　正文{number}。\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    batches = first(SentenceBatches([TextSource.parse("thuctc")], batch_size=1, seed=0, shuffle_buffer=10), 18)
    read = [example["text"] for batch in batches for example in batch if example["epoch"] == 0]
    assert sorted(read) == sorted(text for n in (0, 7, 9) for text in (f"标题{n}", f"正文{n}。"))


def test_sources_of_a_command_line(tmp_path):
    path = plain(tmp_path, "a=b:c.txt", LINES)
    assert TextSource.parse("wikipedia=0.3") == TextSource("wikimedia/wikipedia", config="20231101.zh", weight=0.3)
    assert TextSource.parse("common_crawl").name == "allenai/c4:zh"
    assert TextSource.parse("owner/data:zh=2") == TextSource("owner/data", config="zh", weight=2)
    assert TextSource.parse("news/*.jsonl", column="body") == TextSource("news/*.jsonl", column="body")
    assert TextSource.parse(path) == TextSource(path)
    assert TextSource.parse(f"{path}=3") == TextSource(path, weight=3)
    with pytest.raises(ValueError, match="location=weight"):
        TextSource.parse("a.txt=much")
