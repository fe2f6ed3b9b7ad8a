"""Mistakes planted in the C example, one at a time: each is found by the suite and named by its diagnosis."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from mamba_integer.backends import load
from mamba_integer.conformance.diagnosis import explanation
from mamba_integer.conformance.diagnosis.explanation import explain
from mamba_integer.conformance.engine.judge import conform_op

SOURCES = Path(__file__).parents[3] / "conformance/examples/c"
COMPILE = ["cc", "-std=c99", "-O0", f"-I{SOURCES}"]
LONG = 1e9  # seconds: time decides nothing here


@dataclass(frozen=True)
class Bug:
    """A piece of ops.c, what stands there instead, the op that it spoils, and a part of the right diagnosis."""

    op: str
    right: str
    wrong: str
    says: str


NEW_STATE = "*state = shift_floor(*state * n + v * (shift_up(1, k) - (convex ? n : 0)), k);"
SQUARES = "squares += (row[i] - mean) * (row[i] - mean);"
QUARTER = "x = -y;\n            y = old;"
EXCHANGED = 'key1 = (uint32_t)parameter(c, "key0"), key0 = (uint32_t)parameter(c, "key1")'
KEYS = 'key0 = (uint32_t)parameter(c, "key0"), key1 = (uint32_t)parameter(c, "key1")'
BUGS = [
    Bug(
        "selective_scan",
        NEW_STATE,
        "*state = (*state * n + v * (shift_up(1, k) - (convex ? n : 0))) / shift_up(1, k);",
        "shifts to the right truncate toward zero, in `h = (h.astype",
    ),
    Bug(
        "selective_scan",
        "sum += shift_floor(*state, s_h) * mix",
        "sum += shift_floor(before, s_h) * mix",
        "y is taken from the state before the step",
    ),
    Bug(
        "selective_scan_step", ": shift_round(v, s_v)", ": shift_floor(v, s_v)", "adds no half: it is a floor, in `v ="
    ),
    Bug(
        "selective_scan_step",
        "saturate(shift_round(sum, s_y), 16); /* C4",
        "saturate(sum / shift_up(1, s_y), 16); /*",
        "the rounding shift truncates toward zero, in `y =",
    ),
    Bug(
        "selective_scan_step",
        "x < -limit ? -limit : x;",
        "x < -limit - 1 ? -limit - 1 : x;",
        "saturation reaches the type's least value",
    ),
    Bug("selective_scan_step", "n < 0 ? 0 : n > n_max", "n > n_max", "a value below the low end isn't clamped"),
    Bug("selective_scan_step", "sum = c->in[5].values[d] * x", "sum = 0 * x", "skip is taken as zero"),
    Bug("selective_scan_step", "(convex ? n : 0)", "(0 * convex)", "convex is ignored: it is taken as 0"),
    Bug("selective_scan_step", "shift_floor(*state, s_h)", "*state", "s_h is ignored: it is taken as 0"),
    Bug(
        "selective_scan_step",
        "*b = &c->in[3], *mix = &c->in[4]",
        "*b = &c->in[4], *mix = &c->in[3]",
        "b and c are exchanged",
    ),
    Bug(
        "selective_scan_step", "c->in[6].values[i];", "c->in[6].values[i % (D * N)];", "first of B in h is used for all"
    ),
    Bug("bitshift_norm", "floor_div(sum, D)", "sum / D", "floor division truncates toward zero"),
    Bug("bitshift_norm", "while (squares > D", "while (squares >= D", "a comparison with > also takes equality"),
    Bug("bitshift_norm", SQUARES, f"{SQUARES} squares = (int32_t)squares;", "sums are kept in int32"),
    Bug(
        "bitshift_norm",
        SQUARES,
        "squares = (int64_t)((float)squares + (float)((row[i] - mean) * (row[i] - mean)));",
        "sums are kept in float32",
    ),
    Bug(
        "bitshift_norm",
        "saturate(shift_round(scaled, k + b + s), 16)",
        "saturate(scaled < 0 ? -shift_round(-scaled, k + b + s) : shift_round(scaled, k + b + s), 16)",
        "half away from zero",
    ),
    Bug("ternary_linear", "(2 * (k % 4))", "(2 * (3 - k % 4))", "each byte of w are read from the high bits down"),
    Bug("ternary_linear", "(2 * (k % 4))", "(2 * ((k + 2) % 4))", "the nibbles of w are swapped"),
    Bug("ternary_linear", "code == 1 ? q", "code == 2 ? q", "the digits 1 of w are taken as 0"),
    Bug("ternary_linear", "sum += code == 1", "sum = (int16_t)sum, sum += code == 1", "sums are kept in int16"),
    Bug("ternary_linear", "k < K; k++) { /* C1: code", "k < K / 4 * 4; k++) { /*", "after blocks of 4 is left out"),
    Bug(
        "squareplus",
        "    return root;",
        "    return root + (v - root * root > root);",
        "the root is rounded to nearest",
    ),
    Bug("squareplus", "- offset, 16)", "- 0 * offset, 16)", "offset is ignored: it is taken as 0"),
    Bug(
        "sigmoid_gate",
        "floor_div(z * (1 << 14), shift_up(1, f) + absolute(z))",
        "z * (1 << 14) / (shift_up(1, f) + absolute(z))",
        "the floor division truncates toward zero",
    ),
    Bug(
        "sigmoid_gate",
        "shift_round(x * g, 15);  ",
        "shift_floor(x * g + 16383 + (shift_floor(x * g, 15) & 1), 15);  ",
        "rounds half to even",
    ),
    Bug("dyadic_rotate", QUARTER, "x = y;\n            y = -old;", "the quarter turns go the other way"),
    Bug(
        "dyadic_rotate",
        "lam = c->in[1].values[p], gam = c->in[2]",
        "lam = c->in[2].values[p], gam = c->in[1]",
        "are exchanged",
    ),
    Bug(
        "dyadic_rotate",
        "y += shift_floor(x * gam, s);",
        "y += x * gam / shift_up(1, s);",
        "zero, in `y = y + direction",
    ),
    Bug("softmax_pow2", "+ (sum >> 1), sum)", ", sum)", "a term that is shifted to the right is left out"),
    Bug("softmax_pow2", "44025", "44026", "SLOPE is 44026 in place of 44025"),
    Bug("philox4x32", "round < 10", "round < 9", "ROUNDS is 9 in place of 10"),
    Bug(
        "philox4x32",
        KEYS,
        EXCHANGED,
        "are exchanged",
    ),
    # The bugs that follow are found by reading the golden code otherwise, or has no exact counterpart above.
    Bug("squareplus", "shift_up(4, 2 * f)", "shift_up(4, f)", "`f` in place of `2 * f`, in `radicand ="),
    Bug("squareplus", "INT64_C(1) << 16; bit", "INT64_C(1) << 14; bit", "the root has 15 bits"),
    Bug(
        "squareplus",
        "saturate(shift_floor(x + root, 1) - offset, 16);",
        "saturate(shift_floor(x + root, 1), 16) - offset;",
        "integers.saturate(integers.shift_floor(wide + integers.isqrt(radicand), 1), 16) - offset",
    ),
    Bug(
        "sigmoid_gate",
        "shift_round(x * g, 15);  ",
        "shift_round(shift_round(x * g, 1), 14);",
        "the first bit by itself",
    ),
    Bug(
        "bitshift_norm",
        "mean = floor_div(sum, D);",
        "mean = 0 * sum;",
        "`centred = wide` in place of `centred = wide - integers.floor_div(",
    ),
    Bug("bitshift_norm", "m * gamma->values[i];", "m * (gamma->values[i] + 1);", "`gamma + 1` in place of `gamma`"),
    Bug(
        "bitshift_norm",
        "saturate(shift_round(scaled, k + b + s), 16)",
        "saturate(shift_round(shift_round(scaled, k + b), s), 16)",
        "integers.shift_round(integers.shift_round(centred * m * gamma, k + b), s)",
    ),
    Bug(
        "ternary_linear",
        "shift_round(shift_up(sum * num, e->values[r]), shift), 16)",
        "shift_up(shift_round(sum * num, shift), e->values[r]), 16)",
        "is done after `rounded_sum = integers.shift_round(aligned, shift)`",
    ),
    Bug("ternary_linear", "n * bytes + k / 4", "n * (K / 4) + k / 4 + 0 * bytes", "w are taken K // 4 bytes apart"),
    Bug("ternary_linear", "shift_up(sum * num, e", "shift_up((int32_t)(sum * num), e", "products are kept in int32"),
    Bug("softmax_pow2", "(whole < 31 ? whole : 31)", "(whole & 31)", "as of a shift's count"),
    Bug("philox4x32", "key1 += 0xBB67AE85", "key1 += 0x9E3779B9", "`WEYL_0` in place of `WEYL_1`"),
    Bug("selective_scan", "t < L; t++)", "t < (L > 1 ? L - 1 : L); t++)", "the last step isn't run"),
    Bug("selective_scan", "*state = &h[(i * D + d) * N + j]", "*state = &h[d * N + j]", "of a batch share one h"),
    Bug(
        "selective_scan_step",
        "s_v < 0 ? shift_up(v, -s_v) : shift_round(v, s_v)",
        "shift_round(v, absolute(s_v))",
        "s_v is taken without its sign",
    ),
    Bug("selective_scan_step", "(convex ? n : 0)", "(convex ? n + 1 : 0)", "`n + 1` in place of `n`, in `weight ="),
]


@pytest.fixture(scope="module")
def harness(tmp_path_factory) -> Path:
    object_file = tmp_path_factory.mktemp("harness") / "harness.o"
    subprocess.run([*COMPILE, "-c", SOURCES / "harness.c", "-o", object_file], check=True)
    return object_file


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.op}: {bug.says[:40]}")
def test_each_gets_its_diagnosis(bug, harness, tmp_path, monkeypatch):
    monkeypatch.setattr(explanation, "MORE", 8)  # these tell where a mistake shows, which is not asked here
    source = (SOURCES / "ops.c").read_text()
    assert source.count(bug.right) == 1
    source = (
        source.replace(NEW_STATE, f"int64_t before = *state; (void)before; {NEW_STATE}")
        if "before" in bug.wrong
        else source
    )
    (tmp_path / "ops.c").write_text(source.replace(bug.right, bug.wrong))
    subprocess.run([*COMPILE, harness, tmp_path / "ops.c", "-o", tmp_path / "mine"], check=True)
    failure = conform_op(load(f"command:{tmp_path}/mine"), bug.op).failure
    assert failure is not None
    found = explain(failure, seconds=LONG)
    assert found is not None
    assert any(bug.says in mistake for mistake in found.mistakes), found.mistakes
    assert found.explained == found.failing > 0
    assert sum(array.size for array in found.vector.arrays) < 4096


def test_the_first_intermediate_that_goes_wrong_has_its_name(harness, tmp_path):
    (tmp_path / "ops.c").write_text((SOURCES / "ops.c").read_text().replace("- offset, 16)", "+ offset, 16)"))
    subprocess.run([*COMPILE, harness, tmp_path / "ops.c", "-o", tmp_path / "mine"], check=True)
    failure = conform_op(load(f"command:{tmp_path}/mine"), "squareplus").failure
    assert failure is not None
    found = explain(failure, seconds=LONG)
    assert found is not None and found.diverges.startswith("lowered: ")
    assert found.mistakes[0].startswith("`y = ") and " + offset` in place of `y = " in found.mistakes[0]


def test_a_crash_is_made_small(harness, tmp_path):
    right, wrong = "i < V; i++) sum +=", "i < V - 1; i++) sum +="
    (tmp_path / "ops.c").write_text((SOURCES / "ops.c").read_text().replace(right, wrong))
    subprocess.run([*COMPILE, harness, tmp_path / "ops.c", "-o", tmp_path / "mine"], check=True)
    failure = conform_op(load(f"command:{tmp_path}/mine"), "softmax_pow2").failure
    assert failure is not None and failure.kind == "crash" and "Floating point exception" in failure.message
    found = explain(failure, seconds=LONG)
    assert found is not None and [array.tolist() for array in found.vector.arrays] == [[[0]]]
