"""Tokenizer of RoCBERT: every token gets three ids, of itself, of its shape and of its pronunciation.

This file is uploaded to the Hub with the one that it imports, so it imports nothing else of the package.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import cache, cached_property, partial
from itertools import count
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BatchEncoding, TokenizersBackend
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from .code_points_rocbert import CodePointTable, backend_lock, without_surrogates

VOCAB_FILES_NAMES = {
    "vocab_file": "vocab.txt",
    "word_shape_file": "word_shape.json",
    "word_pronunciation_file": "word_pronunciation.json",
}
PACKAGED_FILES = {
    argument: Path(__file__).with_name("resources") / name for argument, name in VOCAB_FILES_NAMES.items()
}
CHANNELS = {"input_shape_ids": "word_shape", "input_pronunciation_ids": "word_pronunciation"}


def _read(argument: str, file: str | os.PathLike) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument}={str(file)!r} is not UTF-8 text ({error}); save it again as UTF-8") from error
    except OSError as error:
        raise OSError(f"{argument}={str(file)!r} cannot be read ({error.strerror}); give the path of a file") from error


def load_vocabulary(file: str | os.PathLike, special_tokens: Collection[str]) -> dict[str, int]:
    """Token -> id of a file with one token per line, the number of the line being the id.

    ValueError when the file is empty, repeats a token or lacks one of the special tokens.
    """
    tokens = _read("vocab_file", file).removesuffix("\n").split("\n")
    if tokens == [""]:
        raise ValueError(f"vocab_file={str(file)!r} is empty; it must hold one token per line")
    if repeated := [token for token, times in Counter(tokens).items() if times > 1]:
        raise ValueError(f"vocab_file={str(file)!r} repeats {repeated[:5]}; every token must stand on one line only")
    if missing := [token for token in special_tokens if token not in tokens]:
        raise ValueError(
            f"vocab_file={str(file)!r} lacks the special tokens {missing}; add a line for each, or pass the names that "
            "this vocabulary has for them (pad_token=..., unk_token=..., cls_token=..., sep_token=..., mask_token=...)"
        )
    return {token: index for index, token in enumerate(tokens)}


def load_channel(argument: str, file: str | os.PathLike, tokens: Collection[str]) -> dict[str, int]:
    """Token -> shape or pronunciation id of a JSON file.

    ValueError when the file is no JSON object of integers from 0 on, or lacks one of the `tokens`.
    """
    name = f"{argument}={str(file)!r}"
    try:
        ids = json.loads(_read(argument, file))
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is not JSON ({error}); it must be an object {{token: id}}") from error
    if not isinstance(ids, dict):
        raise ValueError(f"{name} holds a {type(ids).__name__}; it must be a JSON object {{token: id}}")
    if wrong := {token: value for token, value in ids.items() if type(value) is not int or value < 0}:
        raise ValueError(f"{name} has ids that are not integers from 0 on: {dict(list(wrong.items())[:5])}")
    if missing := [token for token in tokens if token not in ids]:
        raise ValueError(f"{name} lacks {len(missing)} tokens of the vocabulary, such as {missing[:5]}; add their ids")
    return ids


CASED = r"[\p{Cased}&&[^\p{Case_Ignorable}]]"
FINAL_SIGMA = rf"{CASED}\p{{Case_Ignorable}}*\KΣ(?!\p{{Case_Ignorable}}*{CASED})"
CHINESE = (
    r"\x{3400}-\x{4dbf}\x{4e00}-\x{9fff}\x{f900}-\x{faff}\x{20000}-\x{2a6df}\x{2a700}-\x{2ceaf}\x{2f800}-\x{2fa1f}"
)


def character_pipeline(do_lower_case: bool, strip_accents: bool):
    """Normalizer and pre-tokenizer of the character level: BERT's, so that `word_ids()` are BERT's words.

    BERT's normalizer makes Chinese characters words by spaces around them, which an added token such as 微信 would keep, and
    show when it is decoded; here the pre-tokenizer does it.
    """
    bert = normalizers.BertNormalizer(strip_accents=strip_accents, lowercase=do_lower_case, handle_chinese_chars=False)
    # the only character whose lower case is two code points; one character must stay one token
    steps = [normalizers.Replace("İ", "i"), bert] if do_lower_case else [bert]
    words = [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Split(Regex(f"[{CHINESE}]"), "isolated")]
    return normalizers.Sequence(steps), pre_tokenizers.Sequence(words)


@cache
def _code_points() -> dict[str, str]:
    """What Python's Unicode tables take for control, space, mark, punctuation: ranges for regular expressions."""
    points = defaultdict(list)
    for point in range(sys.maxunicode + 1):
        category = unicodedata.category(chr(point))
        points["mark" if category == "Mn" else category[0] if category != "Cs" else None].append(point)
    kinds = {
        "control": {*points["C"], 0xFFFD} - {9, 10, 13},
        "space": {*points["Z"], *b"\t\n\v\f\r\x1c\x1d\x1e\x1f\x85"},
        "mark": points["mark"],
        "punctuation": {*points["P"], *b"$+<=>^`|~"},
    }
    ranges = {}
    for kind, members in kinds.items():
        ordered = np.array(sorted(members))
        first = ordered[np.diff(ordered, prepend=-2) > 1]
        last = ordered[np.diff(ordered, append=sys.maxunicode + 2) > 1]
        ranges[kind] = "".join(rf"\x{{{a:x}}}-\x{{{b:x}}}" for a, b in zip(first, last, strict=True))
    return ranges


def word_pipeline(do_lower_case: bool, strip_accents: bool | None, tokenize_chinese_chars: bool, clean: bool):
    """Normalizer and pre-tokenizer that do what transformers' Python `RoCBertTokenizer` does.

    `BertNormalizer` and `BertPreTokenizer` do not: their categories of characters are those of Unicode 8, where Python
    follows its own `unicodedata`; they do not compose, know no final sigma and overlook some rare ideographs.
    """
    of = _code_points()
    words = pre_tokenizers.Split(Regex(f"[{of['space']}]"), "removed")
    if not clean:
        return normalizers.Sequence([]), words
    steps = [normalizers.Replace(Regex(f"[{of['control']}]"), ""), normalizers.NFC()]
    if do_lower_case:
        steps += [normalizers.Replace(Regex(FINAL_SIGMA), "ς"), normalizers.Lowercase()]
    if strip_accents or (strip_accents is None and do_lower_case):
        steps += [normalizers.NFD(), normalizers.Replace(Regex(f"[{of['mark']}]"), "")]
    alone = of["punctuation"] + (CHINESE if tokenize_chinese_chars else "")
    characters = pre_tokenizers.Split(Regex(f"[{alone}]"), "isolated")
    return normalizers.Sequence(steps), pre_tokenizers.Sequence([words, characters])


class BulkEncoding(BatchEncoding):
    """A `BatchEncoding` that asks the backend for its `encodings` when they are first needed (`word_ids()`...)."""

    is_fast = True

    def __init__(self, data: dict, encode: Callable[[], list], tensor_type=None):
        if tensor_type == "pt":  # of which the base class makes tensors fastest
            data = {name: list(rows) for name, rows in data.items()}
        super().__init__(data, tensor_type=tensor_type, n_sequences=1)
        self._encode = encode
        del self._encodings  # None, from the base class

    @cached_property
    def _encodings(self):
        return self._encode()


class RoCBertTokenizer(TokenizersBackend):
    r"""Splits text into characters and gives each the ids of its token, its shape and its pronunciation.

    Without files it has the packaged vocabulary of 16,224 characters, letters and digits among them. Whitespace and
    control characters are dropped, a character that is not in the vocabulary is one `[UNK]`. If such a character looks
    like a known one, its shape id is that one's, and so is its pronunciation id if that one is Chinese: ⽐ (U+2F50) looks
    and sounds like 比. The two JSON files hold these characters behind the tokens of the vocabulary. Lists of single texts
    are encoded by table look-up, many times as fast as by the backend and with equal results. Threads may share a
    tokenizer.

    The three files of `weiweishi/roc-bert-base-zh` are understood too. Their words are split into pieces, and every id
    is the one that transformers' own `RoCBertTokenizer` gives: the `[CLS]` and `[SEP]` that it adds have the shape and
    pronunciation of `[UNK]`, padding has the number of `[PAD]`, a token that the JSON files lack is `[UNK]` to them.

    Args:
        vocab_file (`str`, *optional*): text, one token per line.
        word_shape_file (`str`, *optional*): JSON, token to shape id.
        word_pronunciation_file (`str`, *optional*): JSON, token to pronunciation id. Give all three files or none.
        character_level (`bool`, *optional*): one token per character, else word pieces. If not given, characters for the
            packaged vocabulary and word pieces for files. It is saved with the tokenizer.
        do_lower_case (`bool`, defaults to `True`): whether to lower-case the text.
        strip_accents (`bool`, *optional*): if not given, only lower-cased word pieces lose their accents.
        tokenize_chinese_chars (`bool`, defaults to `True`): whether Chinese characters are words, for word pieces.
        do_basic_tokenize (`bool`, defaults to `True`): whether to clean and split at punctuation, for word pieces.
        kwargs: as for any tokenizer of transformers (`unk_token`, `padding_side`...).

    Raises:
        ValueError: a file is malformed, or not all of them are given. OSError: one cannot be read.

    Example:
        >>> tokenizer = RoCBertTokenizer()
        >>> batch = tokenizer(["科比投篮", "ke 比"], padding=True, return_tensors="np")
        >>> tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
        ['科比投篮', 'ke比']
    """

    vocab_files_names = VOCAB_FILES_NAMES
    model_input_names: ClassVar[list[str]] = ["input_ids", *CHANNELS, "token_type_ids", "attention_mask"]

    def __init__(
        self,
        vocab_file: str | os.PathLike | None = None,
        word_shape_file: str | os.PathLike | None = None,
        word_pronunciation_file: str | os.PathLike | None = None,
        character_level: bool | None = None,
        do_lower_case: bool = True,
        strip_accents: bool | None = None,
        tokenize_chinese_chars: bool = True,
        do_basic_tokenize: bool = True,
        **kwargs,
    ):
        if kwargs.get("never_split"):
            raise ValueError(f"never_split={kwargs['never_split']!r} is not supported; use add_tokens() instead")
        files = dict(zip(VOCAB_FILES_NAMES, (vocab_file, word_shape_file, word_pronunciation_file), strict=True))
        packaged = not any(files.values())
        if absent := [argument for argument, file in files.items() if not (file or packaged)]:
            raise ValueError(f"{' and '.join(absent)} not given; a vocabulary is made of {', '.join(files)}")
        self.character_level = packaged if character_level is None else character_level
        self.do_lower_case = do_lower_case
        names = ("pad", "unk", "cls", "sep", "mask")
        special = {name: str(kwargs.setdefault(f"{name}_token", f"[{name.upper()}]")) for name in names}
        if packaged and PACKAGED_FILES["vocab_file"].exists():
            files = PACKAGED_FILES
            kwargs.setdefault("model_max_length", 512)
        if any(files.values()):
            vocab = load_vocabulary(files["vocab_file"], special.values())
            tokens = vocab if self.character_level else special.values()
            self.word_shape, self.word_pronunciation = (
                load_channel(f"{name}_file", files[f"{name}_file"], tokens) for name in CHANNELS.values()
            )
        else:  # code from the Hub, without the package: `datasets` makes a tokenizer so in each process, then fills it
            vocab = {token: index for index, token in enumerate(special.values())}
            self.word_shape, self.word_pronunciation = dict(vocab), dict(vocab)
        if self.character_level:
            self._tokenizer = Tokenizer(models.BPE(vocab, [], unk_token=special["unk"], fuse_unk=False))
            pipeline = character_pipeline(do_lower_case, bool(strip_accents))
            self._tokenizer.decoder = decoders.Fuse()
        else:
            self._tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=special["unk"]))
            pipeline = word_pipeline(do_lower_case, strip_accents, tokenize_chinese_chars, clean=do_basic_tokenize)
            self._tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
        self._tokenizer.normalizer, self._tokenizer.pre_tokenizer = pipeline
        cls, sep = special["cls"], special["sep"]
        self._tokenizer.post_processor = processors.TemplateProcessing(
            single=[f"{cls}:0", "$A:0", f"{sep}:0"],
            pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
            special_tokens=[(cls, vocab[cls]), (sep, vocab[sep])],
        )
        self._pipeline = self._describe_pipeline()
        self._special_ids = {name: vocab[token] for name, token in special.items()}
        self.cache = {}  # tables made when needed; `datasets` leaves an attribute of this name out of fingerprints
        super().__init__(
            character_level=self.character_level,
            do_lower_case=do_lower_case,
            strip_accents=strip_accents,
            tokenize_chinese_chars=tokenize_chinese_chars,
            do_basic_tokenize=do_basic_tokenize,
            **kwargs,
        )

    @classmethod
    def convert_to_native_format(cls, **kwargs):
        """Leaves the files to `__init__`; `from_pretrained` calls this with those that it found."""
        if absent := [name for argument, name in cls.vocab_files_names.items() if kwargs.get(argument) is None]:
            raise ValueError(
                f"{kwargs.get('name_or_path')!r} has no {' and no '.join(absent)}; save_pretrained() of a "
                f"RoCBertTokenizer writes {', '.join(cls.vocab_files_names.values())}"
            )
        return {name: value for name, value in kwargs.items() if name != "tokenizer_file"}

    def _describe_pipeline(self) -> tuple[str, ...]:
        backend = self._tokenizer
        return tuple(map(str, (backend.normalizer, backend.pre_tokenizer, backend.post_processor)))

    def __getstate__(self):
        return {**self.__dict__, "cache": {}}

    # --- shape and pronunciation

    def _all_tokens(self) -> list[str]:
        """The tokens by id; `convert_ids_to_tokens` would give those added later as the normalizer leaves them."""
        added = {index: token.content for index, token in self.added_tokens_decoder.items()}
        tokens = self.convert_ids_to_tokens(range(len(self)))
        return [added.get(index, token) for index, token in enumerate(tokens)]

    def _table(self, channel: str) -> np.ndarray:
        """Ids in a channel by token id, (2, len(self)): of tokens of the text, and of those that the tokenizer adds."""
        key = channel, len(self)
        if key not in self.cache:
            ids = getattr(self, CHANNELS[channel])
            unk = self._special_ids["unk"]
            tokens = self._all_tokens()
            self.cache[key] = np.array([[ids.get(token, ids[tokens[unk]]) for token in tokens]] * 2, dtype=np.int64)
            if not self.character_level:
                cls, sep, pad = (self._special_ids[name] for name in ("cls", "sep", "pad"))
                self.cache[key][1, [cls, sep, pad]] = [ids[tokens[unk]], ids[tokens[unk]], pad]
        return self.cache[key]

    def _twins(self) -> dict[str, int]:
        """Unknown character that looks like a known one -> a number past all token ids that stands for it."""
        key = "twins", len(self)
        if key not in self.cache:
            known = self.get_vocab() if self.character_level else self.word_shape
            unknown = [character for character in self.word_shape if len(character) == 1 and character not in known]
            self.cache[key] = dict(zip(unknown, count(len(self)), strict=False))
        return self.cache[key]

    def _table_with_twins(self, name: str) -> np.ndarray:
        """Ids in a channel, or of tokens, by token id and then by the numbers of `_twins`: (len(self) + twins,)."""
        key = name, len(self), "with twins"
        if key not in self.cache:
            unk = self._special_ids["unk"]
            if name == "input_ids":
                table, twins = np.arange(len(self)), [unk] * len(self._twins())
            else:
                table, ids = self._table(name)[1], getattr(self, CHANNELS[name])
                twins = [ids.get(character, table[unk]) for character in self._twins()]
            self.cache[key] = np.concatenate([table, np.array(twins, dtype=np.int64)])
        return self.cache[key]

    @property
    def shape_ids(self) -> np.ndarray:
        """Shape id by token id, (len(self),) int64."""
        return self._table("input_shape_ids")[1]

    @property
    def pronunciation_ids(self) -> np.ndarray:
        """Pronunciation id by token id, (len(self),) int64."""
        return self._table("input_pronunciation_ids")[1]

    def convert_tokens_to_shape_ids(self, tokens: str | int | Sequence[str | int]) -> int | list[int]:
        """Shape ids of tokens, or of token ids, of a text."""
        return self._convert_tokens("input_shape_ids", tokens)

    def convert_tokens_to_pronunciation_ids(self, tokens: str | int | Sequence[str | int]) -> int | list[int]:
        """Pronunciation ids of tokens, or of token ids, of a text."""
        return self._convert_tokens("input_pronunciation_ids", tokens)

    def _convert_tokens(self, channel: str, tokens):
        if isinstance(tokens, (str, int, np.integer)):
            if tokens in self._twins():
                return int(self._table_with_twins(channel)[self._twins()[tokens]])
            token_id = self.convert_tokens_to_ids(tokens) if isinstance(tokens, str) else tokens
            return int(self._table(channel)[0, token_id])
        return [self._convert_tokens(channel, token) for token in tokens]

    def _add_tokens(self, new_tokens: list[str | AddedToken], special_tokens: bool = False) -> int:
        """Adds tokens to the backend and gives those that are new a shape and a pronunciation of their own."""
        added = super()._add_tokens(new_tokens, special_tokens=special_tokens)
        tokens = self._all_tokens()[self.vocab_size :]
        for ids in (self.word_shape, self.word_pronunciation):
            new = [token for token in tokens if token not in ids]
            ids.update(zip(new, count(max(ids.values()) + 1), strict=False))
        return added

    # --- encoding

    def _encode_plus(self, text, text_pair=None, **options) -> BatchEncoding:
        if not self._is_for_bulk(text, text_pair, options):
            return self._encode_by_backend(text, text_pair, **options)
        text = (
            text if isinstance(text, str) else tuple(text)
        )  # the caller may change its list before `encode` is called
        encode = partial(self._encode_by_backend, text, **{**options, "return_tensors": None})
        data = self._encode_in_bulk(text, **options)
        return BulkEncoding(data, lambda: encode().encodings, options.get("return_tensors"))

    def _encode_by_backend(self, text, text_pair=None, **options) -> BatchEncoding:
        with backend_lock():
            try:
                encoded = super()._encode_plus(text, text_pair, **options)
            except TypeError:  # so the backend answers to lone surrogates
                cleaned = without_surrogates(text), without_surrogates(text_pair)
                if cleaned == (text, text_pair):
                    raise
                encoded = super()._encode_plus(*cleaned, **options)
        if self._twins() and encoded.encodings:
            self._show_twins(encoded, text, text_pair, options.get("is_split_into_words", False))
        return encoded

    def _show_twins(self, encoded: BatchEncoding, text, text_pair, is_split_into_words: bool) -> None:
        """In the channels of a call's result, gives unknown characters the ids of the known ones that they look like."""
        unk = self._special_ids["unk"]
        batched = isinstance(text, (list, tuple)) and (
            not is_split_into_words or bool(text and isinstance(text[0], (list, tuple)))
        )
        samples = encoded.get("overflow_to_sample_mapping", range(len(encoded.encodings)))
        for row, (encoding, sample) in enumerate(zip(encoded.encodings, samples, strict=True)):
            if unk not in encoding.ids:
                continue
            pair = (text[sample], text_pair and text_pair[sample]) if batched else (text, text_pair)
            one = pair[0][:1] if is_split_into_words else [pair[0]]
            if one and isinstance(one[0], (list, tuple)):  # a list of pairs, without `text_pair`
                pair = pair[0]
            for place, (token, sequence) in enumerate(zip(encoding.ids, encoding.sequence_ids, strict=True)):
                if token != unk or sequence is None:
                    continue
                source = pair[sequence][encoding.word_ids[place]] if is_split_into_words else pair[sequence]
                number = self._twins().get(source[slice(*encoding.offsets[place])])
                for channel in CHANNELS if number is not None else ():
                    if channel in encoded:
                        rows = encoded[channel]
                        flat = not batched and isinstance(rows, list) and not isinstance(rows[0], list)
                        (rows if flat else rows[row])[place] = self._table_with_twins(channel)[number].item()

    def _convert_encoding(self, encoding, *args, **kwargs):
        """An encoding of the backend, and its overflow, as lists: with the shape and pronunciation ids."""
        data, encodings = super()._convert_encoding(encoding, *args, **kwargs)
        channels = {
            channel: [self._table(channel)[e.special_tokens_mask, e.ids].tolist() for e in encodings]
            for channel in CHANNELS
            if channel in self.model_input_names
        }
        return {"input_ids": data["input_ids"], **channels, **data}, encodings

    def _is_for_bulk(self, text, text_pair, options: dict) -> bool:
        """Whether `_encode_in_bulk` can answer the call, as the backend would."""
        truncation = options.get("truncation_strategy", TruncationStrategy.DO_NOT_TRUNCATE)
        truncates = truncation != TruncationStrategy.DO_NOT_TRUNCATE
        known = self._encode_in_bulk.__kwdefaults__
        return (
            self.character_level
            and text_pair is None
            and (isinstance(text, str) or (isinstance(text, (list, tuple)) and set(map(type, text)) <= {str}))
            and not any(value for option, value in options.items() if option not in known)  # stride, offsets...
            and not self.split_special_tokens
            and truncation != TruncationStrategy.ONLY_SECOND
            and (not truncates or options["max_length"] > 2)
            and (truncates or options.get("padding_strategy") != PaddingStrategy.MAX_LENGTH)
            and options.get("padding_side") in (None, "left", "right")
            and self._pipeline == self._describe_pipeline()
        )

    def _encode_in_bulk(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        truncation_strategy: TruncationStrategy = TruncationStrategy.DO_NOT_TRUNCATE,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        verbose: bool = True,
        **_,
    ) -> dict[str, np.ndarray | list]:
        """What `_encode_by_backend` gives for single texts, by table look-up."""
        table = self.cache.get("code points")
        if table is None or table.backend is not self._tokenizer or table.added_tokens != self.added_tokens_decoder:
            unk = self._special_ids["unk"]
            table = self.cache["code points"] = CodePointTable(self._tokenizer, unk, self._twins())
        ids, ends = table([text] if isinstance(text, str) else text)
        counts = np.diff(ends, prepend=0)
        starts = ends - counts
        added = int(add_special_tokens)  # at either end
        if truncation_strategy != TruncationStrategy.DO_NOT_TRUNCATE:
            counts = np.minimum(counts, max_length - 2 * added)
            starts = starts if self.truncation_side == "right" else ends - counts
        longest = int(counts.max(initial=0)) + 2 * added
        self._eventual_warn_about_too_long_sequence(range(longest), max_length, verbose)

        names = {"input_ids", *self.model_input_names}
        for name, asked in (("token_type_ids", return_token_type_ids), ("attention_mask", return_attention_mask)):
            names = names if asked is None else names | {name} if asked else names - {name}
        names = [name for name in ("input_ids", *CHANNELS, "token_type_ids", "attention_mask") if name in names]
        if padding_strategy == PaddingStrategy.DO_NOT_PAD:
            data = self._as_lists(names, ids, starts, counts, added)
        else:
            width = max_length if padding_strategy == PaddingStrategy.MAX_LENGTH else longest
            width += -width % (pad_to_multiple_of or 1)
            side = padding_side or self.padding_side
            data = self._as_arrays(names, ids, starts, counts, added, width, side)
            if return_tensors is None:
                data = {name: values.tolist() for name, values in data.items()}
        return {name: rows[0] for name, rows in data.items()} if isinstance(text, str) and not return_tensors else data

    def _as_lists(self, names, ids, starts, counts, added: int) -> dict[str, list[list[int]]]:
        """Rows of different lengths; row i has the tokens ids[starts[i] : starts[i] + counts[i]]."""
        spans = list(zip(starts.tolist(), (starts + counts).tolist(), strict=True))
        before, after = ([self._special_ids[name]] * added for name in ("cls", "sep"))
        data = {}
        for name in names:
            if name in ("token_type_ids", "attention_mask"):
                data[name] = [[int(name == "attention_mask")] * (end - start + 2 * added) for start, end in spans]
            else:
                table = self._table_with_twins(name)
                values, first, last = (table[part].tolist() for part in (ids, before, after))
                data[name] = [[*first, *values[start:end], *last] for start, end in spans]
        return data

    def _as_arrays(self, names, ids, starts, counts, added: int, width: int, side: str) -> dict[str, np.ndarray]:
        """Padded rows, (rows, width) each; row i has the tokens ids[starts[i] : starts[i] + counts[i]]."""
        lengths = counts + 2 * added
        begins = np.zeros_like(lengths) if side == "right" else width - lengths
        real = np.arange(width) < lengths[:, None]
        real = real if side == "right" else real[:, ::-1]
        arrays = np.empty((len(names), *real.shape), dtype=np.int64)  # at once: few, huge pages of memory
        data = dict(zip(names, arrays, strict=True))
        tokens = data["input_ids"]
        margin = np.zeros(width, dtype=ids.dtype)
        windows = sliding_window_view(np.concatenate([margin, ids, margin]), width)
        tokens[:] = windows[width + starts - added - begins]
        tokens[~real] = self.pad_token_id
        if added:
            rows = np.arange(len(tokens))
            tokens[rows, begins], tokens[rows, begins + lengths - 1] = (
                self._special_ids["cls"],
                self._special_ids["sep"],
            )
        for name in names[1:]:
            if name in CHANNELS:
                self._table_with_twins(name).take(tokens, out=data[name], mode="clip")
            elif name == "attention_mask":
                data[name][:] = real
            else:
                data[name][:] = self.pad_token_type_id and ~real * self.pad_token_type_id
        if ids.max(initial=0) >= len(self):
            tokens[tokens >= len(self)] = self._special_ids["unk"]
        return data

    # --- padding and saving

    def _pad(self, encoded_inputs, *args, padding_side: str | None = None, **kwargs) -> dict:
        """One example of `pad()`; shape and pronunciation ids that it lacks are those of its tokens."""
        ids = encoded_inputs["input_ids"]
        rows = {
            channel: list(encoded_inputs[channel])
            if channel in encoded_inputs
            else self._table(channel)[1, ids].tolist()
            for channel in CHANNELS
            if channel in self.model_input_names
        }
        encoded_inputs = super()._pad(encoded_inputs, *args, padding_side=padding_side, **kwargs)
        for channel, row in rows.items():
            padding = [self._table(channel)[1, self.pad_token_id].item()] * (
                len(encoded_inputs["input_ids"]) - len(ids)
            )
            right = (padding_side or self.padding_side) == "right"
            encoded_inputs[channel] = row + padding if right else padding + row
        return encoded_inputs

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes the three files, each under a temporary name first so that none is ever half written."""
        tokens = self._all_tokens()[: self.vocab_size]
        texts = {"vocab_file": "".join(f"{token}\n" for token in tokens)}
        texts |= {f"{name}_file": json.dumps(getattr(self, name), ensure_ascii=False) for name in CHANNELS.values()}
        paths = []
        for argument, text in texts.items():
            name = f"{filename_prefix}-" if filename_prefix else ""
            path = Path(save_directory, name + VOCAB_FILES_NAMES[argument])
            path.with_suffix(".tmp").write_text(text, encoding="utf-8", newline="\n")
            path.with_suffix(".tmp").replace(path)
            paths.append(str(path))
        return tuple(paths)

    def train_new_from_iterator(self, *args, **kwargs):
        """Is refused: a trained vocabulary would have tokens without shape and pronunciation.

        Raises:
            ValueError: always; it says what to do instead.
        """
        raise ValueError(
            "train_new_from_iterator cannot make a RoCBertTokenizer: the new tokens would have no shape and no "
            "pronunciation. Use add_tokens(), or write vocab.txt, word_shape.json and word_pronunciation.json for a "
            "vocabulary of your own"
        )

    def _save_pretrained(self, save_directory, file_names, legacy_format=None, filename_prefix=None):
        file_names = super()._save_pretrained(save_directory, file_names, legacy_format, filename_prefix)
        return file_names + self.save_vocabulary(save_directory, filename_prefix)


__all__ = ["RoCBertTokenizer"]
