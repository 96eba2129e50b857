"""The demo's page: one HTML file that needs no other, light or dark as its reader prefers. It computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from string import Template
from typing import Final

from knative_sponge.cli.demo.report import Summary
from knative_sponge.cli.demo.table import COLUMNS, EXPLAINED

_PAGE: Final = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root {
  color-scheme: light dark;
  --paper: #ffffff; --card: #ffffff; --ink: #1f2430; --muted: #6b7280; --rule: #dfe3ea; --surge: #f6f0e0;
  --load: #8a94a6; --cores: #2f6fde; --queue: #7c5cd6; --met: #2a9d78; --dropped: #e08e0b; --late: #d63a3a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171d; --card: #1b1f27; --ink: #e8ebf1; --muted: #9aa3b2; --rule: #313743; --surge: #2c2a22;
    --load: #7d8798; --cores: #6ea3ff; --queue: #a88bff; --met: #45c49a; --dropped: #f3ad3d; --late: #ff6b6b;
  }
}
body { margin: 0 auto; max-width: 90rem; padding: 2rem 1.5rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .5rem; }
p { margin: .4rem 0; max-width: 60rem; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 1rem 1.25rem;
  margin: 1.5rem 0; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .75rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; min-width: 16rem; }
tr:last-child td { border-bottom: 0; }
thead th { color: var(--muted); font-weight: 500; font-size: .85rem; vertical-align: bottom; }
tbody tr:first-child td { font-weight: 650; }
td small { display: block; font-weight: 400; color: var(--muted); font-size: .82rem; line-height: 1.35; }
.share { display: inline-block; vertical-align: middle; width: 4.5rem; height: .5rem; margin-right: .6rem;
  border-radius: 3px; background: var(--rule); }
.number { display: inline-block; vertical-align: middle; width: 4.5em; text-align: right; }
.share i { display: block; height: 100%; border-radius: 3px; background: var(--late); }
svg { display: block; width: 100%; min-width: 60rem; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif !important; }
.notes { color: var(--muted); font-size: .9rem; }
.notes p { margin: .25rem 0; }
</style>
<h1>$title</h1>
$lead
<div class="card"><table>
<thead><tr><th>strategy</th>$head</tr></thead>
<tbody>
$rows
</tbody>
</table></div>
<div class="card">$picture</div>
<div class="notes">
$notes
</div>
</html>
""")


def render_page(
    *, title: str, lead: Sequence[str], summaries: Mapping[str, Summary], picture: str, notes: Sequence[str]
) -> str:
    """The whole file. lead and notes: paragraphs of plain text; picture: an `<svg>` element drawn with figure.THEME."""
    return _PAGE.substitute(
        title=escape(title),
        lead=_paragraphs(lead),
        head="".join(f'<th title="{escape(column.meaning)}">{escape(column.title)}</th>' for column in COLUMNS),
        rows="\n".join(_row(name, one) for name, one in summaries.items()),
        picture=picture,
        notes=_paragraphs(notes),
    )


def _row(name: str, one: Summary) -> str:
    cells = [f"<td>{escape(column.show(one))}</td>" for column in COLUMNS]
    bar = f'<span class="share"><i style="width:{100 * one.missed_share:.1f}%"></i></span>'
    # The number beside a bar has one width in all rows, so that all bars begin at the same place and have one scale.
    cells[0] = f'<td>{bar}<span class="number">{escape(COLUMNS[0].show(one))}</span></td>'
    return f"<tr><td>{escape(name)}<small>{escape(EXPLAINED.get(name, ''))}</small></td>{''.join(cells)}</tr>"


def _paragraphs(texts: Sequence[str]) -> str:
    return "\n".join(f"<p>{escape(text)}</p>" for text in texts)
