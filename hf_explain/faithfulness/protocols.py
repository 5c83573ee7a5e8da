"""How a faithfulness number is made: every choice is named, because the same word means other numbers elsewhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace

from ..modeling.errors import ExplainerError, unknown_name
from .case import find_score


@dataclass(frozen=True)
class Curve:
    """One curve of a protocol.

    Args:
        name: of its area in the report.
        kind: "deletion": the most important pixels are removed first; "negative": the least important ones;
            "insertion": the most important ones are brought back first, from a picture without any. "metric" is none
            of these, but a number of its own (suite.py).
        score: the class's probability, its logit, whether it is the prediction ("indicator"), or -log probability
            ("surprise").
    """

    name: str
    kind: str
    score: str = "probability"

    @property
    def better(self) -> str:
        """Whether a lower or a higher area is better."""
        if self.kind == "metric":
            return "lower" if self.name == "infidelity" else "higher"
        return "lower" if (self.kind == "deletion") != (self.score == "surprise") else "higher"


@dataclass(frozen=True)
class Protocol:
    """How a number was made. Numbers of different protocols are not comparable.

    Args:
        name: of the preset.
        curves: what is measured.
        reference: what removed pixels become, a name or a gray in [0, 1].
        start: what insertion starts from, if not from the reference.
        budgets: points of a curve, evenly spaced shares from 0 to `end`.
        step: so many pixels (channel entries, patches) from point to point instead, up to all of them; "row": as many
            as the picture is wide.
        end: last share.
        rounding: "round" or "floor", of a share of the pixels.
        level: what is removed at once: a "pixel", a "patch" of `patch` x `patch` pixels, or a single channel "entry".
        clean: the curve begins with the whole picture (insertion: ends with it).
        area: "unit": 1 for a curve that is 1 from share 0 to share 1; "percent": 100 times that; "steps": points are
            1 apart; "shares": as unit, with the points where they really are if the last step is shorter.
        label: "explained": the classes that are explained; "given": the true ones, which must be given.
        seed: of the order among equal pixels, and of random references.
    """

    name: str
    curves: tuple[Curve, ...] = (Curve("deletion", "deletion"), Curve("insertion", "insertion"))
    reference: str | float = "mean"
    start: str | float | None = None
    budgets: int | None = 21
    step: int | str | None = None
    end: float = 1.0
    rounding: str = "round"
    level: str = "pixel"
    patch: int | None = None
    clean: bool = True
    area: str = "unit"
    label: str = "explained"
    seed: int = 0

    def describe(self) -> dict:
        """As plain values, the curves as {name: "kind, score"}."""
        curves = {curve.name: f"{curve.kind}, {curve.score}" for curve in self.curves}
        return asdict(self) | {"curves": curves}

    @property
    def is_suite(self) -> bool:
        return any(curve.kind == "metric" for curve in self.curves)

    def said(self, key: str) -> str:
        """In a few words, beginning with `key`."""
        if self.is_suite:
            return f"{self.name}, {self.label} class"
        points = f"{self.budgets} points" if self.budgets else f"a point per {self.step}"
        start = f", insertion from {self.start}" if self.start else ""
        scale = "" if self.area == "unit" else f", area in {self.area}"
        return f"{key}: {points}, reference {self.reference}{start}, {self.label} class{scale}"

    def cuts(self, height: int, width: int) -> list[int]:
        """How many units (pixels, patches or channel entries) are gone at every point."""
        total = self.units(height, width)
        if self.budgets is not None:
            exact = [total * (self.end * i / (self.budgets - 1)) for i in range(self.budgets)]
            # 1e-9: a share such as 0.7 is a little less than what it says
            return [min(total, round(cut) if self.rounding == "round" else int(cut + 1e-9)) for cut in exact]
        step = width if self.step == "row" else int(self.step or 1)
        return [*range(0, total, step), total]

    def units(self, height: int, width: int) -> int:
        if self.level == "entry":
            return 3 * height * width
        if self.level == "pixel":
            return height * width
        side = self.patch or 1
        if height % side or width % side:
            raise ExplainerError(
                f"patch={side} does not divide pictures of {height} x {width}; give a size of patches that does."
            )
        return height * width // side**2

    def spacing(self, cuts: list[int]) -> list[float]:
        """Where the points of a curve lie, for the area under it."""
        if self.area == "steps":
            return [float(i) for i in range(len(cuts))]
        if self.area == "shares":
            return [cut / cuts[-1] for cut in cuts]
        last = len(cuts) - 1
        return [self.end * i / last for i in range(len(cuts))]


POSITIVE = Curve("positive", "deletion", "indicator")
NEGATIVE = Curve("negative", "negative", "indicator")
PRESETS = {
    # "Learn to Rank": mean color, 21 points.
    "aha": Protocol("aha"),
    # RISE's CausalMetric: 0 of the normalized picture, insertion from a blurred one, a row of pixels per step.
    "rise": Protocol("rise", reference="zero", start="rise_blur", budgets=None, step="row"),
    # LTX: indicators and probabilities of the true class at 0, 10, ..., 90 % of the pixels; what LTX calls insertion
    # is removing the least important first.
    "ltx": Protocol(
        "ltx",
        curves=(POSITIVE, NEGATIVE, Curve("deletion", "deletion"), Curve("negative_deletion", "negative")),
        reference="black",
        budgets=10,
        end=0.9,
        rounding="floor",
        area="percent",
        label="given",
    ),
    # Chefer et al.: the same indicators, of the explained class.
    "chefer": Protocol(
        "chefer", curves=(POSITIVE, NEGATIVE), reference="black", budgets=10, end=0.9, rounding="floor", area="percent"
    ),
    # Vision DiffMask: a 28th of the picture per step, noise around 0 of the normalized picture; points are 1 apart.
    "diffmask": Protocol(
        "diffmask",
        curves=(
            Curve("positive", "deletion"),
            Curve("negative", "negative"),
            Curve("positive_surprise", "deletion", "surprise"),
            Curve("negative_surprise", "negative", "surprise"),
        ),
        reference="signed_noise",
        budgets=29,
        area="steps",
        seed=123,
    ),
    # xplique's Deletion and Insertion with a softmax: 0 of the normalized picture. Where the steps divide the picture
    # it is torch-cam's too, which else has a shorter last step (step=, area="shares").
    "xplique": Protocol("xplique", reference="zero", budgets=11, rounding="floor"),
    # Quantus' PixelFlipping: single channel entries, the picture's minimum, no clean point.
    "quantus": Protocol(
        "quantus",
        curves=(Curve("deletion", "deletion"),),
        reference="minimum",
        budgets=None,
        step="row",
        level="entry",
        clean=False,
        area="steps",
        label="given",
    ),
    # Removed patches leave the sequence of a ViT's tokens: nothing takes their place. See dropping.py.
    "drop": Protocol("drop", reference="drop"),
    # What "Semantic Pullbacks" reports of a map, with the settings of its code; see suite.py.
    "sp": Protocol(
        "sp",
        curves=tuple(
            Curve(name, "metric")
            for name in ("infidelity", "faithfulness_correlation", "faithfulness_estimate", "monotonicity_correlation")
        ),
        label="given",
    ),
}
CHANGEABLE = {field.name for field in fields(Protocol)} - {"name", "curves"}


def read_protocol(preset: str | Protocol, changes: dict) -> Protocol:
    """The preset with single values changed.

    >>> read_protocol("aha", {"reference": "blur", "budgets": 5}).cuts(4, 4)
    [0, 4, 8, 12, 16]
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise ExplainerError(f"{unknown_name('preset', preset, PRESETS)}.")
    changes, protocol = dict(changes), PRESETS[preset] if isinstance(preset, str) else preset
    if "score" in changes:
        score = changes.pop("score")
        find_score(score)
        protocol = replace(protocol, curves=tuple(replace(curve, score=score) for curve in protocol.curves))
    unknown = set(changes) - CHANGEABLE
    if unknown:
        raise ExplainerError(
            f"unknown argument {', '.join(sorted(unknown))}; what can change of a preset: score, "
            f"{', '.join(sorted(CHANGEABLE))}."
        )
    if changes.get("step") is not None:
        changes.setdefault("budgets", None)
    elif changes.get("budgets") is not None:
        changes.setdefault("step", None)
    if changes.get("patch") is not None:
        changes.setdefault("level", "patch")
    protocol = replace(protocol, **changes)
    check(protocol)
    return protocol


def check(protocol: Protocol) -> None:
    if protocol.is_suite and replace(protocol, seed=0, label="given") != PRESETS[protocol.name]:
        raise ExplainerError(
            f"preset {protocol.name!r} has the settings of its authors; only seed and label can change."
        )
    choices = {
        "rounding": ("round", "floor"),
        "level": ("pixel", "patch", "entry"),
        "area": ("unit", "percent", "steps", "shares"),
        "label": ("explained", "given"),
    }
    for name, known in choices.items():
        if getattr(protocol, name) not in known:
            raise ExplainerError(f"{name}={getattr(protocol, name)!r}; choose from {', '.join(known)}.")
    if (protocol.budgets is None) == (protocol.step is None):
        raise ExplainerError(
            f"budgets={protocol.budgets} and step={protocol.step}; give one of the two, points or units per point."
        )
    if protocol.budgets is not None and protocol.budgets < 3:
        raise ExplainerError(f"budgets={protocol.budgets}; a curve needs at least 3 points.")
    if protocol.step is not None and protocol.step != "row" and int(protocol.step) < 1:
        raise ExplainerError(f"step={protocol.step}; give how many units are removed per point, at least 1, or 'row'.")
    if not 0 < protocol.end <= 1:
        raise ExplainerError(f"end={protocol.end}; give the last share, above 0 and at most 1.")
    if (protocol.level == "patch") != (protocol.patch is not None):
        raise ExplainerError(
            f"level={protocol.level!r} and patch={protocol.patch}; a size of patches belongs to level='patch'."
        )
