"""One page of HTML that needs nothing else: the verdict, a map of what was compared, cards, hashes, where it ran."""

from collections.abc import Iterable, Mapping
from html import escape as escape_html
from typing import Any

from mamba_integer import spec
from mamba_integer.backends.escapes import escaped
from mamba_integer.spec.contract import find_op

from ..render import card_text, verdict
from ..report import Report, Result, Text
from .junit import reason_of

STYLE = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #cf222e; --open: #9a6700; --line: #8884; --soft: #8882; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .15rem .5rem; border: 1px solid var(--line); text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } thead th { position: sticky; top: 0; background: Canvas; }
.passed { color: var(--good); } .failed, .stale { color: var(--bad); font-weight: 600; }
.missing, .partial, .skipped, .known, .not-run { color: var(--open); }
.none { background: var(--soft); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
pre { padding: .75rem; border: 1px solid var(--line); font-size: .8rem; }
.scroll { overflow-x: auto; } summary { cursor: pointer; } code { font-size: .85em; overflow-wrap: anywhere; }
"""


def escape(text: str) -> str:
    return escape_html(escaped(text, "\t\n"))


def page(report: Report, about: Mapping[str, Any]) -> str:
    """Return the page; everything in it that a backend wrote is escaped."""
    line = verdict(report)
    state = "passed" if report.exit_code == 0 else "failed" if report.unequal or report.complete else "partial"
    parts = [f"<h1>mamba-integer conformance</h1><p class={state}>{escape(line.plain)}</p>", facts(about)]
    for backend in dict.fromkeys((result.backend, result.device) for result in report.results):
        results = [result for result in report.results if (result.backend, result.device) == backend]
        parts += [f"<h2>Coverage map: {escape(backend[0])} ({escape(backend[1])})</h2>", coverage(results)]
    failed = [result for result in report.results if result.failure]
    if failed:
        parts += ["<h2>Failures</h2>", *map(card, failed)]
    texts = [*report.texts, *report.models]
    if texts:
        parts += ["<h2>Hashes</h2>", *map(hashes, texts)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>mamba-integer conformance</title><style>{STYLE}</style>\n<body>\n{body}\n</body></html>\n"
    )


def facts(about: Mapping[str, Any]) -> str:
    """Return a table of the run's machine, versions and options."""
    rows = {"specification": spec.SPEC_VERSION}
    for name, value in about.items():
        rows |= value if isinstance(value, Mapping) else {name: value}
    cells = (f"<tr><td>{escape(str(name))}<td><code>{escape(str(value))}</code>" for name, value in rows.items())
    return f"<details><summary>where and how</summary><table>{''.join(cells)}</table></details>"


def coverage(results: Iterable[Result]) -> str:
    """Return the map op x kind of case: the number of cases of each kind that were compared."""
    results = list(results)
    groups = list(dict.fromkeys(group for result in results for group in result.groups))
    head = "".join(f"<th>{escape(name)}" for name in ("op", "family", *groups, "cases", "integers", "status"))
    rows = []
    for result in results:
        counts = "".join(f"<td>{n}" if (n := result.groups[group]) else "<td class=none>" for group in groups)
        state = f'<td class="{result.status.replace(" ", "-")}" title="{escape(reason_of(result))}">{result.status}'
        total = f"<td>{result.cases}<td>{result.integers:,}"
        rows.append(f"<tr><td>{escape(result.op)}<td>{find_op(result.op).family}{counts}{total}{state}")
    notes = "".join(f"<p>{escape(result.op)}: {escape(note)}</p>" for result in results for note in result.notes)
    return f"<div class=scroll><table><thead><tr>{head}</thead>{''.join(rows)}</table></div>{notes}"


def card(result: Result) -> str:
    title = f"{escape(result.op)} on {escape(result.backend)}: {escape(reason_of(result))}"
    text = escape(card_text(result))
    return f"<details open><summary class={result.status}>{title}</summary><pre>{text}</pre></details>"


def hashes(text: Text) -> str:
    """Return a table of the stages of one chain: the right hash and the backend's."""
    rows = []
    for stage, want in text.want.items():
        digest = text.stages.get(stage, "")
        state = "passed" if digest == want else "failed" if digest else "missing"
        rows.append(f"<tr><td>{escape(stage)}<td><code>{escape(want)}</code><td class={state}>{state}")
    title = f"{escape(text.source)} on {escape(text.backend)}: {text.status} {escape(text.message)}"
    return (
        f"<details><summary class={text.status.replace(' ', '-')}>{title}</summary>"
        f"<div class=scroll><table>{''.join(rows)}</table></div></details>"
    )
