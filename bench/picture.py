"""Draws the rows of a measurement as an SVG picture: how many times better we are than each peer."""

import html
import math

import driver

WIDTH, LABELS, NUMBERS, ROW, HEAD = 860, 260, 150, 18, 30
REACHED, MISSED = "#59a14f", "#e15759"
TICKS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16, 32, 64, 128, 256)


def draw(rows, foot):
    """A bar a row, from 1 to its ratio on a logarithmic axis, and a tick where its goal is. A bar to the right of 1, or
    as far as the goal, is of another colour than one that is not."""
    ratios = [value for row in rows for value in (row["ratio"], row["goal"]) if value]
    lowest = max([tick for tick in TICKS if tick <= min(ratios)] or TICKS[:1])
    highest = min([tick for tick in TICKS if tick >= max(ratios)] or TICKS[-1:])
    lowest, highest = min(lowest, 1 / 2), max(highest, 2)

    def x(value):
        share = (math.log(value) - math.log(lowest)) / (math.log(highest) - math.log(lowest))
        return LABELS + min(max(share, 0), 1) * (WIDTH - LABELS - NUMBERS)

    height = HEAD + ROW * len(rows) + 30
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
             ' font-family="sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="white"/>']

    def text(at, y, words, anchor="start", colour="#333"):
        parts.append(f'<text x="{at:.1f}" y="{y}" text-anchor="{anchor}" fill="{colour}">{html.escape(words)}</text>')

    for tick in TICKS:
        if lowest <= tick <= highest:
            parts.append(f'<line x1="{x(tick):.1f}" y1="{HEAD - 6}" x2="{x(tick):.1f}" y2="{HEAD + ROW * len(rows)}"'
                         f' stroke="{"#888" if tick == 1 else "#ddd"}"/>')
            text(x(tick), HEAD - 12, f"{tick:g}×" if tick >= 1 else f"1/{1 / tick:g}×", "middle", "#555")
    for number, row in enumerate(rows):
        y = HEAD + ROW * number
        ratio, goal = row["ratio"], row["goal"]
        begin, end = sorted((x(1), x(ratio)))
        colour = REACHED if ratio >= (goal or 1) else MISSED
        text(LABELS - 8, y + 13, f"{row['name']} {row['case']}", "end")
        parts.append(f'<rect x="{begin:.1f}" y="{y + 3}" width="{max(end - begin, 1):.1f}" height="{ROW - 6}" fill="{colour}"/>')
        if goal:
            parts.append(f'<line x1="{x(goal):.1f}" y1="{y + 1}" x2="{x(goal):.1f}" y2="{y + ROW - 1}" stroke="#333"'
                         ' stroke-width="2"/>')
        text(WIDTH - NUMBERS + 8, y + 13, f"{driver.cell('ratio', ratio)}× {row['peer_name']}")
    text(WIDTH - 8, height - 10, foot, "end", "#555")
    return "\n".join(parts) + "\n</svg>\n"
