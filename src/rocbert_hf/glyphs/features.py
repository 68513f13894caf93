"""
Glyph features: what ResNet18 sees in the image of a character, and the contrastive pretraining of their projection
(Su et al., ACL 2022, section 4.1, Eq. 4 and 5).

torchvision is the extra `glyph`, imported here alone, and transformers is not imported at all: beside a torchvision
that lacks its compiled operators `import transformers` fails too, unless `import_torchvision` has run before.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from ..characters.confusables import confusables_of
from ..characters.parts import components_of, splits_of
from ..characters.similarity import lookalikes_of
from ..files import staged_folder
from ..losses_rocbert import in_batch_contrastive_loss
from ..resources import lookalike_ids, shape_ids, vocabulary
from .images import CHINESE_FONTS, FALLBACK_FONTS, OTHER_FONTS, find_font, glyph_images, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "GlyphEncoder",
    "GlyphPositives",
    "GlyphPretrainingArguments",
    "compute_glyph_features",
    "draw_vocabulary",
    "glyph_vectors",
    "import_torchvision",
    "load_resnet18",
    "nearest_neighbours",
    "plot_glyphs",
    "pretrain_glyphs",
    "save_glyph_features",
]

FEATURES_FILE, DESCRIPTION_FILE, BACKBONE_FILE = (
    "glyph_features.safetensors",
    "glyph_features.json",
    "resnet18.safetensors",
)
FEATURE_SIZE = 512  # of ResNet18's last layer before its classifier
POSITIVE_KINDS = ("visual", "split", "unicode")
# Of ImageNet's pixels, by which ResNet18's inputs are shifted and scaled, as mean over the three colours.
PIXEL_MEAN, PIXEL_STD = 0.449, 0.226


# ------------------------------------------------------------------------------------------------ ResNet18


def import_torchvision() -> ModuleType:
    """
    torchvision, also where its compiled operators cannot be loaded: a wheel built for CUDA beside a CPU-only torch, say.
    ResNet18 needs none of them, but importing torchvision does, unless `nms` and `qnms` are at least declared.

    Raises:
        ImportError: torchvision is not installed, or is not of this torch's version; the message says what to do.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise ImportError(
            'Glyph features need torchvision, which is not installed: pip install "rocbert-hf[glyph]".'
        ) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise ImportError(_cannot_import(error)) from error
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)
    try:
        return importlib.import_module("torchvision")
    except (ImportError, RuntimeError) as error:
        raise ImportError(_cannot_import(error)) from error


# torch forgets operators when the object that declared them is collected
_DECLARED: list[torch.library.Library] = []


def _cannot_import(error: Exception) -> str:
    return (
        f"torchvision is installed but cannot be imported beside torch {torch.__version__} ({error}); install the version "
        "that belongs to this torch (see https://github.com/pytorch/vision#installation)."
    )


def load_resnet18(weights: str | os.PathLike = "imagenet", seed: int = 0) -> nn.Module:
    """
    torchvision's ResNet18 without its classifier: (images, 3, height, width) -> (images, 512).

    Args:
        weights: "imagenet" (fetched on first use), "random", or a safetensors file with torchvision's names (as
            `save_glyph_features` writes); its classifier, if any, is not read.
        seed: of "random".

    Raises:
        ImportError: as in `import_torchvision`.
        OSError: ImageNet's weights cannot be fetched, or the file cannot be read.
        ValueError: the file does not hold a ResNet18.
    """
    file_state = None if str(weights) in ("imagenet", "random") else _read_tensors(Path(weights), "weights")
    models = import_torchvision().models
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = models.resnet18(weights=None)
    network.fc = nn.Identity()
    if str(weights) == "random":
        return network
    state = _imagenet_weights(models) if file_state is None else file_state
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"`weights`: {str(weights)!r} does not hold torchvision's ResNet18. {error}") from error
    return network


def _imagenet_weights(models: ModuleType) -> dict[str, torch.Tensor]:
    url = models.ResNet18_Weights.IMAGENET1K_V1.url
    try:
        return torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"ImageNet's weights cannot be fetched from {url} ({error}); give `weights` a safetensors file that holds "
            'them, or "random" to train from random weights.'
        ) from error


def _read_tensors(file: Path, argument: str) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise OSError(f"`{argument}`: there is no file {str(file)!r}.")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"`{argument}`: {str(file)!r} is not a whole safetensors file ({error}).") from error


# ------------------------------------------------------------------------------------------------ images


def _first_chinese() -> int:
    """The Chinese characters are the last of the vocabulary."""
    return len(vocabulary()) - len(lookalike_ids())


def draw_vocabulary(
    chinese_fonts: Sequence[str] = CHINESE_FONTS, other_fonts: Sequence[str] = OTHER_FONTS, size: int = 32
) -> np.ndarray:
    """
    Images of the packaged vocabulary, in the order of `input_shape_ids`, with fonts of one's own: SimSun and Arial, as
    in the paper, say. (The packaged images, `glyph_images()`, need no font.)

    Args:
        chinese_fonts, other_fonts: font files in order of preference, for Chinese and for other tokens; what none of
            the one has is drawn with the other.
        size: pixels a side.

    Returns:
        uint8 (16,224, size, size), 0 background, 255 ink; padding is blank.

    Raises:
        OSError: a font file is missing.
    """
    fallback = tuple(font for font in FALLBACK_FONTS if Path(font).is_file())
    for font in (*chinese_fonts, *other_fonts):
        find_font(font)
    tokens = [token.strip("[]") if len(token) > 1 else token for token in vocabulary()]
    first = _first_chinese()
    images = np.zeros((len(tokens), size, size), dtype=np.uint8)
    chinese = (*chinese_fonts, *other_fonts, *fallback)
    other = (*other_fonts, *chinese_fonts, *fallback)
    for start in tqdm(range(0, len(tokens), 500), desc="glyph images", unit="x 500"):
        for fonts, part in (
            (other, slice(start, min(start + 500, first))),
            (chinese, slice(max(start, first), start + 500)),
        ):
            if tokens[part]:
                images[part] = render(tokens[part], fonts, size)
    images[0] = 0
    return images


# ------------------------------------------------------------------------------------------------ positives


class GlyphPositives:
    """
    What looks like each token of the packaged vocabulary, of three kinds: `visual` (look-alikes), `split` (two parts,
    whose vectors are summed) and `unicode` (other code points drawn the same).

    Args:
        characters: of these alone; of all if not given.

    Attributes:
        anchors: int64 (n,), the tokens that have any.
        used: int64 (m,), the anchors and all that their positives consist of.

    Raises:
        ValueError: a character is not in the vocabulary, or none of them has a positive.
    """

    def __init__(self, characters: Sequence[str] | None = None):
        ids = shape_ids()
        if characters is None:
            characters = [token for token in ids if len(token) == 1]
        _check_known(characters)
        self._of: dict[int, dict[str, list[tuple[int, ...]]]] = {}
        for token in characters:
            anchor = ids[token]
            forms = {
                "visual": [(ids[other],) for other in lookalikes_of(token)],
                "split": [(ids[first], ids[second]) for first, second in splits_of(token)],
                "unicode": [(ids[other],) for other in confusables_of(token) if other in ids],
            }
            if any(forms.values()):
                self._of[anchor] = {kind: found for kind, found in forms.items() if found}
        if not self._of:
            raise ValueError("`characters`: nothing is known to look like any of them.")
        self.anchors = np.array(sorted(self._of))
        self._related: dict[int, set[int]] = {}
        for anchor, forms in self._of.items():
            for other in (part for found in forms.values() for positive in found for part in positive):
                self._related.setdefault(anchor, set()).add(other)
                self._related.setdefault(other, set()).add(anchor)
        self.used = np.array(sorted(self._related))

    def of(self, anchor: int) -> dict[str, list[tuple[int, ...]]]:
        """Kind -> the positives of this kind, each one id or, of a split, two; kinds without any are left out."""
        return self._of.get(anchor, {})

    def draw(self, anchors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """
        One positive an anchor: a kind uniformly among those that it has, then one of this kind uniformly.

        Returns:
            int64 (n, 2); the second column is -1 but for splits.
        """
        drawn = np.full((len(anchors), 2), -1)
        for row, anchor in zip(drawn, anchors.tolist(), strict=True):
            forms = list(self._of[anchor].values())
            found = forms[generator.integers(len(forms))]
            positive = found[generator.integers(len(found))]
            row[: len(positive)] = positive
        return drawn

    def related(self, anchors: np.ndarray) -> np.ndarray:
        """
        Which anchors look like which, in any of the three ways and in either direction: bool (n, n). They are no
        negatives of each other, or the loss would push apart what it pulls together in the next batch.
        """
        place = {anchor: column for column, anchor in enumerate(anchors.tolist())}
        related = np.zeros((len(anchors), len(anchors)), dtype=bool)
        for row, anchor in enumerate(anchors.tolist()):
            related[row, [place[other] for other in self._related[anchor] if other in place and other != anchor]] = True
        return related


# ------------------------------------------------------------------------------------------------ model and objective


def standardize(features: torch.Tensor) -> torch.Tensor:
    """Each of the (n, 512) features over the n images at mean 0 and variance 1, so that all of them count."""
    deviation = features.std(0, correction=0)
    return (features - features.mean(0)) / deviation.clamp(min=1e-6)


class GlyphEncoder(nn.Module):
    """
    `Vi = LayerNorm(M^T f)` (Eq. 4), `f` the standardised ResNet18 features of an image. `M` and the norm bear the names
    that they have in a model's fusion.

    Args:
        backbone: as `load_resnet18` returns.
        hidden_size: columns of M, the `hidden_size` of the model it is for.
        seed: of M.
    """

    def __init__(self, backbone: nn.Module, hidden_size: int = 768, layer_norm_eps: float = 1e-12, seed: int = 0):
        super().__init__()
        self.backbone = backbone
        self.shape_projection = nn.Linear(FEATURE_SIZE, hidden_size, bias=False)
        self.shape_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.shape_projection.weight, std=FEATURE_SIZE**-0.5, generator=generator)

    def see(self, images: torch.Tensor) -> torch.Tensor:
        """ResNet18's features, not standardised: uint8 (n, height, width) -> (n, 512)."""
        pixels = (images.float() / 255 - PIXEL_MEAN) / PIXEL_STD
        return self.backbone(pixels[:, None].expand(-1, 3, -1, -1))

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Eq. 4: (..., 512) -> (..., hidden)."""
        return self.shape_norm(self.shape_projection(features))


# ------------------------------------------------------------------------------------------------ training


@dataclass
class GlyphPretrainingArguments:
    """How to pretrain M and, with `train_backbone`, ResNet18.

    Raises:
        ValueError: a value is outside what is allowed.
    """

    train_backbone: bool = field(default=False, metadata={"help": "train ResNet18 too, not M and its norm alone"})
    epochs: int = field(default=10, metadata={"help": "passes over the characters; 0 only computes the features"})
    batch_size: int = field(default=512, metadata={"help": "characters a step, each other's negatives"})
    learning_rate: float = field(default=1e-3, metadata={"help": "highest; reached after a tenth, then falling to 0"})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's"})
    temperature: float = field(default=0.01, metadata={"help": "what cosines are divided by"})
    seed: int = field(default=0, metadata={"help": "seed of weights, order and positives"})

    def __post_init__(self):
        if self.epochs < 0 or self.weight_decay < 0:
            raise ValueError("epochs and weight_decay must not be negative")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, for there to be negatives; got {self.batch_size}")
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


@torch.no_grad()
def compute_glyph_features(encoder: GlyphEncoder, images: np.ndarray, batch_size: int = 512) -> torch.Tensor:
    """Standardised ResNet18 features of all images, uint8 (n, height, width) -> float32 (n, 512)."""
    encoder.eval()
    device = encoder.shape_projection.weight.device
    starts = tqdm(range(0, len(images), batch_size), desc="glyph features", unit="batch")
    parts = [encoder.see(torch.tensor(images[start : start + batch_size], device=device)) for start in starts]
    return standardize(torch.cat(parts))


@torch.no_grad()
def glyph_vectors(encoder: GlyphEncoder, features: torch.Tensor) -> torch.Tensor:
    """`Vi` of features: (n, 512) -> (n, hidden)."""
    return encoder.eval().project(features)


def pretrain_glyphs(
    encoder: GlyphEncoder,
    images: np.ndarray,
    arguments: GlyphPretrainingArguments,
    features: torch.Tensor | None = None,
    positives: GlyphPositives | None = None,
) -> list[dict[str, float]]:
    """
    Trains the encoder in place, with `in_batch_contrastive_loss` (Eq. 5; its negatives are the originals), on characters and what looks like them.

    Args:
        encoder: on the device that is to train it.
        images: of the packaged vocabulary, uint8 (16,224, height, width).
        features: their features, if they have been computed; not read where the backbone is trained.
        positives: what to train on; all characters if not given.

    Returns:
        Mean `loss` and `accuracy` of each epoch.
    """
    positives = positives or GlyphPositives()
    generator = np.random.default_rng(arguments.seed)
    device = encoder.shape_projection.weight.device
    if features is None and not arguments.train_backbone:
        features = compute_glyph_features(encoder, images)
    all_images = torch.tensor(images, device=device)

    def vectors_of(ids: torch.LongTensor) -> torch.Tensor:
        if not arguments.train_backbone:
            return encoder.project(features[ids])
        return encoder.project(standardize(encoder.see(all_images[ids])))

    learning = list(encoder.parameters()) if arguments.train_backbone else _parameters_of_equation_4(encoder)
    optimizer = torch.optim.AdamW(learning, lr=arguments.learning_rate, weight_decay=arguments.weight_decay)
    steps_an_epoch = max(len(positives.anchors) // arguments.batch_size, 1)
    steps = steps_an_epoch * arguments.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate_share(step, steps))
    history = []
    with tqdm(total=steps, desc="glyph pretraining", unit="step") as progress:
        for _ in range(arguments.epochs):
            encoder.train()
            total = torch.zeros(2)
            for anchors in _batches(positives.anchors, arguments.batch_size, generator):
                drawn = positives.draw(anchors, generator)
                # each image once, however many characters it belongs to
                needed, places = np.unique(np.column_stack([anchors, drawn]), return_inverse=True)
                absent = int(needed[0] < 0)
                vectors = vectors_of(torch.tensor(needed[absent:], device=device))
                vectors = torch.cat([vectors.new_zeros(absent, vectors.shape[1]), vectors])
                own, first, second = vectors[torch.tensor(places.reshape(-1, 3), device=device)].unbind(1)
                related = torch.tensor(positives.related(anchors), device=device)
                loss, accuracy = in_batch_contrastive_loss(
                    own, first + second, arguments.temperature, negatives="originals", related=related
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += torch.stack([loss.detach(), accuracy]).cpu()
                progress.set_postfix(loss=f"{loss.item():.2f}", accuracy=f"{accuracy.item():.2f}", refresh=False)
                progress.update()
            loss, accuracy = (total / steps_an_epoch).tolist()
            history.append({"loss": loss, "accuracy": accuracy})
    return history


def _parameters_of_equation_4(encoder: GlyphEncoder) -> list[nn.Parameter]:
    return [*encoder.shape_projection.parameters(), *encoder.shape_norm.parameters()]


def _learning_rate_share(step: int, steps: int) -> float:
    """Rises over a tenth of the steps, then falls as a half cosine."""
    rise = max(steps // 10, 1)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1)))


def _batches(anchors: np.ndarray, batch_size: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """The anchors in random order; what fills no batch waits for the next epoch."""
    order = generator.permutation(anchors)
    if len(order) < batch_size:
        yield order
    for start in range(0, len(order) - batch_size + 1, batch_size):
        yield order[start : start + batch_size]


# ------------------------------------------------------------------------------------------------ files


def save_glyph_features(
    folder: str | os.PathLike, encoder: GlyphEncoder, features: torch.Tensor, description: dict, backbone: bool = False
) -> None:
    """
    Writes `glyph_features.safetensors`, which `RoCBertModel.load_glyph_features` reads: `features` (rows as
    `input_shape_ids`), M and its norm; and `glyph_features.json`: under "config" the fields of a `RoCBertConfig` that
    they fit, then `description`. Each file appears whole or not at all.

    Args:
        folder: made if it is not there.
        features: (shapes, 512).
        description: what JSON can hold.
        backbone: whether to write `resnet18.safetensors` too, for `load_resnet18`.
    """
    tensors = {
        "features": features,
        "shape_projection.weight": encoder.shape_projection.weight,
        "shape_norm.weight": encoder.shape_norm.weight,
        "shape_norm.bias": encoder.shape_norm.bias,
    }
    config = {
        "shape_vocab_size": len(features),
        "shape_embed_dim": features.shape[1],
        "hidden_size": encoder.shape_projection.out_features,
        "layer_norm_eps": encoder.shape_norm.eps,
    }
    with staged_folder(Path(folder)) as staging:
        _write_tensors(staging / FEATURES_FILE, tensors)
        if backbone:
            _write_tensors(staging / BACKBONE_FILE, encoder.backbone.state_dict())
        text = json.dumps({"config": config, **description}, indent=2, ensure_ascii=False) + "\n"
        (staging / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


def _write_tensors(file: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)


# ------------------------------------------------------------------------------------------------ looking at them


def nearest_neighbours(vectors: torch.Tensor, characters: Sequence[str], k: int = 10) -> dict[str, list[str]]:
    """
    Character -> its k nearest among the Chinese characters of the packaged vocabulary, by cosine, nearest first.

    Args:
        vectors: a row for each token of the vocabulary.

    Raises:
        ValueError: a character is not in the vocabulary.
    """
    _check_known(characters)
    ids, first = shape_ids(), _first_chinese()
    normalized = nn.functional.normalize(vectors, dim=-1)
    found = {}
    for start in range(0, len(characters), 256):  # their similarities to all others take 15 MB
        some = characters[start : start + 256]
        similarity = normalized[[ids[character] for character in some]] @ normalized[first:].T
        nearest = (similarity.topk(k + 1).indices + first).tolist()
        for character, row in zip(some, nearest, strict=True):
            found[character] = [vocabulary()[i] for i in row if i != ids[character]][:k]
    return found


def _check_known(characters: Sequence[str]) -> None:
    unknown = [character for character in characters if character not in shape_ids()]
    if unknown:
        raise ValueError(f"`characters`: {', '.join(map(repr, unknown))} not in the packaged vocabulary.")


def characters_by_component(components: int = 12, of_each: int = 25, most_common: int = 3500) -> dict[str, list[str]]:
    """Component -> the most frequent Chinese characters that begin with it, for the components with most of them."""
    ids, first = shape_ids(), _first_chinese()
    groups: dict[str, list[str]] = {}
    for character in vocabulary()[first : first + most_common]:
        parts = components_of(character)
        if len(parts) > 1 and parts[0] in ids:
            groups.setdefault(parts[0], []).append(character)
    largest = sorted(groups, key=lambda component: -len(groups[component]))[:components]
    return {component: groups[component][:of_each] for component in largest}


def plot_glyphs(
    named_vectors: dict[str, torch.Tensor], path: str | os.PathLike | None = None, seed: int = 0, of_each: int = 25
) -> Figure:
    """
    t-SNE of common characters in two dimensions, coloured by the component that they begin with: one panel for each of
    `named_vectors`, say before and after pretraining. Characters are drawn from the packaged glyph images.

    Args:
        named_vectors: title -> a row for each token of the vocabulary.
        path: where to save the picture (`.png`, `.svg`, `.pdf`); nowhere if not given.
        seed: of t-SNE.
        of_each: at most so many characters of each component.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage
    from sklearn.manifold import TSNE

    groups, ids, images = characters_by_component(of_each=of_each), shape_ids(), glyph_images()
    members = [(character, group) for group, found in enumerate(groups.values()) for character in found]
    colours = colormaps["tab20"].colors[::2] + colormaps["tab20b"].colors[::4]

    def add(axes, character: str, group: int, place: tuple[float, float], coordinates: str = "data") -> None:
        picture = np.empty((32, 32, 4), dtype=np.float32)
        picture[..., :3] = colours[group % len(colours)]
        picture[..., 3] = images[ids[character]] / np.float32(255)
        box = AnnotationBbox(
            OffsetImage(picture, zoom=0.45), place, xycoords=coordinates, frameon=False, annotation_clip=False
        )
        axes.add_artist(box)

    figure = Figure(figsize=(8 * len(named_vectors), 8.6), dpi=120)
    for axes, (title, vectors) in zip(
        figure.subplots(1, len(named_vectors), squeeze=False)[0], named_vectors.items(), strict=True
    ):
        chosen = nn.functional.normalize(vectors[[ids[character] for character, _ in members]].float().cpu(), dim=-1)
        projection = TSNE(metric="cosine", init="random", perplexity=min(20, len(chosen) / 3), random_state=seed)
        places = projection.fit_transform(chosen.numpy())
        axes.set_title(title)
        axes.scatter(*places.T, s=0)  # sets the limits
        axes.set_xticks([])
        axes.set_yticks([])
        for (character, group), place in zip(members, places.tolist(), strict=True):
            add(axes, character, group, place)
        for group, component in enumerate(groups):
            add(axes, component, group, (0.1 + 0.8 * group / (len(groups) - 1), -0.03), "axes fraction")
    figure.tight_layout()
    if path is not None:
        figure.savefig(path)
    return figure
