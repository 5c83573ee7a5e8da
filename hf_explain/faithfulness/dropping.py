"""Deletion and insertion without a reference: the patches of a ViT that are removed leave its sequence of tokens.

A protocol of its own: its numbers do not compare with those where removed pixels become a color.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ..modeling.classifier import Classifier
from ..modeling.errors import ExplainerError
from ..modeling.hooks import hooked
from .curves import Engine
from .protocols import Protocol

# Position is added to a token before the first layer, and the head reads a token that is never removed: so the layers
# do not mind which patches are there.
FAMILIES = {"vit": 1, "deit": 2, "vit_msn": 1}  # how many tokens come before the patches


def by_patches(protocol: Protocol, classifier: Classifier) -> Protocol:
    """The protocol with the classifier's own patches as what is removed at once."""
    kind, patch = classifier.config.model_type, getattr(classifier.config, "patch_size", None)
    if kind not in FAMILIES or not isinstance(patch, int):
        raise ExplainerError(
            f"preset 'drop' takes patches out of a ViT's sequence, but this classifier is of type {kind!r}; give one "
            f"of {', '.join(FAMILIES)}, or another preset."
        )
    if protocol.start is not None or (protocol.level, protocol.patch) not in (("pixel", None), ("patch", patch)):
        raise ExplainerError(
            f"preset 'drop' removes the classifier's own patches of {patch} pixels and starts from none; leave level, "
            "patch and start out."
        )
    return replace(protocol, level="patch", patch=patch)


class DroppingEngine(Engine):
    """The same curves; a state is a set of patches that are kept."""

    def walk(self, pictures, blank, order, counts: list[int], total: int) -> Iterator[tuple[int, torch.Tensor]]:
        patches = self.patches(pictures, order, total)
        for count in counts:
            yield count, self.forward_with(pictures, patches[:, count:].sort(1).values)

    def patches(self, pictures, order, total: int) -> torch.Tensor:
        """Indices of the patches in the order of their pixels."""
        side = self.protocol.patch or 1
        first, width = order.view(len(order), total, -1)[:, :, 0], pictures.shape[-1]
        return first // width // side * (width // side) + first % width // side

    def forward_with(self, pictures: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """Logits of the pictures when only the patches `kept` (n, k) are in the sequence."""
        before = FAMILIES[self.classifier.config.model_type]

        def take(module, inputs, tokens):
            index = (kept + before)[..., None].expand(-1, -1, tokens.shape[-1])
            return torch.cat([tokens[:, :before], tokens.gather(1, index)], 1)

        with hooked((self.classifier.model.base_model.embeddings, take)):
            return self.forward(pictures)

    def reference(self, pictures: torch.Tensor, name) -> torch.Tensor:
        return pictures

    def blank(self, blank: torch.Tensor, name) -> torch.Tensor:
        """Without any patch: the same for every picture."""
        none = torch.empty((1, 0), dtype=torch.long, device=blank.device)
        if not self.constant:
            self.constant[name] = self.forward_with(blank[:1], none)
        return self.constant[name].expand(len(blank), -1)
