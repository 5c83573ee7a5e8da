"""ML-Att: attributions at the input, in the middle and at the end of any classifier (arXiv 2205.10435).

A classifier is split at a layer: z is what the layer gives, as a map, and a method explains the rest of the classifier
with z in the picture's place. Where to split is found by looking: hidden states are read as maps already, and the
module whose output is the wanted one is where a hook, for the time of one forward, puts another map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.feature_maps import FeatureMap, read_features, to_map
from ..modeling.hooks import hooked, watched

KNOWN: WeakKeyDictionary = WeakKeyDictionary()  # model -> size of the pictures -> its layers


@dataclass(frozen=True)
class Layer:
    """Where a classifier is split: the output of `module`, a path in the model, read as `feature` says."""

    module: str
    feature: FeatureMap


def find_layers(classifier: Classifier, size: tuple[int, int] | None = None) -> dict[str, Layer | None]:
    """The layers "input" (None: the picture itself), "middle" and "final" for pictures of `size`, by default its own.

    Middle is the hidden state half-way through: block L / 2 of a ViT, stage 2 or 3 of four. Final is the last one whose
    cells the logits depend on: the last stage, the last block, or the one before where the head reads [CLS] only.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> layers = find_layers(random_classifier("resnet"))
    >>> list(layers), layers["final"].feature.channels
    (['input', 'middle', 'final'], 96)
    """
    height, width = size or classifier.size
    size = (height, width)
    known = KNOWN.setdefault(classifier.model, {})
    if size not in known:
        known[size] = look_for_layers(classifier, size)
    return dict(known[size])


def look_for_layers(classifier: Classifier, size: tuple[int, int]) -> dict[str, Layer | None]:
    features = classifier.probe(size)
    makers = find_makers(classifier, features, size)
    backward = [Layer(*maker) for index in range(len(features) - 1, -1, -1) for maker in makers[index]]
    final = first_decisive(classifier, backward, size)
    if final is None:
        raise ExplainerError(
            f"no layer of {type(classifier.model).__name__} was found whose map decides over its logits; explain it "
            "with layer='input'."
        )
    half = (final.feature.index + 1) // 2
    nearest = sorted(range(final.feature.index), key=lambda index: abs(index - half))
    around = [Layer(*maker) for index in nearest for maker in makers[index]]
    return {"input": None, "middle": first_decisive(classifier, around, size) or final, "final": final}


def first_decisive(classifier, layers: list[Layer], size) -> Layer | None:
    return next((layer for layer in layers if is_decisive(classifier, layer, size)), None)


# ---- looking for the modules ----


def noise_picture(classifier, size) -> torch.Tensor:
    """Of noise, because in a blank one many modules give the same."""
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    return noise.to(classifier.device, classifier.dtype)


@torch.no_grad()
def find_makers(classifier, features: list[FeatureMap], size) -> list[list[tuple[str, FeatureMap]]]:
    """For each hidden state the modules that give it, the first to do so first, and how their output is read."""
    noise = noise_picture(classifier, size)
    with hooked((classifier.model, lambda *_: None)):  # a model that is watched is called as it is, not as prepared
        wanted = read_features(classifier.model, noise, features)[1]
    found: list[list[tuple[str, FeatureMap, bool]]] = [[] for _ in features]

    def look(path: str, inputs, output) -> None:
        given = first_tensor(output)
        for place, feature, target in zip(found, features, wanted, strict=True):
            read, exactly = how_it_is(given, target, feature)
            if read is not None:
                place.append((path, read, exactly))

    with hooked(*watched([(path, m) for path, m in classifier.model.named_modules() if path], look)):
        classifier(noise)
    return [[(path, read) for path, read, exactly in place if exactly >= max(p[2] for p in place)] for place in found]


def first_tensor(output):
    output = output[0] if isinstance(output, tuple) and output else output
    return output if isinstance(output, torch.Tensor) else None


def how_it_is(given, target: torch.Tensor, feature: FeatureMap) -> tuple[FeatureMap | None, bool]:
    """How to read the map `target` from a module's output, if it holds that map, and whether to the last bit.

    An untrained ConvNeXt's blocks change so little that several modules give nearly the same.
    """
    if given is None or given.ndim not in (3, 4) or len(given) != len(target):
        return None, False
    cells = target.shape[2] * target.shape[3]
    layouts = ("map", "channels_last") if given.ndim == 4 else ("tokens",)
    for layout in layouts:
        prefix = given.shape[1] - cells if layout == "tokens" else 0
        channels = given.shape[1] if layout == "map" else given.shape[-1]
        if channels != target.shape[1] or prefix < 0:
            continue
        if layout == "tokens":
            held = given[:, prefix:].transpose(1, 2).unflatten(2, target.shape[2:])
        else:
            held = given.permute(0, 3, 1, 2) if layout == "channels_last" else given
        if held.shape == target.shape and torch.allclose(
            held, target, rtol=1e-4, atol=1e-6 * float(target.abs().max())
        ):
            return FeatureMap(feature.index, channels, feature.stride, layout, prefix), torch.equal(held, target)
    return None, False


def is_decisive(classifier, layer: Layer, size) -> bool:
    """Whether the logits follow a map that is put in, and, where no special token goes past it, only that."""
    with torch.inference_mode(False), torch.enable_grad():
        x = noise_picture(classifier, size).requires_grad_(True)
        rest = LayerClassifier(classifier, layer, x)
        z = rest.maps.clone().requires_grad_(True)
        logits = rest(z)
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).to(logits)
        by_map, by_picture = torch.autograd.grad((logits * weights).sum(), [z, x], allow_unused=True)
    follows = by_map is not None and bool(by_map.any())
    goes_past = by_picture is not None and bool(by_picture.any())
    return follows and (not goes_past or layer.feature.prefix > 0)


# ---- splitting ----


def at_layer(model: torch.nn.Module, layer: Layer, hook: Callable):
    """`hook` on the layer's module inside a block."""
    return hooked((model.get_submodule(layer.module), hook))


@torch.no_grad()
def record(classifier, layer: Layer, pixel_values: torch.Tensor) -> torch.Tensor:
    """What the layer gives for pictures: (B, C, h, w)."""
    kept, size = [], pixel_values.shape[-2:]

    def hook(module, inputs, output):
        kept.append(to_map(None, [first_tensor(output)], 0, layer.feature, size).detach().clone())

    with at_layer(classifier.model, layer, hook):
        classifier(pixel_values)
    return kept[0]


def put(output, maps: torch.Tensor, feature: FeatureMap):
    """A module's output with another map in it; special tokens, and what else it returns, stay."""
    given = first_tensor(output)
    if feature.layout == "tokens":
        new = torch.cat([given[:, : feature.prefix], maps.flatten(2).transpose(1, 2).to(given)], dim=1)
    else:
        new = (maps.permute(0, 2, 3, 1) if feature.layout == "channels_last" else maps).to(given)
    return (new, *output[1:]) if isinstance(output, tuple) else new


class LayerClassifier:
    """The rest of a classifier after a layer: called like a `Classifier`, with maps (B, C, h, w) instead of pictures.

    Several maps of each picture may come at once, all pictures in turn: map r is of picture r % B. Special tokens are
    those of the picture.

    >>> from hf_explain.data.small_classifiers import random_classifier
    >>> classifier, pictures = random_classifier("resnet"), torch.rand(2, 3, 32, 32)
    >>> rest = LayerClassifier(classifier, find_layers(classifier)["final"], pictures)
    >>> torch.allclose(rest(rest.maps), classifier(pictures), atol=1e-6), rest(torch.zeros_like(rest.maps)).shape
    (True, torch.Size([2, 8]))

    Args:
        maps: of the pictures at that layer, where they are known.
    """

    pixel_space = None

    def __init__(self, classifier, layer: Layer, pixel_values: torch.Tensor, maps: torch.Tensor | None = None):
        self.classifier, self.layer, self.pixel_values = classifier, layer, pixel_values
        self.maps = record(classifier, layer, pixel_values) if maps is None else maps
        self.scores, self.dtype, self.device = classifier.scores, classifier.dtype, classifier.device

    def __call__(self, maps: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_labels)."""

        def hook(module, inputs, output):
            return put(output, maps, self.layer.feature)

        with at_layer(self.classifier.model, self.layer, hook):
            return self.classifier(self.pixel_values.repeat(len(maps) // len(self.pixel_values), 1, 1, 1))
