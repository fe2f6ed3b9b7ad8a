"""The tables of the README, generated from the committed results: ``python -m benchmarks.tables``."""

import inspect
import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

from mamba_integer import spec

ROOT = Path(__file__).parent.parent
COLUMNS = [("golden", "cpu"), ("numba", "cpu"), ("torch", "cpu"), ("torch", "cuda"), ("triton", "cuda")]
TITLES = {"golden": "golden NumPy", "numba": "Numba", "torch": "Torch", "triton": "Triton"}


def by_workload(rows: list[dict[str, Any]]) -> dict[str, dict[tuple[str, str], dict[str, Any]]]:
    grouped: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["workload"], {})[row["backend"], row["device"]] = row
    return grouped


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.0f}" if seconds >= 1e-4 else f"{seconds * 1e6:.1f}"


def lines(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return titles and cells: one workload a line, a time a backend, the floor beside the last of each device."""
    present = [c for c in COLUMNS if any((r["backend"], r["device"]) == c for r in rows)]
    titles = ["workload"] + [f"{TITLES[name]}, {device}" for name, device in present]
    fastest = [c for c in (("numba", "cpu"), ("triton", "cuda")) if c in present]
    for name, device in fastest:
        titles += [f"floor, {device}", f"of it, {TITLES[name]}"]
    cells = []
    for workload, found in by_workload(rows).items():
        line = [workload] + [microseconds(found[c]["seconds"]) if c in found else "" for c in present]
        for row in (found[c] for c in fastest):
            line += [microseconds(row["floor_seconds"]), f"{row['floor_seconds'] / row['seconds']:.0%}"]
        cells.append(line)
    return titles, cells


def markdown(report: dict[str, Any]) -> str:
    titles, cells = lines(report["rows"])
    device = report["devices"].get("triton", "cpu")
    versions = report["versions"]
    bandwidth = ", ".join(f"{d} {b / 1e12:.2f} TB/s" for d, b in report["copy_bytes_per_second"].items())
    note = (
        f"Microseconds, medians of one run on {device}, {report['machine']} ({report['date'][:10]}, torch "
        f"{versions['torch']}, triton {versions['triton']}, commit {report['commit'][:10]}); every result "
        "was equal to the specification's before it was timed. "
        f"Floor: bytes over the measured copy bandwidth ({bandwidth}) or operations over the peak rate, the larger."
    )
    head = ["| " + " | ".join(titles) + " |", "|" + " --- |" + " ---: |" * (len(titles) - 1)]
    return "\n".join([*head, *("| " + " | ".join(line) + " |" for line in cells), "", note])


def ops_table() -> str:
    """Return what every op returns, with the file that defines it."""
    head = ["| op | family | returns |", "| --- | --- | --- |"]
    for name, op in spec.OPS.items():
        module = op.golden.__module__.removeprefix("mamba_integer.")
        summary = inspect.getdoc(op.golden).partition("\n")[0].removeprefix("Return ").replace("``", "`")
        head.append(f"| `{name}` | [{op.family}]({module.replace('.', '/')}.py) | {cell(summary)} |")
    return "\n".join(head)


def cell(text: str) -> str:
    """Return a docstring's line as Markdown shows it in a table, without the labels of clauses."""
    return re.sub(r" \(C\d(, C\d)*\)", "", text).replace("|", "\\|")


def conformance_table(report: dict[str, Any]) -> str:
    """Return what a conformance report proves, a line a backend."""
    environment = report["environment"]
    head = ["| backend | device | ops equal | cases | integers compared |", "| --- | --- | ---: | ---: | ---: |"]
    for backend, device in environment["devices"].items():
        own = [result for result in report["results"] if result["backend"] == backend]
        equal = sum(result["status"] == "passed" for result in own)
        cases, integers = (sum(result[key] for result in own) for key in ("cases", "integers"))
        head.append(f"| {TITLES[backend]} | {device} | {equal} of {len(own)} | {cases:,} | {integers:,} |")
    models = ", ".join(sorted({f"{m['source']} ({m['status']})" for m in report["model"] if m["backend"] == "triton"}))
    versions = environment["versions"]
    note = (
        f"Preset {report['preset']}, exhaustive where inputs are finite (every int32 in the domain of isqrt "
        "and bit_length, of shift_round for 9 shifts and of saturate for 6 widths; every int16 input of the others), "
        f"{environment['date'][:10]}, commit {environment['commit'][:10]}, torch {versions['torch']}, triton "
        f"{versions['triton']}. Whole models, every tensor, logit and token: {models}."
    )
    return "\n".join([*head, "", note])


def minimal_conformance_table(report: dict[str, Any]) -> str:
    """Return what a report on ops and whole models proves, a line a backend, and every op that was not equal."""
    environment = report["environment"]
    head = [
        "| backend | device | ops equal | cases | integers compared |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    unequal = []
    for backend, device in environment["devices"].items():
        own = [result for result in report["results"] if result["backend"] == backend]
        equal = sum(result["status"] == "passed" for result in own)
        cases, integers = (sum(result[key] for result in own) for key in ("cases", "integers"))
        head.append(f"| {TITLES[backend]} | {device} | {equal} of {len(own)} | {cases:,} | {integers:,} |")
        unequal += [f"`{result['op']}` on {TITLES[backend]}" for result in own if result["status"] != "passed"]
    versions = environment["versions"]
    note = (
        f"Preset {report['preset']}, {environment['date'][:10]}, commit {environment['commit'][:10]}, torch "
        f"{versions['torch']}, triton {versions['triton']}, specification {report['spec_version']}. "
        f"Not equal: {', '.join(unequal) or 'none'}."
    )
    return "\n".join([*head, "", note])


def learning_table(report: dict[str, Any]) -> str:
    """Return the bits a byte of each kind of training at each rate, mean and spread over seeds, its best in bold."""
    best = {(line["kind"], line["rate"]) for line in report["summary"]}
    rates = sorted({run["rate"] for run in report["runs"]})
    head = [
        "| training | " + " | ".join(f"rate {rate / 2**24:.5f}" for rate in rates) + " |",
        "| --- |" + " ---: |" * len(rates),
    ]
    for kind in dict.fromkeys(run["kind"] for run in sorted(report["runs"], key=lambda run: run["kind"], reverse=True)):
        cells = []
        for rate in rates:
            ends = [run["bits_per_byte"] for run in report["runs"] if (run["kind"], run["rate"]) == (kind, rate)]
            spread = f" (± {(max(ends) - min(ends)) / 2:.3f}, {len(ends)} seeds)" if len(ends) > 1 else ""
            shown = f"{mean(ends):.3f}" if ends else ""
            cells.append(f"**{shown}**{spread}" if (kind, rate) in best else shown + spread)
        head.append(f"| {kind} | " + " | ".join(cells) + " |")
    options, config = report["options"], report["config"]
    device = next(iter(report["devices"].values()))
    note = (
        f"Bits a byte of the whole validation text, {report['text']}; {report['parameters']:,} parameters, "
        f"{config['layers']} layers, {options['steps']} steps of {options['batch']} x {options['length']} tokens, "
        f"Lion, on {device}, {report['date'][:10]}, commit {report['commit'][:10]}. One seed where none are counted."
    )
    return "\n".join([*head, "", note])


def one_hash_table(report: dict[str, Any]) -> str:
    """Return the hash that the same training run ended with on each backend."""
    head = [
        "| backend | device | ranks | rows at once | SHA-256 of the checkpoint |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for row in report["rows"]:
        cells = (TITLES[row["backend"]], row["device"], row["ranks"], row["micro_batch"])
        head.append("| " + " | ".join(map(str, cells)) + f" | `{row['checkpoint_sha256'][:16]}…` |")
    options = report["options"]
    note = (
        f"`{report['config']}`, {options['steps']} steps of {options['batch']} x {options['length']} tokens, "
        f"{report['machine']}, {report['devices'].get('triton', 'cpu')}, {report['date'][:10]}, commit "
        f"{report['commit'][:10]}."
    )
    return "\n".join([*head, "", note])


def training_speed_table(report: dict[str, Any]) -> str:
    """Return tokens a second of whole training steps."""
    head = ["| training step | tokens | seconds | tokens/s |", "| --- | ---: | ---: | ---: |"]
    for row in report["rows_measured"]:
        shown = row.get("absent") or f"{row['seconds']:.3g} | {row['tokens_per_second']:,.0f}"
        head.append(f"| {row['name']} | {row['rows']} x {row['length']} | {shown} |")
    floor = report["matrix_floor_seconds"]
    note = (
        f"`{report['config']}` on {report['devices']['triton']}, {report['date'][:10]}, commit "
        f"{report['commit'][:10]}; the matrix products alone would take {floor * 1e3:.1f} ms of the integer step. "
        f"{report['integers_verified']:,} integers of a short step were equal to Numba's before anything was timed. "
        f"{report.get('note', '')}"
    )
    return "\n".join([*head, "", note])


def model_table(report: dict[str, Any]) -> str:
    """Return tokens a second of a whole model, integers beside float32."""
    head = ["| `base`, batch 1 | prefill tokens/s | decode tokens/s |", "| --- | ---: | ---: |"]
    for row in report["rows"]:
        prefill, decode = row["prefill_tokens_per_second"], row["decode_tokens_per_second"]
        head.append(f"| {row['model']} | {prefill:,.0f} | {decode:,.0f} |")
    note = (
        f"One run on {report['machine']} ({report['date'][:10]}, commit {report['commit'][:10]}), both in turns; "
        f"{report['integers_verified']:,} integers were equal to the golden model's before anything was timed."
    )
    return "\n".join([*head, "", note])


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the markers of a generated block."""
    pattern = re.compile(f"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"README.md has no block {name}")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def filled(text: str) -> str:
    """Return the README with every generated block made anew from the contracts and the committed results."""
    blocks = {
        "ops": ops_table(),
        "conformance-h100": conformance_table(result("conformance-h100")),
        "ops-h100": markdown(result("ops-h100")),
        "ops-cpu": markdown(result("ops-cpu")),
        "model-cpu": model_table(result("model-cpu")),
        "conformance-minimal-h100": minimal_conformance_table(result("conformance-minimal-h100")),
        "one-hash-h100": one_hash_table(result("one-hash-h100")),
        "one-hash-cpu": one_hash_table(result("one-hash-cpu")),
        "training-speed-h100": training_speed_table(result("training-speed-h100")),
        "learning-h100": learning_table(result("learning-h100")),
        "learning-cpu": learning_table(result("learning-cpu")),
    }
    for name, content in blocks.items():
        text = fill(text, name, content)
    return text


def result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())


def main() -> None:
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))


if __name__ == "__main__":
    main()
