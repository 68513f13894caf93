"""
Runs transformers' own tests of models, generation, pipelines and tokenizers on our classes, from a checkout of transformers.

    python tests/transformers_suite CHECKOUT [options of pytest]

The checkout's tests are imported as the package `tests`, which ours are called too. So they run in a process of their
own that starts in the checkout, and nothing here is imported as `tests.transformers_suite`.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import transformers

HERE = Path(__file__).resolve().parent
MODULES = ("on_models.py", "on_pipelines.py", "on_tokenizer.py")
NEEDED = (
    "tests/test_modeling_common.py",
    "tests/test_pipeline_mixin.py",
    "tests/test_tokenization_common.py",
    "tests/generation/test_utils.py",
    "src/transformers/__init__.py",
)


def checked_checkout(given: str) -> Path:
    """
    The folder of a checkout of transformers at the installed version.

    Raises:
        OSError: it lacks the tests.
        ValueError: it is of another version.
    """
    checkout = Path(given).resolve()
    if missing := [name for name in NEEDED if not (checkout / name).is_file()]:
        raise OSError(f"CHECKOUT={given!r} has no {', '.join(missing)}; give a git checkout of transformers")
    source = (checkout / "src/transformers/__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"', source, re.MULTILINE)[1]
    if version != transformers.__version__:
        raise ValueError(
            f"CHECKOUT={given!r} is transformers {version}, but {transformers.__version__} is installed; run "
            f"`git checkout v{transformers.__version__}` there"
        )
    return checkout


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        print("Usage: python tests/transformers_suite CHECKOUT [options of pytest]", file=sys.stderr)
        return 2
    try:
        checkout = checked_checkout(arguments[0])
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if importlib.util.find_spec("parameterized") is None:
        print(
            "error: transformers' tests need the package parameterized; run `pip install parameterized`",
            file=sys.stderr,
        )
        return 2
    selected = [name for name in arguments[1:] if name.startswith(MODULES)]
    options = [name for name in arguments[1:] if name not in selected]
    files = [str(HERE / name) for name in selected or MODULES]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            str(HERE / "pytest.ini"),
            "--rootdir",
            str(HERE),
            "--confcutdir",
            str(HERE),
        ]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_TINY_MODEL_PATH": folder}
        return subprocess.run([*command, *files, *options], cwd=checkout, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
