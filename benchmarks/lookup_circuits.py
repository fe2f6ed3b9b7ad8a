"""Rows, tables and LogRows of lookup-based circuits, beside constraints of the same ops here.

The baseline is EZKL (halo2: PLONK gates and lookups), which takes ONNX models. Run this by hand, in an environment of
its own that has ``ezkl==23.0.5 onnx==1.23.2 numpy numba``; nothing is downloaded, a set-up is made locally:

    python -m benchmarks.lookup_circuits --json benchmarks/results/lookup-circuits-cpu.json

Forms in fixed point are what EZKL makes of the usual float code. Forms in integers are exact, and are compared with the
integers that they must give.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ezkl
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mamba_integer.backends.app.environment import environment
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.conformance.circuits.lowering import lower
from mamba_integer.spec.contract import Packed, find_op

SCALE = 8  # fraction bits of the fixed-point forms
LEGS = 4  # digits of 14 bits in EZKL's decompositions: an accumulator of the scan has 47 bits
FUNCTIONS = {"Softplus", "Sigmoid", "Exp", "Sqrt", "Reciprocal", "Floor"}
RANDOM = np.random.default_rng(0)


@dataclass
class Form:
    """One way to write a layer in ONNX: its nodes as (op, inputs, output, attributes)."""

    work: str
    form: str
    nodes: list[tuple[str, list[str], str, dict[str, Any]]]
    inputs: dict[str, np.ndarray]
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    scales: tuple[int, int] = (SCALE, SCALE)  # of inputs, of constants
    exact: Callable[[], np.ndarray] | None = None
    ours: dict[str, Callable[[], dict[str, int]]] = field(default_factory=dict)
    prove: bool = False


def model_bytes(form: Form) -> bytes:
    def value(name: str, shape: Any) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [helper.make_node(op, inputs, [output], **attributes) for op, inputs, output, attributes in form.nodes]
    inputs = [value(name, array.shape) for name, array in form.inputs.items()]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in form.constants.items()]
    graph = helper.make_graph(nodes, form.work, inputs, [value("y", None)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def depth(form: Form) -> int:
    """Return how many steps that are not linear stand in a row: products of two inputs, and functions."""
    depths = dict.fromkeys(form.inputs, 0) | dict.fromkeys(form.constants, -1)
    for op, inputs, output, _ in form.nodes:
        known = [depths[name] for name in inputs]
        variables = [d for d in known if d >= 0]
        products = op in ("Mul", "MatMul", "Div") and len(variables) == 2
        depths[output] = max(variables) + (op in FUNCTIONS or products)
    return depths["y"]


def measure(form: Form, folder: Path, proves: bool) -> dict[str, Any]:
    model, settings, data, circuit, witness = (
        folder / name for name in ("m.onnx", "s.json", "d.json", "m.ez", "w.json")
    )
    model.write_bytes(model_bytes(form))
    data.write_text(json.dumps({"input_data": [array.ravel().tolist() for array in form.inputs.values()]}))
    options = ezkl.PyRunArgs()
    options.input_scale, options.param_scale = form.scales
    options.decomp_legs, options.scale_rebase_multiplier = LEGS if form.exact else 2, 1000 if form.exact else 1
    ezkl.gen_settings(str(model), str(settings), py_run_args=options)
    calibration = {"scales": [form.scales[0]], "scale_rebase_multiplier": [options.scale_rebase_multiplier]}
    ezkl.calibrate_settings(str(data), str(model), str(settings), "resources", **calibration)
    ezkl.compile_circuit(str(model), str(circuit), str(settings))
    ezkl.gen_witness(str(data), str(circuit), str(witness))
    chosen = json.loads(settings.read_text())
    row = {
        "work": form.work,
        "form": form.form,
        "rows": chosen["num_rows"],
        "logrows": chosen["run_args"]["logrows"],
        "function_tables": len(chosen["required_lookups"]),
        "range_tables": len(chosen["required_range_checks"]),
        "largest_range": max((high - low + 1 for low, high in chosen["required_range_checks"]), default=0),
        "depth": depth(form),
        "ours": {name: count() for name, count in form.ours.items()},
    }
    if form.exact:
        (result,) = json.loads(witness.read_text())["pretty_elements"]["rescaled_outputs"]
        row["exact"] = [int(float(text)) for text in result] == form.exact().ravel().tolist()
    return row | (proof(folder, chosen["run_args"]["logrows"]) if proves and form.prove else {})


def proof(folder: Path, logrows: int) -> dict[str, Any]:
    """Return the seconds and bytes of a proof, which is verified."""
    names = ("m.ez", "w.json", "s.json", "srs", "vk", "pk", "proof")
    circuit, witness, settings, srs, vk, pk, made = (str(folder / name) for name in names)
    seconds = {}

    def timed(name: str, run: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = run()
        seconds[name] = round(time.process_time() - start, 2)
        return result

    timed("srs_s", lambda: ezkl.gen_srs(srs, logrows))
    timed("setup_s", lambda: ezkl.setup(circuit, vk, pk, srs))
    timed("prove_s", lambda: ezkl.prove(witness, circuit, pk, made, srs))
    if not timed("verify_s", lambda: ezkl.verify(made, settings, vk, srs)):
        raise SystemExit("EZKL refused its own proof")
    size = len(bytes.fromhex(json.loads(Path(made).read_text())["hex_proof"].removeprefix("0x")))
    return {**seconds, "proof_bytes": size}


def constraints(
    op: str, shapes: list[tuple[int, ...]], fixed: tuple[str, ...] = (), **parameters: int
) -> dict[str, int]:
    """Return the counts of an op whose inputs are ones: a circuit doesn't depend on the values of public inputs."""
    inputs = find_op(op).inputs
    arrays = [np.ones(shape, tensor.dtypes[0]) for shape, tensor in zip(shapes, inputs, strict=True)]
    arrays = [TERNARY_BYTES if isinstance(tensor, Packed) else a for a, tensor in zip(arrays, inputs, strict=True)]
    statement = lower(op, arrays, parameters, fixed=fixed)
    return {**statement.counts, "depth": max(statement.circuit.depths)}


TERNARY = RANDOM.integers(-1, 2, (8, 8))
TERNARY_BYTES = find_op("pack_ternary")(TERNARY.T.astype(np.int8))
X = np.linspace(-4, 4, 16).reshape(1, 16)
INTEGERS = np.array([[-17, -16, -15, -1, 0, 1, 15, 16, 17, 100, -100, 255, -255, 31, -31, 48]], float)
BYTES = RANDOM.integers(-127, 128, (1, 8)).astype(float)


ALGEBRAIC = [("Mul", ["x", "x"], "s", {}), ("Add", ["s", "o"], "t", {}), ("Sqrt", ["t"], "r", {})]
HALF = {"o": 4.0, "half": 0.5}


def elementwise(
    work: str, form: str, nodes: list, constants: dict, ours: dict, bits: int = SCALE, prove: bool = False
) -> Form:
    arrays = {name: np.array([number]) for name, number in constants.items()}
    return Form(
        f"{work}, 16", f"{form}, {bits} fraction bits", nodes, {"x": X}, arrays, (bits, bits), None, ours, prove
    )


def activations(bits: int) -> list[Form]:
    """Return an activation by a table of a function, and one by a root, whose precision costs rows alone."""
    plus = [*ALGEBRAIC, ("Add", ["x", "r"], "u", {}), ("Mul", ["u", "half"], "y", {})]
    ours, prove = ({"squareplus": squareplus}, True) if bits == SCALE else ({}, False)
    return [
        elementwise("activation", "softplus", [("Softplus", ["x"], "y", {})], {}, {}, bits, prove),
        elementwise("activation", "squareplus", plus, HALF, ours, bits, prove),
    ]


def squareplus() -> dict[str, int]:
    return constraints("squareplus", [(16,)], f=8, offset=256)


def silu() -> dict[str, int]:
    return constraints("silu_gate", [(16,), (16,)], f=8)


def norm() -> dict[str, int]:
    return constraints("bitshift_norm", [(1, 16), (16,)], b=3, s=4)


def linear(**parameters: int) -> dict[str, int]:
    return constraints("ternary_linear", [(1, 8), (1,), (8, 2)], ("e",), **parameters)


def scan_step() -> dict[str, int]:
    shapes = [(1, 1, 4), (1, 1), (1, 4), (1, 4), (1,), (1, 1, 4, 4)]
    return constraints("ssd_scan_step", shapes, k=15, n_max=32000, convex=0, s_v=0, s_h=0, s_y=24)


def integer_state() -> dict[str, np.ndarray]:
    n, h = RANDOM.integers(0, 32001, (1, 1)), RANDOM.integers(-(1 << 20), 1 << 20, (4, 4))
    x, b = RANDOM.integers(-127, 128, (4, 1)), RANDOM.integers(-127, 128, (1, 4))
    return {"n": n.astype(float), "h": h.astype(float), "x": x.astype(float), "b": b.astype(float)}


def forms() -> list[Form]:
    state = integer_state()
    small = {"a": np.array([[0.9]]), "h": RANDOM.normal(size=(4, 4)), "x": RANDOM.normal(size=(4, 1))}
    small |= {"b": RANDOM.normal(size=(1, 4)), "c": RANDOM.normal(size=(4, 1))}
    gate = [("Reciprocal", ["r"], "i", {}), ("Mul", ["x", "i"], "v", {}), ("Mul", ["v", "half"], "w", {})]
    gate += [("Add", ["w", "half"], "g", {}), ("Mul", ["x", "g"], "y", {})]
    step = [("Mul", ["h", "a"], "p", {}), ("MatMul", ["x", "b"], "v", {}), ("Add", ["p", "v"], "g", {})]
    root = [("Mul", ["x", "x"], "s", {}), ("ReduceMean", ["s"], "m", {"axes": [1], "keepdims": 1})]
    root += [("Add", ["m", "o"], "t", {}), ("Sqrt", ["t"], "r", {}), ("Reciprocal", ["r"], "i", {})]
    recurrence = [("Mul", ["h", "n"], "p", {}), ("Mul", ["p", "k"], "q", {}), ("Floor", ["q"], "f", {})]
    return [
        *(form for bits in (SCALE, 11, 14) for form in activations(bits)),
        elementwise("gate", "SiLU", [("Sigmoid", ["x"], "g", {}), ("Mul", ["x", "g"], "y", {})], {}, {}),
        elementwise("gate", "algebraic SiLU", [*ALGEBRAIC, *gate], HALF, {"silu_gate": silu}),
        elementwise("decay", "exp", [("Exp", ["x"], "y", {})], {}, {}),
        elementwise("norm", "RMS norm", [*root, ("Mul", ["x", "i"], "y", {})], {"o": 0.001}, {"bitshift_norm": norm}),
        Form(
            "ternary linear, 8 x 8",
            "integers",
            [("MatMul", ["x", "w"], "y", {})],
            {"x": BYTES},
            {"w": TERNARY},
            (0, 0),
            lambda: BYTES @ TERNARY,
            {"sum alone": lambda: linear(num=1, shift=0), "ternary_linear": lambda: linear(num=20066, shift=17)},
            True,
        ),
        Form(
            "floor shift by 4, 16",
            "integers",
            [("Mul", ["x", "k"], "a", {}), ("Floor", ["a"], "y", {})],
            {"x": INTEGERS},
            {"k": np.array([1 / 16])},
            (0, 4),
            lambda: INTEGERS // 16,
            {"shift_round": lambda: constraints("shift_round", [(16,)], s=4)},
            True,
        ),
        Form(
            "scan step, 4 x 4",
            "h and y, 8 fraction bits",
            [*step, ("MatMul", ["g", "c"], "y", {})],
            small,
            {},
            ours={"ssd_scan_step": scan_step},
        ),
        Form(
            "scan step, 4 x 4",
            "h alone, integers",
            [*recurrence, ("MatMul", ["x", "b"], "v", {}), ("Add", ["f", "v"], "y", {})],
            state,
            {"k": np.array([2.0**-15])},
            (0, 15),
            lambda: (state["h"] * state["n"]) // 32768 + state["x"] @ state["b"],
            {"ssd_scan_step": scan_step},
            True,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="File to write.")
    parser.add_argument("--no-proofs", action="store_true", help="Count rows alone.")
    chosen = parser.parse_args()
    load = round(os.getloadavg()[0], 1)
    rows = []
    for form in forms():
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(form, Path(folder), not chosen.no_proofs))
        print(json.dumps(rows[-1]), flush=True)
        report = {"fraction_bits": SCALE, "load": load, "rows": rows, **environment([], ("ezkl", "onnx"))}
        write_json(chosen.json, report)


if __name__ == "__main__":
    main()
