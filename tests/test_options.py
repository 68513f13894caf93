"""A dataclass as YAML keys, flags and a command: said once, read from either, one clear error for everything else."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rocbert_hf.options import REQUIRED, as_plain, check_choices, option, option_before_others, parse_options
from rocbert_hf.pretraining import PretrainingArguments
from rocbert_hf.pretraining.run import RunOptions


@dataclass(frozen=True)
class Share:
    name: str
    weight: float

    @classmethod
    def parse(cls, text: str) -> "Share":
        name, _, weight = text.partition("=")
        try:
            return cls(name, float(weight))
        except ValueError:
            raise ValueError(f"must be name=weight, got {text!r}") from None

    def __str__(self) -> str:
        return f"{self.name}={self.weight:g}"


@dataclass
class Options:
    """Some options."""

    model: str = option(REQUIRED, "folder of a model")
    kind: str = option("fast", "how it is done", choices=("fast", "slow"))
    steps: int | None = option(100, "steps to take, 5% of them warm up")
    rate: float = option(1e-4, "learning rate")
    cut: bool = option(False, "cut what is too long")
    names: list[str] = option([], "names to take", separator=",", short="-n", unset="all")
    shares: list[Share] = option([], "parts of a mixture", parse=Share.parse)
    folder: Path = option(Path("out"), "folder to write")

    def __post_init__(self):
        check_choices(self)


def parse(*argv: str) -> Options:
    return parse_options([Options], ["--model", "m", *argv])[0]


def error(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as end:
        parse_options([Options], argv, prog="tool")
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


@pytest.mark.parametrize(("line", "found"), [("kind: slow", "slow"), ("kind: null", "fast"), ("rate: 1", "fast")])
def test_an_option_that_decides_on_others_is_read_first(tmp_path, line, found):
    (tmp_path / "options.yaml").write_text(line)
    assert option_before_others("kind", ["--config", str(tmp_path / "options.yaml")], "fast") == found


def test_flags_become_typed_values():
    parsed = parse(
        "--shares", "a=1", "b=0.5", "--steps", "none", "--rate=5e-4", "--cut", "-n", "x, y", "z", "--folder", "o"
    )
    assert parsed == Options(
        "m", "fast", None, 5e-4, True, ["x", "y", "z"], [Share("a", 1), Share("b", 0.5)], Path("o")
    )
    assert parse("--no-cut", "--steps", "3").steps == 3
    assert as_plain(parsed)["shares"] == ["a=1", "b=0.5"]


def test_yaml_has_the_same_keys_and_flags_override_it(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model: m\nshares: [a=1]\ncut: true\nnames: 'x,y'\nsteps: 7\nkind: slow\n", encoding="utf-8")
    (parsed,) = parse_options([Options], ["--config", str(file), "--steps", "8", "--no-cut"])
    assert parsed == Options("m", "slow", 8, shares=[Share("a", 1)], names=["x", "y"])


def test_a_list_of_a_flag_replaces_the_file_s(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("model: m\nnames: [x]\n", encoding="utf-8")
    assert parse_options([Options], ["--config", str(file), "-n", "y", "-n", "z"])[0].names == ["y", "z"]


@dataclass
class Texts:
    """What to read."""

    texts: list[str] = option(list, "texts", positional=True)
    seed: int = option(0, "seed")


@dataclass
class Ways:
    """From where to where."""

    source: str = option(REQUIRED, "source", positional=True)
    output: str = option(REQUIRED, "output", positional=True)


def test_what_follows_two_dashes_is_no_flag(capsys):
    (given,) = parse_options([Texts], ["天冷", "--seed", "3", "--", "-5度", "--no_flag", "--seed", "-h"])
    assert (given.texts, given.seed) == (["天冷", "-5度", "--no_flag", "--seed", "-h"], 3)
    assert parse_options([Ways], ["--", "-a", "-b"])[0] == Ways("-a", "-b")
    with pytest.raises(SystemExit):
        parse_options([Ways], ["a", "b", "--", "-c"])
    assert "unrecognized arguments: -c (see" in capsys.readouterr().err


def test_a_misspelt_flag_is_named_before_anything_else(capsys):
    # the model is missing and the number is none: the misspelling comes first
    assert error(capsys, "--rat", "much", "--stpes", "3").startswith(
        "error: there is no option --rat; did you mean --rate?"
    )
    assert "there is no option --stpes; did you mean --steps?" in error(capsys, "--stpes=3", "--config", "/nope.yaml")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "--model is required"),
        (["--model", "m", "--steps", "many"], "--steps must be a whole number, got 'many'"),
        (["--model", "m", "--kind", "fats"], "--kind must be one of fast, slow, got 'fats'; did you mean fast?"),
        (["--model", "m", "--shares", "a"], "--shares must be name=weight, got 'a'"),
        (["--model", "m", "--config", "nowhere"], "config must be a YAML file, or a packaged one (base, "),
    ],
)
def test_wrong_values_are_one_line_that_names_the_flag(capsys, argv, told):
    assert told in error(capsys, *argv)


def test_help_comes_from_the_fields_and_shows_defaults(capsys, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("steps: 7\nrate: 0\n", encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        parse_options([Options], ["--help", "--config", str(file)], description="Do it.")
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "Do it.",
        "folder of a model (required)",
        "how it is done; one of fast, slow (default: fast)",
        "steps to take, 5% of them warm up (default: 7)",
        "learning rate (default: 0.0)",
        "--cut, --no-cut cut what is too long (default: no)",
        "names to take (default: all)",
        "-n",
    ):
        assert words in shown
    assert "packaged one" not in shown  # none has these fields


def test_help_names_the_packaged_configs_that_fit(capsys):
    with pytest.raises(SystemExit):
        parse_options([RunOptions, PretrainingArguments], ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "a packaged one: base, large, mini, paper, robust, small, tiny " in shown


@dataclass
class Lists:
    train_file: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [0])
    rates: list[float] | None = None


def test_lists_of_a_file_have_items_of_their_type(tmp_path, capsys):
    def read(text):
        (tmp_path / "lists.yaml").write_text(text)
        return parse_options([Lists], ["--config", str(tmp_path / "lists.yaml")])[0]

    assert read("train_file: [1, a.txt]\nseeds: [0, 1]") == Lists(["1", "a.txt"], [0, 1])
    assert read("train_file: a.txt\nseeds: 3\nrates: [1e-4, 2]") == Lists(["a.txt"], [3], [1e-4, 2.0])
    assert read("rates: null").rates is None
    for text, message in (
        ("seeds: [a]", "lists.yaml: seeds must be a whole number, got 'a'"),
        ("seeds: [0, null]", "lists.yaml: seeds must be one value of type int, got None"),
        ("train_file: null", "lists.yaml: train_file must have a value, got null"),
    ):
        with pytest.raises(SystemExit):
            read(text)
        assert message in capsys.readouterr().err
