"""Options, said once: a dataclass becomes the keys of a YAML file, the flags of a script and a command of `rocbert`.

A field made with `option` carries its help. `parse_options` fills dataclasses from a YAML file and flags; `command` makes
a command of a function that takes such dataclasses. What a string on the command line means is decided here, once: a
field with `parse=` holds a typed value, never the string.
"""

from __future__ import annotations

import difflib
import re
import sys
from argparse import SUPPRESS, ArgumentParser, BooleanOptionalAction, HelpFormatter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import MISSING, Field, dataclass, field, fields
from inspect import signature
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

CONFIGS = Path(__file__).parent / "resources" / "configs"
REQUIRED = MISSING
NO_FLAG = "\0"  # before an argument that is text whatever it begins with; no argument of a process can hold it itself
KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", Path: "a path"}
METAVARS = {int: "N", float: "X", Path: "PATH"}


def option(
    default: Any,
    help: str,
    *,
    choices: Iterable[str] | None = None,
    parse: Callable[[Any], Any] | None = None,
    short: str | None = None,
    separator: str | None = None,
    positional: bool = False,
    unset: str = "",
) -> Any:
    """
    A field of a dataclass that is an option.

    Args:
        default: its value if nothing is given; `REQUIRED` if something must be. A list or dict is copied for each instance.
        help: a phrase without a full stop: what it does, its unit. The choices and the default are added to it.
        choices: the texts that are allowed; for a list, for each of its items.
        parse: makes the typed value of a text (for a list, of each of its items), or of a mapping in a YAML file. It
            raises a ValueError that says what is allowed.
        short: a flag of one letter, such as "-o", beside the long one.
        separator: also splits the items of a list: with ",", `--x a, b` is `--x a b`.
        positional: given without a flag.
        unset: in words, what holds if the value is None or empty; the help shows it as the default.
    """
    metadata = {
        "help": help,
        "choices": None if choices is None else tuple(choices),
        "parse": parse,
        "short": short,
        "separator": separator,
        "positional": positional,
        "unset": unset,
    }
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def check_choices(options: Any) -> None:
    """
    Check the fields of a filled dataclass that have `choices`; for its `__post_init__`.

    Raises:
        ValueError: a value is not among them; the message names the field.
    """
    for field_ in fields(options):
        value = getattr(options, field_.name)
        for item in value if isinstance(value, list) else [value]:
            if item is not None and field_.metadata.get("choices"):
                try:
                    _check_choice(item, field_.metadata["choices"])
                except ValueError as error:
                    raise ValueError(f"{field_.name} {error}") from None


def parse_options(
    types: Sequence[type],
    argv: Sequence[str] | None = None,
    default_config: str | Path | None = None,
    description: str = "",
    prog: str | None = None,
    epilog: str = "",
) -> tuple:
    """
    Fill dataclasses from `--config` and from flags, which override it.

    A field `learning_rate` is the key `learning_rate` and the flag `--learning-rate` (or `--learning_rate`); a field of
    type bool is `--x` and `--no-x`; a list takes several values; "none" is None for a field that may be None.

    Args:
        types: the dataclasses; no two may have a field of one name.
        argv: default: the command line's.
        default_config: what is read if `--config` is not given: a file, or the name of a packaged config.
        description: first paragraph of the help.
        prog: what the program is called in the help and in errors.
        epilog: last paragraph of the help.

    Returns:
        One filled dataclass for each type.

    Raises:
        SystemExit: 0 after `--help`; 2 after one line on stderr about a wrong flag, key or value. An unknown flag is
            named before anything else.
    """
    argv = _normalized(sys.argv[1:] if argv is None else argv)
    parser = _parser(types, {}, prog, description, epilog)
    _refuse_unknown_flags(parser, argv)
    config = _config_of(argv, default_config, parser)
    try:
        given = {} if config is None else read_config(config, types)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    parser = _parser(types, given, prog, description, epilog)
    flags = {name: _unmarked(value) for name, value in vars(parser.parse_intermixed_args(argv)).items()}
    try:
        given |= {name: _flag_value(name, value, types) for name, value in flags.items() if name != "config"}
        return tuple(_filled(type_, given) for type_ in types)
    except ValueError as error:
        parser.error(str(error))


def read_config(source: str | Path, types: Sequence[type]) -> dict[str, Any]:
    """
    The options of a YAML file, or of a packaged config such as "tiny", as typed values.

    Raises:
        OSError: there is no such file, and no packaged config of that name.
        ValueError: it is not a YAML mapping, has a key that is no field of `types`, or a value that does not fit its
            field; the message names file and key.
    """
    path = _config_file(source)
    options = read_yaml(path)
    if not isinstance(options, dict):
        raise ValueError(f"{path} must hold `option: value` lines, got {type(options).__name__}")
    known = _all_fields(types)
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise ValueError(f"{path}: unknown option {key!r}; {hint}")
    values = {}
    for key, given in options.items():
        try:
            values[key] = _typed(given, *known[key])
        except ValueError as error:
            raise ValueError(f"{path}: {key} {error}") from None
    return values


def read_yaml(file: Path) -> Any:
    """What a YAML file holds.

    Raises:
        OSError: it cannot be read. ValueError: it is not YAML; the message names the file, in one line.
    """
    import yaml

    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OSError(f"{file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error


# -- commands


@dataclass(frozen=True)
class Command:
    """
    A command of `rocbert`: a function and the dataclasses that it takes.

    Attributes:
        name: what is typed after `rocbert`.
        description: what it does; its first line stands in the list of commands.
        types: gives the dataclasses for the flags that it gets. A function, so that what they import is imported only if
            this command is run.
        run: takes them, filled.
        example: a command line that works.
        default_config: a packaged config that is read if `--config` is not given.
    """

    name: str
    description: str
    types: Callable[[Sequence[str]], Sequence[type]]
    run: Callable[..., Any]
    example: str = ""
    default_config: str | None = None

    @property
    def summary(self) -> str:
        return self.description.strip().split("\n")[0]

    def __call__(self, argv: Sequence[str]) -> None:
        """Parse the flags and run. Raises what the function raises, and SystemExit for wrong options."""
        filled = parse_options(
            self.types(argv),
            argv,
            self.default_config,
            self.description,
            f"rocbert {self.name}",
            self.example and f"Example: {self.example}",
        )
        self.run(*filled)


def command(
    types: Sequence[type] | Callable[..., Sequence[type]], example: str = "", default_config: str | None = None
) -> Callable[[Callable[..., Any]], Command]:
    """
    Make a `Command` of a function: its name and docstring are the command's; see there for the arguments.

    Args:
        types: the dataclasses; or a function that gives them, of no argument, or of the flags if they decide which.
    """

    def decorate(function: Callable[..., Any]) -> Command:
        def lazy(argv: Sequence[str]) -> Sequence[type]:
            if not callable(types):
                return types
            return types(argv) if signature(types).parameters else types()

        return Command(function.__name__, function.__doc__ or "", lazy, function, example, default_config)

    return decorate


def option_before_others(name: str, argv: Sequence[str], default: str) -> str:
    """
    What flags or their `--config` say of one option whose value decides which others there are.

    Args:
        name: of the field, such as "task_type".
        argv: the flags.
        default: its value if they say nothing of it.

    Raises:
        OSError, ValueError: the config cannot be read.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--" + name.replace("_", "-"), dest="value")
    given = parser.parse_known_args([_with_dashes(text) for text in argv if text not in ("-h", "--help")])[0]
    if given.value is None and given.config is not None:
        read = read_yaml(_config_file(given.config))
        value = read.get(name) if isinstance(read, dict) else None
        return default if value is None else str(value)
    return default if given.value is None else given.value


# -- the parser


class _Parser(ArgumentParser):
    """Errors are one line, without the list of all flags."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message.replace(NO_FLAG, '')} (see {self.prog} --help)\n")


class _Help(HelpFormatter):
    """Keeps the line breaks of the description."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(super(_Help, self)._fill_text(line, width, indent) for line in text.strip().split("\n"))


def _parser(
    types: Sequence[type], given: Mapping[str, Any], prog: str | None, description: str, epilog: str
) -> ArgumentParser:
    """A parser of all fields that leaves the values as text, and out what was not given; `given` is shown as defaults."""
    parser = _Parser(
        prog=prog,
        description=description,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=_Help,
        usage="%(prog)s [options]" + "".join(f" [{name}]" for name in _positionals(types)),
        argument_default=SUPPRESS,
    )
    packaged = ", ".join(_configs_for(types))
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file with options, which flags override" + (packaged and f"; or a packaged one: {packaged}"),
    )
    for type_ in types:
        title = re.split(r"\.\s|\.$|\n", (type_.__doc__ or type_.__name__).strip())[0]
        group = parser.add_argument_group(title[0].lower() + title[1:]) if len(types) > 1 else parser
        for name, (hint, metadata, default) in _all_fields([type_]).items():
            settings = _settings(hint, metadata, given.get(name, default))
            if settings.get("nargs") == "+" and any(_positionals(types)):
                del settings["nargs"]  # or it would take what follows; `--x a --x b` gives several
                settings["action"] = "append"
            group.add_argument(*_names(name, metadata), **settings)
    return parser


def _names(name: str, metadata: Mapping[str, Any]) -> list[str]:
    if metadata.get("positional"):
        return [name]
    short = metadata.get("short")
    return ["--" + name.replace("_", "-"), *([short] if short else [])]


def _settings(hint: Any, metadata: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """Keyword arguments of `add_argument`."""
    is_list, type_ = _item_type(hint)
    settings: dict[str, Any] = {"help": _help(metadata, default).replace("%", "%%")}
    if type_ is bool and not metadata.get("parse"):
        return {**settings, "action": BooleanOptionalAction}
    if metadata.get("positional"):
        return {**settings, "nargs": "*" if is_list else "?"}
    settings["metavar"] = METAVARS.get(type_, "TEXT") if not metadata.get("choices") else "NAME"
    return {**settings, "nargs": "+", "action": "extend"} if is_list else settings


def _help(metadata: Mapping[str, Any], default: Any) -> str:
    help_ = metadata.get("help", "")
    if metadata.get("choices") and not all(choice in help_ for choice in metadata["choices"]):
        help_ += f"; one of {', '.join(metadata['choices'])}"
    if default is MISSING:
        return f"{help_} (required)"
    if isinstance(default, bool):
        default = "yes" if default else "no"
    if isinstance(default, list | tuple):
        default = " ".join(map(str, default))
    if isinstance(default, dict):
        default = ",".join(f"{name}={value}" for name, value in default.items())
    shown = metadata.get("unset") if default is None or default == "" else default
    return help_ if shown in (None, "") else f"{help_} (default: {shown})"


def _normalized(argv: Sequence[str]) -> list[str]:
    """Flags with dashes; what follows `--` is marked as no flag, because `parse_intermixed_args` forgets that it is none."""
    end = argv.index("--") if "--" in argv else len(argv)
    return [*map(_with_dashes, argv[:end]), *(NO_FLAG + text for text in argv[end + 1 :])]


def _unmarked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    return value.removeprefix(NO_FLAG) if isinstance(value, str) else value


def _with_dashes(text: str) -> str:
    """`--max_steps=3` as `--max-steps=3`."""
    name, equals, value = text.partition("=")
    return name.replace("_", "-") + equals + value if text.startswith("--") else text


def _refuse_unknown_flags(parser: ArgumentParser, argv: Sequence[str]) -> None:
    known = parser._option_string_actions
    for text in argv:
        name = text.partition("=")[0] if text.startswith("--") else text[:2]
        is_flag = name.startswith("--") or (
            len(name) == 2 and name[0] == "-" and name[1].isascii() and name[1].isalpha()
        )
        if is_flag and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            parser.error(f"there is no option {name}" + (f"; did you mean {close[0]}?" if close else ""))


def _config_of(argv: Sequence[str], default: str | Path | None, parser: ArgumentParser) -> str | Path | None:
    """What `--config` says."""
    only = _Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
    only.add_argument("--config", default=default)
    return only.parse_known_args([text for text in argv if text not in ("-h", "--help")])[0].config


def _configs_for(types: Sequence[type]) -> list[str]:
    """Names of the packaged configs whose keys are all fields of these types."""
    known = _all_fields(types).keys()
    keys = {file.stem: read_yaml(file).keys() for file in CONFIGS.glob("*.yaml")}
    return sorted(name for name, given in keys.items() if given <= known)


def _config_file(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    packaged = CONFIGS / f"{source}.yaml"
    if path.name == str(source) and packaged.is_file():
        return packaged
    names = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    raise OSError(f"config must be a YAML file, or a packaged one ({names}), got {source}")


# -- values


def default_of(field_: Field) -> Any:
    """What an option is if nobody gives it; `REQUIRED` for one that must be given."""
    return field_.default if field_.default_factory is MISSING else field_.default_factory()


def _all_fields(types: Sequence[type]) -> dict[str, tuple[Any, Mapping[str, Any], Any]]:
    """Name -> (type, metadata, default)."""
    return {
        field_.name: (
            hints[field_.name],
            field_.metadata,
            default_of(field_),
        )
        for type_ in types
        for hints in [get_type_hints(type_)]
        for field_ in fields(type_)
        if field_.init
    }


def _positionals(types: Sequence[type]) -> Iterator[str]:
    return (name for name, (_, metadata, _) in _all_fields(types).items() if metadata.get("positional"))


def _item_type(hint: Any) -> tuple[bool, Any]:
    """Whether it is a list, and the type of a value or item."""
    if NoneType in get_args(hint):
        hint = next(part for part in get_args(hint) if part is not NoneType)
    return (True, get_args(hint)[0]) if get_origin(hint) is list else (False, hint)


def _flag_value(name: str, given: Any, types: Sequence[type]) -> Any:
    hint, metadata, default = _all_fields(types)[name]
    try:
        return _typed(given, hint, metadata, default)
    except ValueError as error:
        raise ValueError(f"{_names(name, metadata)[0]} {error}") from None


def _typed(given: Any, hint: Any, metadata: Mapping[str, Any], default: Any) -> Any:
    """
    A value of a YAML file or a text of the command line as its field's type has it.

    YAML 1.1 takes 5e-4 for text: texts are converted in both.

    Raises:
        ValueError: the field cannot have it.
    """
    if NoneType in get_args(hint) and (given is None or given in ("none", ["none"])):
        return None
    if given is None:
        raise ValueError("must have a value, got null")
    is_list, type_ = _item_type(hint)
    if not is_list:
        return _typed_item(given, type_, metadata)
    items = given if isinstance(given, list) else [given]
    if separator := metadata.get("separator"):
        items = [part.strip() for item in items for part in str(item).split(separator) if part.strip()]
    return [_typed_item(item, type_, metadata) for item in items]


def _typed_item(given: Any, type_: Any, metadata: Mapping[str, Any]) -> Any:
    parse = metadata.get("parse")
    if isinstance(given, dict) and parse is not None:
        return parse(given)
    kind = getattr(type_, "__name__", str(type_))
    if given is None or isinstance(given, list | dict):
        raise ValueError(f"must be one value of type {kind}, got {given!r}")
    if parse is not None:
        return parse(str(given))
    if isinstance(given, bool) and type_ is str:
        raise ValueError(f"must be text, and YAML takes yes, no, on and off for {given}: put it in quotes")
    if type_ is bool:
        if str(given).lower() not in ("true", "false"):
            raise ValueError(f"must be true or false, got {given!r}")
        return str(given).lower() == "true"
    try:
        value = type_(str(given))
    except ValueError:
        raise ValueError(f"must be {KINDS.get(type_, kind)}, got {str(given)!r}") from None
    if metadata.get("choices"):
        _check_choice(value, metadata["choices"])
    return value


def _check_choice(value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"must be one of {', '.join(choices)}, got {value!r}{hint}")


def _filled(type_: type, given: Mapping[str, Any]) -> Any:
    own = {field_.name: field_ for field_ in fields(type_) if field_.init}
    for name, (_, metadata, default) in _all_fields([type_]).items():
        if name not in given and default is MISSING:
            raise ValueError(f"{_names(name, metadata)[0]} is required")
    return type_(**{name: given[name] for name in own if name in given})


def as_plain(options: Any) -> dict[str, Any]:
    """The fields of a filled dataclass as JSON has them; typed values as the text that they were made from."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(name): plain(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value if value is None or isinstance(value, bool | int | float | str) else str(value)

    return {field_.name: plain(getattr(options, field_.name)) for field_ in fields(options)}
