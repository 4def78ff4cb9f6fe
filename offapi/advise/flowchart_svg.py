"""The flowchart as one SVG file that loads nothing: dark and light, the path in a heavy line."""

from __future__ import annotations

from html import escape

from offapi.advise.engine import Advice
from offapi.advise.flowchart import Step, flowchart_steps

WIDTH, ROW, BOX = 900, 64, 36  # pixels: page width, distance of gates, box height
LEFT, GATE = 20, 450  # pixels: left edge and width of the gates
RIGHT, RECIPE = 550, 330  # pixels: left edge and width of the recipes
STYLE = """
svg { font: 13px system-ui, sans-serif; background: #fff }
rect { fill: #f4f4f5; stroke: #a1a1aa } line { stroke: #a1a1aa; stroke-width: 1.5 }
text { fill: #27272a }
.on rect { fill: #dbeafe; stroke: #1d4ed8; stroke-width: 2.5 }
line.on { stroke: #1d4ed8; stroke-width: 4 }
.on text { font-weight: 600 } .after { opacity: .55 }
@media (prefers-color-scheme: dark) {
  svg { background: #18181b } rect { fill: #27272a; stroke: #71717a } text { fill: #f4f4f5 }
  .on rect { fill: #1e3a8a; stroke: #93c5fd } line.on { stroke: #93c5fd }
}
"""


def draw_svg(advice: Advice) -> str:
    """Return the whole file."""
    steps, end = flowchart_steps(advice)
    height = 2 * LEFT + ROW * len(steps) + BOX
    parts = [_step(step, LEFT + ROW * i) for i, step in enumerate(steps)]
    last = _box(LEFT, LEFT + ROW * len(steps), GATE, end.recipe, "on" if end.taken else "after")
    title = escape(f"{advice.recipe.name}. {advice.row.because}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{title}">'
        f"<title>{title}</title><style>{STYLE}</style>{''.join(parts)}{last}</svg>\n"
    )


def _step(step: Step, top: int) -> str:
    middle, bottom, centre = top + BOX // 2, top + BOX, LEFT + GATE // 2
    on = "after" if step.state == "after" else "on"
    taken = "on" if step.state == "taken" else "after"
    passed = "on" if step.state == "passed" else "after"
    return "".join(
        [
            _line(centre, bottom, centre, top + ROW, passed),
            _line(LEFT + GATE, middle, RIGHT, middle, taken),
            _box(LEFT, top, GATE, step.asks, on),
            _box(RIGHT, top, RECIPE, step.leads, taken),
            _text(centre + 8, bottom + 18, step.passing, passed),
            _text(LEFT + GATE + 36, middle - 6, step.exit, taken),
        ]
    )


def _box(x: int, y: int, width: int, text: str, state: str) -> str:
    return (
        f'<g class="{state}"><rect x="{x}" y="{y}" width="{width}" height="{BOX}" rx="8"/>'
        f'<text x="{x + 12}" y="{y + BOX // 2 + 5}">{escape(text)}</text></g>'
    )


def _line(x1: int, y1: int, x2: int, y2: int, state: str) -> str:
    return f'<line class="{state}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _text(x: int, y: int, text: str, state: str) -> str:
    return f'<g class="{state}"><text x="{x}" y="{y}">{escape(text)}</text></g>'
