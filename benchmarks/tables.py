"""The tables of the documentation, generated from the committed results: ``python -m benchmarks.tables``.

``benchmarks/README.md`` has them all; ``README.md`` has a summary.
"""

import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.limits import limits_table
from mamba_integer.backends.files.atomic import write_atomically
from mamba_integer.conformance.speed.table import TITLES, lines

ROOT = Path(__file__).parent.parent
EXHAUSTIVE = (
    ", exhaustive where inputs are finite (every int32 in the domain of isqrt and bit_length, of shift_round for 9 "
    "shifts and of saturate for 6 widths; every int16 input of the others)"
)


def markdown(report: dict[str, Any]) -> str:
    titles, cells = lines(report["rows"])
    device, bandwidths, versions = (
        report["devices"].get("triton", "cpu"),
        report["copy_bytes_per_second"],
        report["versions"],
    )
    bandwidth = bandwidths.get("cuda") or bandwidths["cpu"]
    note = (
        f"Microseconds, medians of one run on {device}, {report['machine']} ({report['date'][:10]}, torch "
        f"{versions['torch']}, triton {versions['triton']}, commit {report['commit'][:10]}); every result "
        "was equal to the specification's before it was timed. "
        f"Floor: bytes over the measured copy bandwidth ({bandwidth / 1e12:.2g} TB/s) or operations over the peak "
        "rate, the larger."
    )
    if firsts := [row for row in report["rows"] if "first_seconds" in row]:
        slowest = max(firsts, key=lambda row: row["first_seconds"])
        note += (
            " A workload's first call compiles the kernels that no cache holds: it took up to "
            f"{slowest['first_seconds']:.1f} s ({slowest['workload']})."
        )
    head = ["| " + " | ".join(titles) + " |", "|" + " --- |" + " ---: |" * (len(titles) - 1)]
    return "\n".join([*head, *("| " + " | ".join(line) + " |" for line in cells), "", note])


def origin(report: dict[str, Any]) -> str:
    """Return the day and the commit of a report."""
    return f"{report['date'][:10]}, commit {report['commit'][:10]}"


# The last reports in which every op passed; Torch's are two, each of half the ops.
CONFORMANCE = ("triton", "torch", "torch-others", "torch-chains")


def conformance_table(*reports: dict[str, Any]) -> str:
    """Return conformance reports, one line per backend; reports of one backend each have a part of the ops.

    An op counts where it ran first: a later report that has it again was made for its chains of ops.
    """
    head = [
        "| backend | device | ops equal | cases | integers compared | specification | date | commit |",
        "| --- | --- | ---: | ---: | ---: | --- | --- | --- |",
    ]
    of_backends: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for report in reports:
        for backend in report["environment"]["devices"].items():
            of_backends.setdefault(backend, []).append(report)
    models, first = [], []
    for (backend, device), parts in of_backends.items():
        by_op = {result["op"]: (result, part) for part in reversed(parts) for result in part["results"]}
        rows = [result for result, _ in by_op.values()]
        first += [part for _, part in by_op.values()]
        equal = sum(result["status"] == "passed" for result in rows)
        cases, integers = (sum(result[key] for result in rows) for key in ("cases", "integers"))
        made = [(p["spec_version"], p["environment"]["date"][:10], p["environment"]["commit"][:10]) for p in parts]
        origin = " | ".join(", ".join(dict.fromkeys(values)) for values in zip(*made, strict=True))
        counts = f"{equal} of {len(rows)} | {cases:,} | {integers:,}"
        head.append(f"| {TITLES[backend]} | {device} | {counts} | {origin} |")
        texts = [text for part in parts for text in part["model"] if text["status"] != "not run"]
        ran = sorted(f"{text['source']} ({text['status']})" for text in texts)
        models.append(f"{TITLES[backend]}: {', '.join(ran)}.")
    presets = ", ".join(dict.fromkeys(report["preset"] for report in reports))
    exhaustive = EXHAUSTIVE if all(report["exhaustive"] for report in first) else ""
    note = f"Preset {presets}{exhaustive}. Whole models, every tensor. {' '.join(models)}"
    return "\n".join([*head, "", note])


def sanitizer_table(*reports: dict[str, Any]) -> str:
    """Return what compute-sanitizer reported of each op's cases; the reports are of one kind of GPU."""
    head = ["| op | tool | cases | integers compared | reports |", "| --- | --- | ---: | ---: | ---: |"]
    for verdict in [one for report in reports for one in report["verdicts"]]:
        counts = " | ".join(f"{verdict[name]:,}" for name in ("cases", "integers", "reports"))
        head.append(f"| {verdict['op']} | {verdict['tool']} | {counts} |")
    device = reports[0]["environment"]["devices"]["triton"]
    origins = "; ".join(dict.fromkeys(origin(report["environment"]) for report in reports))
    return "\n".join([*head, "", f"Triton on {device}, {origins}."])


def learning_table(report: dict[str, Any]) -> str:
    """Return the bits per byte of each kind of training at each rate: mean and spread over seeds, the best in bold."""
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
    commits = "commit " + ", ".join(sorted({run.get("commit", report["commit"])[:10] for run in report["runs"]}))
    note = (
        f"Bits per byte of the whole validation text, {report['text']}; {report['parameters']:,} parameters, "
        f"{config['n_layer']} layers, {options['steps']} steps of {options['batch']} x {options['length']} tokens, "
        f"Lion, on {device}, specification {report['spec_version']}, {report['date'][:10]}, {commits}."
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
        f"{report['machine']}, {report['devices'].get('triton', 'cpu')}, specification {report['spec_version']}, "
        f"{origin(report)}."
    )
    return "\n".join([*head, "", note])


def training_speed_table(report: dict[str, Any]) -> str:
    """Return tokens per second of whole training steps."""
    head = ["| training step | tokens | seconds | tokens/s |", "| --- | ---: | ---: | ---: |"]
    integer, *others = report["rows_measured"]
    for row in (integer, *others):
        shown = row.get("absent") or f"{row['seconds']:.3g} | {row['tokens_per_second']:,.0f}"
        head.append(f"| {row['name']} | {row['rows']} x {row['length']} | {shown} |")
    floor = report["matrix_floor_seconds"]
    times = [
        f"Integers take {integer['tokens_per_second'] / row['tokens_per_second']:.0f} times as many tokens per second "
        f"as {row['name']} at {row['rows']} x {row['length']}. "
        for row in others
        if row["length"] == integer["length"] and "absent" not in row
    ]
    note = (
        f"{''.join(times)}`{report['config']}` on {report['devices']['triton']}, {origin(report)}; "
        f"the matrix products alone would take {floor * 1e3:.1f} ms of the integer step. "
        f"{report['integers_verified']:,} integers of a short step were equal to Numba's before anything was timed."
    )
    return "\n".join([*head, "", note])


def model_table(report: dict[str, Any]) -> str:
    """Return tokens per second of a whole model, integers beside float32."""
    head = ["| `base`, batch 1 | prefill tokens/s | decode tokens/s |", "| --- | ---: | ---: |"]
    for row in report["rows"]:
        prefill, decode = row["prefill_tokens_per_second"], row["decode_tokens_per_second"]
        head.append(f"| {row['model']} | {prefill:,.0f} | {decode:,.0f} |")
    note = (
        f"One run on {report['machine']} ({origin(report)}), both in turns; "
        f"{report['integers_verified']:,} integers were equal to the golden model's before anything was timed."
    )
    return "\n".join([*head, "", note])


def cpu_training_table(report: dict[str, Any]) -> str:
    """Return the time of a training step on a CPU, integers beside float32, and of an earlier commit."""
    size = f"`{report['config']}`, {report['batch']} x {report['length']}"
    head = [f"| {size} | ms per step | tokens/s | of the first row |", "| --- | ---: | ---: | ---: |"]
    first = report["rows"][0]
    for row in report["rows"]:
        share = row["tokens_per_second"] / first["tokens_per_second"]
        head.append(f"| {row['model']} | {row['seconds'] * 1e3:,.1f} | {row['tokens_per_second']:,.0f} | {share:.2f} |")
    old = [row["spec_version"] for row in report["rows"] if row["model"].endswith("before")]
    before = f" Before: commit {report['before']}, specification {old[0]}." if old else ""
    note = (
        f"{report['turns']} turns of each on {report['machine']} ({origin(report)}). {first['integers_verified']:,} "
        "integers of a short step were equal to the golden ops' before anything was timed. The Torch twin has the same "
        "masters, optimizer and first loss; its per-channel scan is a loop over time, in eager operations." + before
    )
    return "\n".join([*head, "", note])


def lookup_table(report: dict[str, Any]) -> str:
    """Return rows and tables of a system with lookups, beside constraints of the same work here."""
    titles = ["work", "form for EZKL", "rows", "LogRows", "function tables", "depth", "set-up, s", "proof, s"]
    titles += ["op here", "constraints", "depth"]
    head = ["| " + " | ".join(titles) + " |", "| --- | --- |" + " ---: |" * 6 + " --- |" + " ---: |" * 2]
    for row in report["rows"]:
        cells = [row["work"], row["form"], f"{row['rows']:,}", row["logrows"], row["function_tables"], row["depth"]]
        cells += [f"{row[name]:.0f}" if name in row else "" for name in ("setup_s", "prove_s")]
        for name, counts in row["ours"].items() or [("", None)]:
            ours = [name, f"{counts['constraints']:,}", counts["depth"]] if counts else [name, "", ""]
            head.append("| " + " | ".join(map(str, [*cells, *ours])) + " |")
            cells = [""] * len(cells)
    versions = report["versions"]
    exact = all(row.get("exact", True) for row in report["rows"])
    note = (
        f"EZKL {versions['ezkl']}, onnx {versions['onnx']}, {report['machine']}, {report['date'][:10]}. Seconds are "
        "those of all processors together; the set-up leaves out the powers of tau, which were made here too."
        f"{' The forms in integers gave exactly the integers that they must give.' if exact else ''}"
    )
    return "\n".join([*head, "", note])


def circuits_table(report: dict[str, Any]) -> str:
    """Return the cost of proving scans and blocks."""
    phases = {"lower_s": "lower", "setup_s": "set up", "prove_s": "prove", "verify_s": "verify"}
    head = [
        f"| circuit | constraints | {', '.join(phases.values())}, s | in all, s | processors, s |",
        "| --- |" + " ---: |" * 4,
    ]
    for row in sorted(report["rows"], key=lambda row: (row["circuit"], row.get("tokens", 0), row["constraints"])):
        sizes = [f"{name} {row[name]}" for name in ("steps", "d_model", "d_inner", "d_state", "tokens") if name in row]
        seconds = [row[phase] for phase in phases]
        cells = f"{', '.join(f'{s:.2f}' for s in seconds)} | {sum(seconds):,.1f} | {row['cpu_s']:,.1f}"
        head.append(f"| `{row['circuit']}`, {', '.join(sizes)} | {row['constraints']:,} | {cells} |")
    note = (
        f"Groth16 over BN254 with groth16py {report['versions']['groth16py']}: proofs of "
        f"{report['rows'][0]['proof_bytes']} bytes, a set-up {report['setup']}. {report['machine']}, "
        f"{origin(report)}, at a load of {report['load']}."
    )
    return "\n".join([*head, "", note])


def transcripts_table(*reports: dict[str, Any]) -> str:
    """Return the time of plain and of committed runs; the reports are of one machine and commit."""
    report = reports[0]
    head = ["| run | plain, ms | a leaf per layer | a leaf per op |", "| --- | ---: | ---: | ---: |"]
    for row in [row for one in reports for row in one["rows"]]:
        plain, layer, op = (row["seconds"][kind] for kind in ("plain", "layer", "op"))
        more = " | ".join(f"{seconds * 1e3:,.1f} ({seconds / plain - 1:+.0%})" for seconds in (layer, op))
        head.append(f"| {row['work']} `{row['config']}`, {row['tokens']} tokens | {plain * 1e3:,.1f} | {more} |")
    device = report["devices"][report["backend"]]
    note = (
        f"{TITLES[report['backend']]} on {device}, {report['machine']}, specification {report['spec_version']}, "
        f"{origin(report)}; the times include one hash of all weights per run."
    )
    return "\n".join([*head, "", note])


def decode_table(*reports: dict[str, Any]) -> str:
    """Return tokens per second of decoding, beside the same ops launched one by one from a graph."""
    head = [
        "| model | rows | choice | tokens/s | us per step | floor, us | op by op, tokens/s | ratio |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    # The command is also timed on another model than the report's; such a row has no origin in the note.
    own = [row for one in reports for row in one["rows"] if row["config"] == one["rows"][0]["config"]]
    for row in own:
        cells = [f"`{row['config']}`", row["batch"], row["choice"], f"{row['tokens_per_second']:,.0f}"]
        if "step_us" in row:
            cells += [f"{row['step_us']:,.1f}", row["floor_us"], f"{row['op_by_op_tokens_per_second']:,.0f}"]
            cells.append(f"{row['times_op_by_op']:.1f} x")
        head.append("| " + " | ".join(map(str, [*cells, *[""] * (8 - len(cells))])) + " |")
    report = reports[0]
    origins = "; ".join(f"`{one['rows'][0]['config']}` {origin(one)}" for one in reports)
    note = (
        f"{report['devices'][report['backend']]}, {origins}. The first "
        f"{reports[0]['rows'][0]['equal_tokens']} tokens of each row were equal to those of the ordinary steps before "
        "anything was timed. Floor: the bytes of weights and states over the memory's bandwidth. Weights are seeded."
    )
    return "\n".join([*head, "", note])


def chunk_scan_table(report: dict[str, Any]) -> str:
    """Return the times of the chunked scan's forward, backward and step."""
    head = ["| work | B | T | H | P | S | chunk_size | fill | us |", "| --- |" + " ---: |" * 8]
    for row in report["rows"]:
        sizes = row["sizes"]
        cells = [sizes.get(name, "") for name in ("batch", "length", "heads", "width", "states", "chunk", "fill")]
        head.append("| " + " | ".join(map(str, [row["work"], *cells, f"{row['microseconds']:,.1f}"])) + " |")
    note = (
        f"{report['devices']['triton']}, specification {report['spec_version']}, {origin(report)}; every integer of "
        "small sizes was equal to Torch's before anything was timed. Kernels of a CUDA graph, cache cold. "
        "Gradients have 16 bits."
    )
    return "\n".join([*head, "", note])


def prefill_table(report: dict[str, Any]) -> str:
    """Return tokens per second of prefill on a GPU, beside the floor of its matrix products."""
    head = ["| model | tokens | tokens/s | ms | floor, ms |", "| --- | ---: | ---: | ---: | ---: |"]
    for row in report["rows_measured"]:
        times = f"{row['seconds'] * 1e3:,.2f} | {row['matrix_floor_seconds'] * 1e3:,.2f}"
        size = f"{row['rows']} x {row['length']}"
        head.append(f"| `{report['config']}` | {size} | {row['tokens_per_second']:,.0f} | {times} |")
    note = (
        f"{report['devices']['triton']}, specification {report['spec_version']}, {origin(report)}; "
        f"{report['integers_verified']:,} integers of a short prefill were equal to Numba's "
        "first. Floor: the matrix products alone at the peak rate of int8."
    )
    return "\n".join([*head, "", note])


def ranks_table(report: dict[str, Any]) -> str:
    """Return tokens per second of training on several GPUs, and each run's hash."""
    head = [
        "| GPUs | rows of all | tokens/s | of linear | SHA-256 of masters and momenta |",
        "| ---: | ---: | ---: | ---: | --- |",
    ]
    for line in report["lines"]:
        speed, share = f"{line['tokens_per_second']:,.0f}", f"{line['share_of_linear']:.0%}"
        head.append(f"| {line['ranks']} | {line['batch']} | {speed} | {share} | `{line['hash'][:16]}…` |")
    note = (
        f"`{report['config']}`, rows of {report['length']} tokens, {report['steps']} timed steps, one rank per GPU, on "
        f"{report['devices']['triton']}, specification {report['spec_version']}, {origin(report)}. "
        "Lines of equal rows end with one hash."
    )
    return "\n".join([*head, "", note])


# Workloads of `mamba-integer bench`, each with the peer that it stands beside on the first page.
SUMMARISED = {
    ("ternary_linear 4096 K4096 N8192", "bf16 matmul"),
    ("ternary_linear 1 K4096 N8192", "bf16 matmul"),
    ("ssd_chunk_scan B8 L2048 H24 P64 S128 Q64", "mamba_ssm bf16"),
    ("ssd_chunk_scan B8 L2048 H24 P64 S128 Q64", "fla simple_gla bf16"),
}


def summary_table() -> str:
    """Return a few measured figures, each beside a peer from the same run."""
    head = ["| work | mamba-integer | peer | ratio | measured on |", "| --- | ---: | ---: | ---: | --- |"]
    cpu, study = result("model-cpu"), result("learning-gpu")
    ours, theirs = cpu["rows"]
    for stage in ("decode", "prefill"):
        values = ours[f"{stage}_tokens_per_second"], theirs[f"{stage}_tokens_per_second"]
        head.append(compared(f"{stage} `base`, batch 1", *values, theirs["model"], cpu["machine"]))
    for speed in (result("training-speed-gpu"), result("training-speed-mamba2-gpu")):
        integer, *others = speed["rows_measured"]
        device, ours = speed["devices"]["triton"], integer["tokens_per_second"]
        work = f"training step `{speed['config']}`, {integer['rows']} x {integer['length']}"
        peers = [row for row in others if row["length"] == integer["length"] and "absent" not in row]
        head += [compared(work, ours, row["tokens_per_second"], row["name"], device) for row in peers]
        if not peers:
            head.append(f"| {work} | {ours:,.0f} tokens/s | | | {device} |")
    decoding = result("decode-base-gpu")
    row = decoding["rows"][0]
    values = row["tokens_per_second"], row["op_by_op_tokens_per_second"]
    peer, device = "the same ops, one by one", decoding["devices"]["triton"]
    head.append(compared(f"decode `base`, batch {row['batch']}", *values, peer, device))
    ops = result("ops-gpu")
    for row in (row for row in ops["rows"] if row["backend"] == "triton"):
        for peer in row.get("peers", ()):
            if (row["workload"], peer["peer"]) in SUMMARISED and "seconds" in peer:
                ours, theirs = (1e6 * measured["seconds"] for measured in (row, peer))
                cells = f"{ours:,.1f} us | {theirs:,.1f} ({peer['peer']}) | {theirs / ours:.1f} x"
                head.append(f"| {row['workload']} | {cells} | {ops['devices']['triton']} |")
    ends = {line["kind"]: line["mean"] for line in study["summary"]}
    gap = round(ends["integer"] - ends["float ternary"], 3) or 0.0  # never -0.000
    cells = f"{ends['integer']:.3f} | {ends['float ternary']:.3f} bits per byte (float ternary twin) | {gap:+.3f}"
    head.append(f"| learning, {study['parameters']:,} parameters | {cells} | {study['devices']['triton']} |")
    return "\n".join(head)


def compared(work: str, ours: float, theirs: float, peer: str, device: str) -> str:
    return f"| {work} | {ours:,.0f} tokens/s | {theirs:,.0f} ({peer}) | {ours / theirs:.1f} x | {device} |"


def fill(text: str, name: str, content: str) -> str:
    """Replace what stands between the markers of a generated block."""
    pattern = re.compile(f"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"the page has no block {name}")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def blocks() -> dict[str, dict[str, str]]:
    """Return the content of every generated block, by page and name."""
    return {
        "README.md": {"summary": summary_table()},
        "benchmarks/README.md": {
            "conformance-gpu": conformance_table(*(result(f"conformance-{name}-gpu") for name in CONFORMANCE)),
            "sanitizer-gpu": sanitizer_table(*(result(f"sanitizer-{name}gpu") for name in ("", "others-"))),
            "ops-gpu": markdown(result("ops-gpu")),
            "ops-cpu": markdown(result("ops-cpu")),
            "model-cpu": model_table(result("model-cpu")),
            "training-cpu": cpu_training_table(result("training-cpu")),
            "one-hash-gpu": one_hash_table(result("one-hash-gpu")),
            "one-hash-cpu": one_hash_table(result("one-hash-cpu")),
            "training-speed-gpu": training_speed_table(result("training-speed-gpu")),
            "training-speed-mamba2-gpu": training_speed_table(result("training-speed-mamba2-gpu")),
            "chunk-scan-gpu": chunk_scan_table(result("chunk-scan-gpu")),
            "prefill-gpu": prefill_table(result("prefill-gpu")),
            "learning-gpu": learning_table(result("learning-gpu")),
            "learning-cpu": learning_table(result("learning-cpu")),
            "transcripts-cpu": transcripts_table(result("transcripts-cpu")),
            "transcripts-gpu": transcripts_table(*(result(f"transcripts-{name}-gpu") for name in ("verse", "base"))),
            "decode-gpu": decode_table(*(result(f"decode-{name}-gpu") for name in ("base", "verse"))),
            "ranks-gpu": ranks_table(result("ranks-gpu")),
            "limits-gpu": limits_table(result),
            "circuits-cpu": circuits_table(result("circuits-cpu")),
            "lookup-circuits-cpu": lookup_table(result("lookup-circuits-cpu")),
        },
    }


def filled(page: str) -> str:
    """Return a page with every generated block made anew from the committed results."""
    text = (ROOT / page).read_text()
    for name, content in blocks()[page].items():
        text = fill(text, name, content)
    return text


def result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())


def main() -> None:
    for page in blocks():
        write_atomically(ROOT / page, filled(page).encode())


if __name__ == "__main__":
    main()
