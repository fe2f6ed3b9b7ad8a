"""For each clause of each contract, the evidence that the suite holds backends to it.

A text names a mistake of the diagnosis' catalogue that breaks the clause: some listed vector of the op must show it.
``relation NAME`` names a relation that is checked for the op, ``test PATH::NAME`` a test of our own. A test calls
`missing`: a clause without evidence, or evidence that no longer holds, fails it.
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mamba_integer.spec import OPS

from .diagnosis.catalogue import variants
from .engine.cases import extreme_cases
from .engine.relations import RELATIONS
from .engine.vector import as_vector

SMALL = 4000  # integers of the vectors that are looked at
HALF = "the rounding shift adds no half"
ENDS = "saturation is missing: the result wraps around"
EDGE = "saturation reaches the type's least value"
SCAN, SCAN_BACKWARD = "test tests/spec/ops/test_scan.py", "test tests/spec/ops/test_scan_backward.py"
STEP = {
    "C1": f"{HALF}: it is a floor, in `v =",
    "C2": "shifts to the right truncate toward zero, in `h =",
    "C3": "convex is ignored: it is taken as 0",
    "C4": "y is taken from the state before the step",
    "C5": f"{SCAN}::test_the_bound_is_reached_from_zero_and_not_passed",
    "C6": f"{SCAN}::test_the_floor_falls_short_by_less_than_its_bound",
}
BACKWARD = {
    "C1": "dh is taken as zero",
    "C2": "the shift that rounds half to even rounds half up",
    "C3": "convex is ignored: it is taken as 0",
    "C4": "s_x is taken as s_x + 1",
    "C5": "s_w is taken as s_w + 1",
    "C6": "s_b is taken as s_b + 1",
    "C7": "s_c is taken as s_c + 1",
    "C8": "dskip is written as zero",
    "C9": f"{SCAN_BACKWARD}::test_the_bound_is_the_least",
    "C10": "relation backward chunks",
    "C11": f"{SCAN_BACKWARD}::test_the_direction_is_that_of_the_smooth_gradient",
}
INVERSE = "relation inverse"
CHUNKED = "test tests/spec/ops/test_ssd_chunk.py"
CHUNKED_BACKWARD = "test tests/spec/ops/test_ssd_chunk_backward.py"
CHUNK = {
    "C1": "fill is taken as zero",
    "C2": "the rounding shift adds no half: it is a floor, in `return integers.shift_round(p,",
    "C3": "MOST_WEIGHT_BITS is 11 in place of 12",
    "C4": "the rounding shift adds no half: it is a floor, in `mixed =",
    "C5": "a value above the high end isn't clamped",
    "C6": "s_y is taken as s_y + 1",
    "C7": "DECAY_BITS is 16 in place of 15",
    "C8": "open_x is returned as it came",
    "C9": f"{CHUNKED}::test_the_largest_exponent_forgets",
    "C10": f"{CHUNKED}::test_the_worst_sequence_stays_within_the_bound",
}
CHUNK_WHOLE = {
    "C11": "relation chunks",
    "C12": f"{CHUNKED}::test_a_smaller_fill_takes_positions_back",
}
CHUNK_BACKWARD = {
    "C1": "q is taken as q + 1",
    "C2": "a value above the high end isn't clamped",
    "C3": "dy is taken as zero",
    "C4": "MOST_WEIGHT_BITS is 11 in place of 12",
    "C5": "dh is taken as zero",
    "C6": "s_x is taken as s_x + 1",
    "C7": "db is written as zero",
    "C8": "dc is written as zero",
    "C9": "h is taken as zero",
    "C10": f"{CHUNKED_BACKWARD}::test_a_forgotten_past_gets_no_gradient",
    "C11": f"{CHUNKED_BACKWARD}::test_the_direction_is_that_of_the_smooth_gradient",
    "C12": "dskip is written as zero",
    "C13": "relation backward chunks",
    "C14": f"{CHUNKED_BACKWARD}::test_a_forgotten_past_gets_no_gradient",
}

CITATIONS: dict[str, dict[str, str]] = {
    "squareplus": {"C1": "the root is rounded to nearest", "C2": "offset is ignored", "C3": ENDS},
    "algebraic_sigmoid": {"C1": "the floor division truncates toward zero"},
    "sigmoid_gate": {"C1": "the floor division truncates toward zero", "C2": "the rounding shift rounds half to even"},
    "silu_gate": {
        "C1": "the floor division truncates toward zero",
        "C2": "the rounding shift rounds twice, the last bit by itself",
        "C3": EDGE,
    },
    "squareplus_backward": {
        "C1": "the rounding division is a floor",
        "C2": "a comparison with > also takes equality",
        "C3": "the rounding shift rounds half away from zero",
    },
    "sigmoid_gate_backward": {
        "C1": "the floor division rounds up",
        "C2": "the rounding shift rounds half away from zero",
        "C3": ENDS,
    },
    "silu_gate_backward": {
        "C1": "the floor division rounds up",
        "C2": "the rounding shift truncates toward zero",
        "C3": EDGE,
    },
    "causal_conv1d": {
        "C1": "the rounding shift rounds half to even",
        "C2": "state is taken as zero",
        "C3": "relation chunks",
    },
    "conv1d_step": {"C1": "state is returned as it came"},
    "causal_conv1d_backward": {
        "C1": "saturation ends one short",
        "C2": "the half of the rounding shift overflows int32",
        "C3": "state is taken as zero",
        "C4": "dbias is written as zero",
    },
    "embedding": {
        "C1": "shift is taken as shift + 1",
        "C2": "test tests/spec/ops/test_residual.py::test_id_past_the_table_raises",
    },
    "embedding_backward": {
        "C1": "ids is taken as zero",
        "C2": "test tests/spec/ops/test_norm_backward.py::test_embedding_sums_the_errors_of_one_row",
    },
    "pack_ternary": {
        "C1": "the digits of packed are written with their signs swapped",
        "C2": "the digits in each byte of packed are written from the high bits down",
        "C3": "test tests/spec/ops/test_packing.py::test_exactly_the_packed_bytes_are_accepted",
    },
    "unpack_ternary": {"C1": "the digits in each byte of packed are read from the high bits down"},
    "pack_trits": {
        "C1": "test tests/spec/ops/test_packing.py::test_trits_are_digits_of_base_three",
        "C2": "test tests/spec/ops/test_packing.py::test_exactly_the_packed_bytes_are_accepted",
    },
    "unpack_trits": {"C1": "test tests/spec/ops/test_packing.py::test_every_byte_comes_back"},
    "quantize_rows": {"C1": "the bit length is one too large", "C2": "the rounding shift rounds up", "C3": ENDS},
    "requantize": {"C1": "the rounding shift rounds half to even", "C2": EDGE},
    "ternary_linear": {"C1": "the digits of w have their signs swapped", "C2": HALF, "C3": ENDS},
    "ternary_linear_requant": {"C1": "relation composite"},
    "saturating_add": {"C1": EDGE},
    "gradient_add": {"C1": "b is taken as zero"},
    "largest_magnitude": {"C1": "magnitudes are taken as they are"},
    "round_to_int16": {"C1": "the shift that rounds half to even rounds half up", "C2": ENDS},
    "saturate_backward": {"C1": "the shift that rounds half to even rounds half up", "C2": "y is taken as zero"},
    "stochastic_round_rows": {"C1": "e is taken as zero", "C2": ENDS, "C3": "step is taken as step + 1"},
    "ternary_linear_backward": {"C1": "the digits of w have their signs swapped", "C2": HALF, "C3": ENDS},
    "ternary_linear_backward_weight": {"C1": "sums are kept in float32"},
    "softmax_pow2": {
        "C1": "sums are kept in int16",
        "C2": "SLOPE is 44026 in place of 44025",
        "C3": "the floor division rounds up",
    },
    "cross_entropy_pow2": {
        "C1": "CURVE is 11258 in place of 11257",
        "C2": "the bit length is one too large",
        "C3": "target is taken as zero",
        "C4": ENDS,
    },
    "cross_entropy_pow2_backward": {
        "C1": "logits is taken as zero",
        "C2": "FRACTION_BITS is 16 in place of 15",
        "C3": "the floor division rounds up",
        "C4": ENDS,
        "C5": "step is taken as step + 1",
    },
    "bitshift_norm": {
        "C1": "the floor division truncates toward zero",
        "C2": "a comparison with > also takes equality",
        "C3": "a comparison with <= doesn't take equality",
        "C4": "b is ignored: it is taken as 1",
        "C5": "saturation ends one short",
    },
    "norm_quantize": {"C1": "relation composite"},
    "bitshift_norm_backward": {
        "C1": "gamma is taken as zero",
        "C2": "the rounding division is a floor",
        "C3": "a maximum with a constant is left out",
        "C4": "saturation ends one short",
        "C5": "dgamma is written as zero",
        "C6": "test tests/spec/ops/test_norm_backward.py::test_direction_is_that_of_the_smooth_norm",
    },
    "ternary_project": {
        "C1": "a comparison with > also takes equality",
        "C2": "the digits in each byte of packed are written from the high bits down",
    },
    "lion_update": {
        "C1": "m_shift is taken as m_shift + 1",
        "C2": "g_up is taken as g_up - 1",
        "C3": "lr is taken as lr + 1",
        "C4": "LAG_SHIFT is 7 in place of 6",
        "C5": "decay is ignored",
        "C6": "clipped is written as zero",
    },
    "learning_rate": {"C1": "a comparison with < also takes equality", "C2": "the rounding division is a floor"},
    "gradient_exponent": {
        "C1": "a comparison with >= doesn't take equality",
        "C2": "the bit length is one too large",
        "C3": "a comparison with > also takes equality",
        "C4": "a minimum with a constant is left out",
    },
    "momentum_exponent": {
        "C1": "largest_g and largest_m are exchanged",
        "C2": "FEWEST_BITS is 22 in place of 21",
        "C3": "a maximum with a constant is left out",
    },
    "shift_round": {"C1": "the rounding shift rounds half away from zero"},
    "saturate": {"C1": EDGE},
    "bit_length": {"C1": "the bit length takes 2**b to need b bits"},
    "isqrt": {"C1": "the root isn't corrected"},
    "residual_add": {"C1": "the rounding shift rounds half to even", "C2": ENDS},
    "residual_add_backward": {
        "C1": EDGE,
        "C2": "test tests/spec/ops/test_norm_backward.py::test_residual_error_is_rounded_once_and_up_at_a_tie",
    },
    "dyadic_rotate": {"C1": "the quarter turns go the other way", "C2": "truncate toward zero, in `y =", "C3": INVERSE},
    "dyadic_rotate_inverse": {
        "C1": "truncate toward zero, in `y =",
        "C2": "the quarter turns go the other way",
        "C3": INVERSE,
    },
    "rope": {"C1": "relation composite", "C2": INVERSE},
    "rope_inverse": {"C1": "relation composite", "C2": INVERSE},
    "argmax": {"C1": "logits is read one too late along V"},
    "philox4x32": {"C1": "ROUNDS is 9 in place of 10"},
    "sample": {
        "C1": "num is taken as num - 1",
        "C2": "top_k is ignored",
        "C3": "a comparison with < also takes equality",
        "C4": "stream and position are exchanged",
        "C5": "a shift to the right is left out",
        "C6": "a comparison with > also takes equality",
    },
    "decay_modulate": {"C1": "a value below the low end isn't clamped"},
    "selective_scan_step": STEP | {"C8": "a value below the low end isn't clamped"},
    "selective_scan": STEP | {"C7": "relation chunks", "C8": "a value below the low end isn't clamped"},
    "ssd_scan_step": STEP,
    "ssd_scan": STEP | {"C7": "relation chunks"},
    "ssd_chunk_scan": CHUNK | CHUNK_WHOLE,
    "ssd_chunk_scan_step": CHUNK,
    "ssd_chunk_scan_backward": CHUNK_BACKWARD,
    "decay_modulate_backward": {
        "C1": "a comparison with >= doesn't take equality",
        "C2": "dbase is written as zero",
        "C3": "s_n is taken as s_n + 1",
    },
    "selective_scan_backward": BACKWARD | {"C12": "s_n is taken as s_n + 1"},
    "ssd_scan_backward": BACKWARD | {"C12": "s_n is taken as s_n + 1"},
    "dyadic_transform": {
        "C1": "x is read one too late along 2^m",
        "C2": "lam and gam are exchanged",
        "C3": INVERSE,
        "C4": "test tests/spec/ops/test_transform.py::test_agrees_with_the_fourier_transform",
    },
    "dyadic_transform_inverse": {
        "C1": "lam and gam are exchanged",
        "C2": "y is written one too late along 2^m",
        "C3": INVERSE,
        "C4": "test tests/spec/ops/test_transform.py::test_agrees_with_the_fourier_transform",
    },
}


@dataclass(frozen=True)
class Parts(Container):
    """The descriptions that contain one of several texts."""

    texts: Sequence[str]

    def __contains__(self, says: object) -> bool:
        return any(text in str(says) for text in self.texts)


def missing(op: str, root: Path) -> Iterator[str]:
    """Yield a text for each clause of an op without evidence; tests are looked for below ``root``."""
    cited, clauses = CITATIONS.get(op, {}), OPS[op].clauses
    yield from (f"{op} {label}: no evidence" for label in clauses if label not in cited)
    yield from (f"{op} {label}: no such clause" for label in cited if label not in clauses)
    mistakes: dict[str, str] = {}
    for label, evidence in cited.items():
        kind, _, name = evidence.partition(" ")
        if kind == "relation":
            if name not in RELATIONS or RELATIONS[name].needs(op) is None:
                yield f"{op} {label}: no relation {name}"
        elif kind == "test":
            path, _, function = name.partition("::")
            if not (root / path).is_file() or f"def {function}(" not in (root / path).read_text():
                yield f"{op} {label}: no test {name}"
        else:
            mistakes[label] = evidence
    unseen = unshown(op, list(mistakes.values()))
    yield from (f"{op} {label}: no listed vector shows '{text}'" for label, text in mistakes.items() if text in unseen)


def clauses_broken(op: str, mistakes: Sequence[str]) -> list[str]:
    """Return the labels of the clauses for which one of some mistakes is the evidence."""
    cited = CITATIONS.get(op, {})
    return [label for label, text in cited.items() if any(text in mistake for mistake in mistakes)]


def unshown(op: str, texts: list[str]) -> list[str]:
    """Return the mistakes that no listed vector of an op shows."""
    for case in extreme_cases(op):
        vector = as_vector(case)
        if texts and sum(array.size for array in vector.arrays) <= SMALL:
            call = OPS[op], vector.arrays, vector.parameters
            for says, _ in variants(*call, only=Parts(texts)):
                texts = [text for text in texts if text not in says]
                if not texts:
                    break
    return texts
