"""The goals of the kernels' speed beside what the committed results say of them, for ``benchmarks.tables``."""

from collections.abc import Callable, Iterator
from typing import Any

Result = Callable[[str], dict[str, Any]]
LARGE_PRODUCT = "4096 K4096 N8192"
LARGE_OPERATIONS = 2 * 4096 * 4096 * 8192
PRODUCTS = ("2048 K768 N3072", "8192 K3072 N768", "8192 K768 N1536")
ELEMENTWISE = ("squareplus", "sigmoid_gate", "silu_gate", "residual_add", "saturating_add", "requantize")
LONG_ROWS = ("quantize_rows 16384 K4096", "norm_quantize 16384 D4096", *(f"{op} 16384 4096" for op in ELEMENTWISE))
DECODED = {1: 5_000, 64: 150_000}  # rows, and the tokens per second that they should write
MOST, LEAST = "at most", "at least"

Goal = tuple[str, float, str, str, float]  # the work, its measure and unit, MOST or LEAST, the goal


def chunked_goals(result: Result) -> Iterator[Goal]:
    us = {}
    for row in result("chunk-scan-gpu")["rows"]:
        sizes = row["sizes"]
        us[row["work"], sizes["batch"], sizes["length"], sizes["states"]] = row["microseconds"]
    yield "chunked scan, 8 x 2048, 128 states", us["forward", 8, 2048, 128], "us", MOST, 130
    long = us["forward", 1, 65536, 128] / us["forward", 32, 2048, 128]
    yield "chunked scan, 1 x 65536 over 32 x 2048, 128 states", long, "x", MOST, 1.2
    forward, backward = us["forward", 8, 2048, 64], us["backward", 8, 2048, 64]
    yield "chunked scan, forward and backward over forward, 64 states", (forward + backward) / forward, "x", MOST, 4


def model_goals(result: Result) -> Iterator[Goal]:
    (step,) = result("training-speed-mamba2-gpu")["rows_measured"]
    yield "training step, Mamba-2 blocks alone", step["tokens_per_second"], "tokens/s", LEAST, 200_000
    yield "its peak memory", step["peak_bytes"] / 1e9, "GB", MOST, 14
    (prefill,) = result("prefill-gpu")["rows_measured"]
    yield "prefill of `base`", prefill["tokens_per_second"], "tokens/s", LEAST, 1_000_000
    for row in result("decode-base-gpu")["rows"]:
        if row["choice"] in ("greedy", "sampled") and row["batch"] in DECODED:
            work = f"decode of `base`, rows {row['batch']}, {row['choice']}"
            yield work, row["tokens_per_second"], "tokens/s", LEAST, DECODED[row["batch"]]
    *_, command = result("decode-verse-gpu")["rows"]
    yield "`generate` with a model of `verse`", command["tokens_per_second"], "tokens/s", LEAST, 10_000
    ranks = {(line["ranks"], line["kind"]): line["share_of_linear"] for line in result("ranks-gpu")["lines"]}
    yield "training on 2 GPUs, of linear", 100 * ranks[2, "weak"], "%", LEAST, 90


def op_goals(result: Result) -> Iterator[Goal]:
    rows = {row["workload"]: row for row in result("ops-gpu")["rows"] if row["backend"] == "triton"}
    us = {workload: 1e6 * row["seconds"] for workload, row in rows.items()}

    def share(workload: str) -> float:
        return 100 * rows[workload]["floor_seconds"] / rows[workload]["seconds"]

    def beside_bf16(workload: str) -> float:
        (peer,) = (peer for peer in rows[workload]["peers"] if peer["peer"] == "bf16 matmul")
        return peer["seconds"] / rows[workload]["seconds"]

    large = us[f"ternary_linear {LARGE_PRODUCT}"]
    yield f"ternary_linear {LARGE_PRODUCT}", LARGE_OPERATIONS / large / 1e6, "TOPS", LEAST, 1200
    fused = us[f"ternary_linear_requant {LARGE_PRODUCT}"] / large
    yield "the same with the requantise fused, over int16 out", fused, "x", MOST, 1
    for product in PRODUCTS:
        yield f"ternary_linear {product}, over bf16", beside_bf16(f"ternary_linear {product}"), "x", LEAST, 1.3
    yield "ternary_linear 1 K4096 N8192", us["ternary_linear 1 K4096 N8192"], "us", MOST, 5
    for count in (2, 4, 8, 16, 32):
        workload = f"ternary_linear {count} K4096 N8192"
        yield f"{workload}, over bf16", beside_bf16(workload), "x", LEAST, 3
    scan = us["selective_scan B8 L2048 D1536 N16"]
    yield "selective_scan B8 L2048 D1536 N16", scan, "us", MOST, 200
    backward = us["selective_scan_backward B8 L2048 D1536 N16"]
    yield "its backward over its forward", backward / scan, "x", MOST, 3
    for sizes, goal in (("B2 L512 D1536 N64", 60), ("B1 L16384 D1536 N16", 900)):
        yield f"selective_scan {sizes}", us[f"selective_scan {sizes}"], "us", MOST, goal
    for op in ("ternary_linear_backward", "ternary_linear_backward_weight"):
        yield f"{op} 16384 K768 N3072, of its floor", share(f"{op} 16384 K768 N3072"), "%", LEAST, 50
    for workload in LONG_ROWS:
        yield f"{workload}, of the measured copy", share(workload), "%", LEAST, 90


def shown(value: float, unit: str) -> str:
    digits = 0 if value >= 1000 else 2 if unit == "x" else 1
    return f"{value:,.{digits}f}"


def limits_table(result: Result) -> str:
    """Return every goal beside its measure, and how far off it is where it isn't reached."""
    head = ["| work | measured | goal | reached |", "| --- | ---: | ---: | --- |"]
    for goals in (chunked_goals, model_goals, op_goals):
        for work, value, unit, bound, goal in goals(result):
            reached = value <= goal if bound == MOST else value >= goal
            off = "yes" if reached else f"no, by {abs(value / goal - 1):.1%}"
            head.append(f"| {work} | {shown(value, unit)} {unit} | {bound} {goal:,} {unit} | {off} |")
    return "\n".join(head)
