"""Curves as SVG: sharp at any size, in the page's own colors in either mode, without a line of JavaScript."""

from __future__ import annotations

from html import escape

from .views import Walk

WIDTH, HEIGHT = 640, 310
LEFT, TOP, RIGHT, BOTTOM = 74, 16, 626, 254  # around it is room for the letters of a phone, which are larger
COLORS = {"deletion": "var(--curve-deletion)", "insertion": "var(--curve-insertion)"}


def draw_walk(walk: Walk, floor: Walk, share: float) -> str:
    """The two curves, those of a random order dashed behind them, and where the scrubber is."""
    parts = [axes()]
    for name, color in COLORS.items():
        parts.append(line(floor.shares, floor.curves[name], color, "floor"))
        parts.append(line(walk.shares, walk.curves[name], color, "curve"))
    at = walk.nearest(share)
    x = across(walk.shares[at])
    parts.append(f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}" class="scrubber"/>')
    for name, color in COLORS.items():
        y = up(walk.curves[name][at])
        parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="{color}"/>')
    label = escape(sentence(walk, floor))
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f'<figure class="hx-curves">{drawing}<figcaption>{legend(walk, floor)}</figcaption></figure>'


def sentence(walk: Walk, floor: Walk) -> str:
    """What the drawing shows, for those who do not see it."""
    text = "; ".join(f"area under {name} {area:.2f}" for name, area in walk.areas.items())
    beside = ", ".join(f"{area:.2f}" for area in floor.areas.values())
    return f"Probability of {walk.map.prediction.name} as pixels go or come: {text}; of a random order {beside}."


def legend(walk: Walk, floor: Walk) -> str:
    better = {"deletion": "lower is better", "insertion": "higher is better"}
    return "".join(
        f'<span><i style="background:{color}"></i><b>{name} {walk.areas[name]:.3f}</b> {better[name]}, '
        f"random order {floor.areas[name]:.3f}</span>"
        for name, color in COLORS.items()
    )


def axes() -> str:
    parts = []
    for tick in range(5):
        y, x, side = up(tick / 4), across(tick / 4), {0: "start", 4: "end"}.get(tick, "middle")
        parts.append(f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{25 * tick} %</text>')
        parts.append(f'<text x="{x}" y="{BOTTOM + 22}" text-anchor="{side}">{25 * tick} %</text>')
    said = "of the pixels, most important first"
    parts.append(f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 46}" text-anchor="middle">{said}</text>')
    return "".join(parts)


def line(shares, values, color: str, kind: str) -> str:
    points = " ".join(f"{across(x)},{up(y)}" for x, y in zip(shares, values, strict=True))
    return f'<polyline points="{points}" stroke="{color}" class="{kind}"/>'


def across(share: float) -> float:
    return round(LEFT + share * (RIGHT - LEFT), 1)


def up(value: float) -> float:
    return round(BOTTOM - value * (BOTTOM - TOP), 1)


def ramp(anchors, low: str, high: str) -> str:
    """What the colors of a map mean."""
    stops = ", ".join("rgb({:.0f},{:.0f},{:.0f})".format(*color) for color in anchors)
    bar = f'<i style="background:linear-gradient(90deg,{stops})"></i>'
    return f'<div class="hx-ramp"><span>{escape(low)}</span>{bar}<span>{escape(high)}</span></div>'
