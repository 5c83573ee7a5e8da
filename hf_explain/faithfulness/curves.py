"""The curves of a protocol: what the classifier has to see for them, seen once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext

import torch

from ..modeling.classifier import Classifier
from ..modeling.perturbation import order_each
from ..modeling.references import find_reference, reference_image
from .case import find_score
from .protocols import Protocol

Reference = str | float  # a name, or a gray
State = tuple[Reference, str, int]  # towards which reference, which end of the order is gone, how many units


class Engine:
    """The forwards of a protocol, block by block; what no map changes is forwarded once."""

    def __init__(self, classifier: Classifier, protocol: Protocol, batch_size: int, dtype: torch.dtype | None = None):
        self.classifier, self.protocol, self.batch_size, self.dtype = classifier, protocol, batch_size, dtype
        self.constant: dict = {}  # reference -> logits (1, labels) of the picture that is nothing but it

    def block(self, pictures: torch.Tensor, maps: Mapping[str, torch.Tensor], targets: torch.Tensor | None):
        """{name: {curve: (n, points)}} on the CPU, and the classes, of at most `batch_size` pictures."""
        protocol, (height, width) = self.protocol, pictures.shape[-2:]
        pictures = pictures.to(self.classifier.device, self.classifier.dtype)
        total = protocol.units(height, width)
        points = visited(protocol, protocol.cuts(height, width), total)
        states = dict.fromkeys(state for some in points.values() for state in some)
        known: dict[State, torch.Tensor] = {}  # what no map changes
        if targets is None or any(count == 0 for _, _, count in states):
            clean = self.forward(pictures)
            targets = clean.argmax(-1) if targets is None else targets
            known = {(name, side, 0): clean for name, side, _ in states}
        blanks = {name: self.reference(pictures, name) for name in dict.fromkeys(name for name, _, _ in states)}
        emptied = dict.fromkeys(name for name, _, count in states if count == total)
        empty = {name: self.blank(blanks[name], name) for name in emptied}
        known |= {(name, side, total): empty[name] for name, side, _ in states if name in empty}
        results: dict[str, dict[str, torch.Tensor]] = {}
        for name, one in maps.items():
            order = removal_order(one.to(pictures.device), protocol)
            logits = known | self.between(pictures, blanks, order, [s for s in states if s not in known], total)
            results[name] = {}
            for curve in protocol.curves:
                read = find_score(curve.score)
                scores = [read(self.classifier, logits[state], targets) for state in points[curve.name]]
                results[name][curve.name] = torch.stack(scores, 1).cpu()
        return results, targets.cpu()

    def between(self, pictures, blanks, order, states: Iterable[State], total: int) -> dict[State, torch.Tensor]:
        """Logits of the states, by one walk from each end of the order to each reference."""
        ways: dict[tuple[Reference, str], list[int]] = {}
        for name, side, count in states:
            ways.setdefault((name, side), []).append(count)
        logits = {}
        for (name, side), counts in ways.items():
            first = order if side == "most" else order.flip(1)
            for count, found in self.walk(pictures, blanks[name], first, sorted(counts), total):
                logits[name, side, count] = found
        return logits

    def walk(self, pictures, blank, order, counts: list[int], total: int) -> Iterator[tuple[int, torch.Tensor]]:
        """(count, logits) with the first `count` units of `order` gone, for rising counts.

        From point to point only what goes is written. Where the pictures are fewer than a batch, several points share
        a forward.
        """
        current = pictures.clone()
        rows = order.shape[1] if order.shape[1] == pictures[0].numel() else pictures[0, 0].numel()
        flat, other = current.view(len(current), -1, rows), blank.reshape(len(current), -1, rows)
        per_unit, done = order.shape[1] // total, 0
        together = max(1, self.batch_size // len(pictures))
        for group in (counts[i : i + together] for i in range(0, len(counts), together)):
            states = []
            for count in group:
                index = order[:, None, done : count * per_unit].expand(-1, flat.shape[1], -1)
                flat.scatter_(2, index, other.gather(2, index))
                done = count * per_unit
                states.append(current.clone() if len(group) > 1 else current)
            logits = self.forward(torch.cat(states) if len(group) > 1 else current)
            yield from zip(group, logits.split(len(pictures)), strict=True)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        lower = torch.autocast(pictures.device.type, self.dtype) if self.dtype else nullcontext()
        with lower:
            return self.classifier(pictures)

    def reference(self, pictures: torch.Tensor, name: Reference) -> torch.Tensor:
        """What removed pixels become; random ones are the same for every picture."""
        alike = pictures if find_reference(name).per_picture else pictures[:1]
        generator = torch.Generator().manual_seed(self.protocol.seed)
        return reference_image(alike, self.classifier.pixel_space, name, generator).expand_as(pictures)

    def blank(self, blank: torch.Tensor, name: Reference) -> torch.Tensor:
        """Logits of the reference alone."""
        if find_reference(name).per_picture:
            return self.forward(blank)
        size = tuple(blank.shape[-2:])
        if (name, size) not in self.constant:
            self.constant[name, size] = self.forward(blank[:1].contiguous())
        return self.constant[name, size].expand(len(blank), -1)


def visited(protocol: Protocol, cuts: list[int], total: int) -> dict[str, list[State]]:
    """curve -> its points.

    Curves that show the classifier the same pictures share them: what insertion has brought back is what the
    removal of the least important has left.
    """
    states = {}
    for curve in protocol.curves:
        if curve.kind == "insertion":
            start = protocol.reference if protocol.start is None else protocol.start
            points = [(start, "least", total - cut) for cut in cuts]
            states[curve.name] = points if protocol.clean else points[:-1]
        else:
            points = [(protocol.reference, "most" if curve.kind == "deletion" else "least", cut) for cut in cuts]
            states[curve.name] = points if protocol.clean else points[1:]
    return states


def removal_order(attributions: torch.Tensor, protocol: Protocol) -> torch.Tensor:
    """Indices of pixels, or of channel entries, from the most to the least important: (n, P) or (n, 3 P)."""
    if protocol.level == "pixel":
        return order_each(attributions.flatten(1), protocol.seed)
    if protocol.level == "entry":  # those of a pixel follow each other, equal as they are
        first = order_each(attributions.flatten(1), protocol.seed)
        channels = torch.arange(3, device=first.device)
        return (first[..., None] + channels * first.shape[1]).flatten(1)
    (height, width), side = attributions.shape[1:], protocol.patch or 1
    patches = torch.nn.functional.avg_pool2d(attributions[:, None].float(), side).flatten(1)
    order = order_each(patches, protocol.seed)
    pixels = torch.arange(height * width, device=order.device).view(height // side, side, width // side, side)
    inside = pixels.transpose(1, 2).reshape(-1, side * side)  # of each patch
    return inside[order].flatten(1)


def area_under(protocol: Protocol, cuts: list[int], curve: torch.Tensor) -> torch.Tensor:
    points = protocol.spacing(cuts)[len(cuts) - curve.shape[1] :]  # without the clean point if it has none
    area = torch.trapezoid(curve.double(), torch.tensor(points, dtype=torch.float64)).float()
    return 100 * area if protocol.area == "percent" else area
