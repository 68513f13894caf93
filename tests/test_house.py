"""The structure that CONTRIBUTING promises: layers, names, sizes, and tests that mirror the package."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "rocbert_hf"
pytestmark = pytest.mark.skipif(not PACKAGE.is_dir(), reason="needs a clone of the repository")
MODULES = {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in sorted(PACKAGE.rglob("*.py"))}
ENTRY = ("__init__", "__main__")  # the package's own names, and `python -m`: nobody below the commands imports them
CONVENTIONS = ("__init__", "__main__", "run")  # `run`: what the command of its room does, called so in every room


def layers() -> dict[str, int]:
    """Room or module -> number of its layer, from the table in CONTRIBUTING."""
    numbered = {}
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    for number, names in rows:
        for name in re.findall(r"`([\w/]+?)(?:\.py|/)?`", names):
            assert name not in numbered, f"{name} stands twice in the table of layers"
            numbered[name] = int(number)
    return numbered


def room_of(module: str) -> str:
    return module.split(".")[0]


def imports_of(module: str, file: Path) -> Iterator[tuple[int, str]]:
    """(line, module of this package) of every import, also those inside functions and for types only."""
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names if alias.name.split(".")[0] == "rocbert_hf"]
            yield from ((node.lineno, ".".join(target[1:]) or "__init__") for target in targets)
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = package[: len(package) - (node.level - 1)]
        elif node.module and node.module.split(".")[0] == "rocbert_hf":
            base = []
        else:
            continue
        inside = (node.module or "").split(".") if node.module else []
        target = [*base, *(inside if node.level else inside[1:])]
        for alias in node.names:
            name = ".".join([*target, alias.name])
            if name in MODULES or f"{name}.__init__" in MODULES:
                yield node.lineno, name
            else:
                yield node.lineno, ".".join(target) or "__init__"


def test_every_module_has_a_layer():
    table = layers()
    rooms = {room_of(module) for module in MODULES} - set(ENTRY)
    assert rooms == set(table)


def test_imports_go_downwards():
    table, upwards = layers(), []
    for module, file in MODULES.items():
        room = room_of(module)
        if room in ENTRY:
            continue
        for line, target in imports_of(module, file):
            other = room_of(target)
            if (other in ENTRY and room != "cli") or (
                other not in ENTRY and other != room and table[other] >= table[room] and not together(room, other)
            ):
                upwards.append(f"{file.relative_to(ROOT)}:{line} imports {target}")
    assert not upwards, "\n".join(upwards)


def together(room: str, other: str) -> bool:
    """Whether both are flat files of the model: they are one room, though they have no folder."""
    return room.endswith("_rocbert") and other.endswith("_rocbert")


def test_no_circle():
    graph = {}
    for module, file in MODULES.items():
        targets = {target if target in MODULES else f"{target}.__init__" for _, target in imports_of(module, file)}
        graph[module] = {target for target in targets if target in MODULES and target != module}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_a_name_means_one_thing():
    """No two files, classes or public functions of one name."""
    places = defaultdict(set)
    for module, file in MODULES.items():
        stem = module.split(".")[-1]
        if stem not in CONVENTIONS and room_of(module) != "cli":  # a command is called as what it runs
            places[f"file {stem}.py"].add(module)
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            is_definition = isinstance(node, ast.ClassDef | ast.FunctionDef)
            if is_definition and not node.name.startswith("_") and room_of(module) != "cli":
                places[node.name].add(module)
    twice = {name: sorted(modules) for name, modules in places.items() if len(modules) > 1}
    assert not twice, twice


@pytest.mark.parametrize(("folder", "limit"), [("src", 600), ("examples", 120)])
def test_files_can_be_read_in_one_sitting(folder, limit):
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in (ROOT / folder).rglob("*.py")}
    assert not {str(file.relative_to(ROOT)): count for file, count in lines.items() if count > limit}


def test_tests_mirror_the_package():
    rooms = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}
    folders = {folder.name for folder in (ROOT / "tests").iterdir() if any(folder.glob("test_*.py"))}
    assert rooms <= folders
    assert folders - rooms <= {"examples", "model", "tokenization"}  # scripts, and the flat files
