"""Formats of vectors in a folder, and of a stranger's answers there: one class for each format."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mamba_integer import spec
from mamba_integer.backends.files.atomic import write_json
from mamba_integer.backends.files.regular import open_regular, read_regular, regular_size
from mamba_integer.backends.files.strict_json import parse_json
from mamba_integer.backends.programs import WireError
from mamba_integer.backends.programs.wire import (
    INLINE,
    LONGEST_LINE,
    PROTOCOL,
    format_line,
    format_parameters,
    parse_line,
    parse_tensor,
    shown,
)
from mamba_integer.spec.bounds import DTYPE_RANGE
from mamba_integer.spec.contract import find_op

from ..engine.vector import Vector, VectorError, parse_vector

Answer = Sequence[np.ndarray] | str  # the results, or the reason for which there are none
MOST_HEADER = 10_000  # bytes of the header of a .npy file
START = {"cmd": "start", "protocol": PROTOCOL, "spec_version": spec.SPEC_VERSION}
CALL = "call.json"
HEX_LINE = 64  # bytes that a word of a .hex file may take, with its comment


class Format:
    """A layout of vectors in files, beside the lines of the protocol, which every layout has."""

    def write(self, folder: Path, op: str, vectors: Sequence[Vector]) -> None:
        raise NotImplementedError

    def verify(self, folder: Path, op: str, vectors: Sequence[Vector]) -> None:
        """Raise VectorError where a written file was changed."""
        raise NotImplementedError

    def answers(self, folder: Path, op: str, vectors: Sequence[Vector]) -> Iterator[tuple[int, Answer]]:
        """Yield the position of each vector that has an answer, and the answer."""
        raise NotImplementedError


class JsonLines(Format):
    """The lines of the protocol: requests to feed to a program, and the right answers."""

    def read(self, folder: Path, op: str) -> list[Vector]:
        """Return the vectors of the requests, which may be a stranger's."""
        vectors: list[Vector] = []
        for fields in self._requests(folder, op)[1:]:
            stems = {f"{op}.files/{len(vectors)}.{tensor.name}" for tensor in find_op(op).inputs}
            vector = parse_vector(fields, {stem: folder / stem for stem in stems})
            if vector.op != op or fields.get("seq") != len(vectors):
                raise VectorError(f"{op}.requests.jsonl: vector {len(vectors)} is of another op or number")
            vectors.append(vector)
        return vectors

    def verify(self, folder, op, vectors):
        first, *runs = self._requests(folder, op)
        if first != START:
            raise VectorError(f"{op}.requests.jsonl: line 1: found {shown(first)}, allowed {START}")
        for i, (fields, vector) in enumerate(zip(runs, vectors, strict=True)):
            told = {name: fields.get(name) for name in fields if name not in ("parameters", "inputs")}
            if told != {"cmd": "run", "seq": i, "op": op, "outputs": self._forms(op, i, vector)}:
                raise VectorError(f"{op}.requests.jsonl: line {i + 2} asks for other results, or for something else")
        path = folder / f"{op}.expected.jsonl"
        lines = list(lines_of(path))
        if len(lines) != len(vectors):
            raise VectorError(f"{path.name}: {len(lines)} lines, want {len(vectors)}")
        for i, (line, vector) in enumerate(zip(lines, vectors, strict=True)):
            try:
                results = self._results(folder, op, i, parse_line(line), "want")
            except WireError as error:
                raise VectorError(f"{path.name}: {error}") from error
            if isinstance(results, str) or not all(map(same, results, vector.results)):
                raise VectorError(f"{path.name}: the results of vector {i} aren't those of the specification")

    def write(self, folder, op, vectors):
        requests, expected = [format_line(START)], []
        for i, vector in enumerate(vectors):
            call = vector.call(folder, f"{op}.files/{i}.")
            requests.append(format_line(call | {"cmd": "run", "seq": i, "outputs": self._forms(op, i, vector)}))
            expected.append(format_line({"seq": i, "outputs": vector.outputs(folder, f"{op}.files/{i}.want.")}))
        (folder / f"{op}.requests.jsonl").write_bytes(b"".join(requests))
        (folder / f"{op}.expected.jsonl").write_bytes(b"".join(expected))

    def answers(self, folder, op, vectors):
        path = folder / f"{op}.answers.jsonl"
        for line in lines_of(path) if path.exists() else ():
            try:
                fields = parse_line(line)
                if "seq" not in fields and "name" in fields:  # the answer to start
                    continue
                seq = fields.get("seq")
                if type(seq) is not int or not 0 <= seq < len(vectors):
                    raise WireError(f"seq {shown(repr(seq))}, want 0 to {len(vectors) - 1}")
                yield seq, self._results(folder, op, seq, fields, "got")
            except WireError as error:
                raise VectorError(f"{path.name}: {error}") from error

    def _requests(self, folder: Path, op: str) -> list[dict[str, Any]]:
        try:
            requests = [parse_line(line) for line in lines_of(folder / f"{op}.requests.jsonl")]
        except WireError as error:
            raise VectorError(f"{op}.requests.jsonl: {error}") from error
        return requests or [{}]

    def _forms(self, op: str, i: int, vector: Vector) -> list[dict[str, Any]]:
        """Return what a request tells of the results that it asks for."""
        forms = []
        for tensor, array in zip(find_op(op).outputs, vector.results, strict=True):
            form = {"name": tensor.name, "dtypes": array.dtype.name, "shape": list(array.shape)}
            forms.append(form | ({"path": f"{op}.files/{i}.got.{tensor.name}"} if array.size > INLINE else {}))
        return forms

    def _results(self, folder: Path, op: str, seq: int, fields: dict[str, Any], infix: str) -> Answer:
        for kind in ("skipped", "errored"):
            if isinstance(fields.get(kind), str):
                return f"{kind}: {shown(fields[kind])}"
        outputs, wanted = fields.get("outputs"), find_op(op).outputs
        if not isinstance(outputs, list) or len(outputs) != len(wanted):
            raise WireError(f"seq {seq} has outputs {shown(repr(outputs))}, want {len(wanted)}")
        paths = [f"{op}.files/{seq}.{infix}.{tensor.name}" for tensor in wanted]
        files = {path: folder / path for path in paths}
        return [parse_tensor(one, tensor.name, files) for one, tensor in zip(outputs, wanted, strict=True)]


def call_fields(vector: Vector) -> dict[str, Any]:
    return {"op": vector.op, "parameters": format_parameters(vector.parameters)}


def check_call(folder: Path, path: Path, vector: Vector) -> None:
    """Raise VectorError unless a file has the op and the parameters of a vector, in any order."""
    try:
        fields = parse_json(read_regular(path, LONGEST_LINE))
    except ValueError as error:
        raise VectorError(f"{path.relative_to(folder)}: not JSON: {error}") from error
    if fields != call_fields(vector):
        raise VectorError(f"{path.relative_to(folder)}: found {shown(fields)}, allowed {call_fields(vector)}")


def check_text(folder: Path, path: Path, text: str) -> None:
    """Raise VectorError unless a file has this text, of ASCII characters."""
    if regular_size(path) != len(text) or path.read_bytes() != text.encode():
        raise VectorError(f"{path.relative_to(folder)}: other text than that of the specification's vectors")


def reason_of(error: OSError | ValueError) -> str:
    return shown(getattr(error, "strerror", None) or error)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


class PerCase(Format):
    """A folder for each vector with a file for each tensor."""

    suffix = ""

    def verify(self, folder, op, vectors):
        for i, vector in enumerate(vectors):
            check_call(folder, folder / op / str(i) / CALL, vector)
            for name, text in self.call_files(vector).items():
                check_text(folder, folder / op / str(i) / name, text)
            for name, array in files_of(vector).items():
                path = folder / op / str(i) / f"{name}{self.suffix}"
                try:
                    wrong = not same(self.read_array(path, array), array)
                except (OSError, ValueError) as error:
                    raise VectorError(f"{path.relative_to(folder)}: {reason_of(error)}") from error
                if wrong:
                    raise VectorError(f"{path.relative_to(folder)}: other integers than those of the specification")

    def write(self, folder, op, vectors):
        for i, vector in enumerate(vectors):
            place = folder / op / str(i)
            place.mkdir(parents=True, exist_ok=True)
            write_json(place / CALL, call_fields(vector))
            for name, text in self.call_files(vector).items():
                (place / name).write_text(text)
            for name, array in files_of(vector).items():
                self.write_array(place / f"{name}{self.suffix}", array)

    def answers(self, folder, op, vectors):
        for i, vector in enumerate(vectors):
            paths = [folder / op / str(i) / f"{tensor.name}.got{self.suffix}" for tensor in find_op(op).outputs]
            if not any(path.exists() for path in paths):
                continue
            arrays = []
            for path, want in zip(paths, vector.results, strict=True):
                try:
                    arrays.append(self.read_array(path, want))
                except (OSError, ValueError) as error:
                    raise VectorError(f"{path.relative_to(folder)}: {reason_of(error)}") from error
            yield i, arrays

    def write_array(self, path: Path, array: np.ndarray) -> None:
        raise NotImplementedError

    def call_files(self, vector: Vector) -> dict[str, str]:
        """Return the texts, by the names of their files, that a reader of this format needs beside the arrays."""
        return {}

    def read_array(self, path: Path, want: np.ndarray) -> np.ndarray:
        """Read an answer; the file may hold anything, and is read up to the size of the right answer."""
        raise NotImplementedError


def files_of(vector: Vector) -> dict[str, np.ndarray]:
    """Return the arrays of a vector by the names of their files."""
    contract = find_op(vector.op)
    inputs = {tensor.name: array for tensor, array in zip(contract.inputs, vector.arrays, strict=True)}
    return inputs | {f"{t.name}.want": array for t, array in zip(contract.outputs, vector.results, strict=True)}


class Npy(PerCase):
    """NumPy's own files."""

    suffix = ".npy"

    def write_array(self, path, array):
        np.save(path, array, allow_pickle=False)

    def read_array(self, path, want):
        if (size := regular_size(path)) > want.nbytes + MOST_HEADER:
            raise ValueError(f"the file has {size} bytes, want {want.nbytes} and a header")
        with open_regular(path) as file:
            try:
                read = np.lib.format.read_array_header_2_0
                if np.lib.format.read_magic(file) == (1, 0):
                    read = np.lib.format.read_array_header_1_0
                shape, fortran, dtype = read(file, max_header_size=MOST_HEADER)
            except Exception as error:  # NumPy parses a header as a Python literal, which may fail in many ways
                raise ValueError(f"no header of a .npy file: {error}") from error
            if shape != want.shape or dtype != want.dtype:
                raise ValueError(f"{dtype}{list(shape)}, want {want.dtype}{list(want.shape)}")
            data = file.read()
        if len(data) != want.nbytes:
            raise ValueError(f"{len(data)} bytes of integers, want {want.nbytes}")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


class Hex(PerCase):
    """One word of two's complement per line, as ``$readmemh`` reads it.

    ``parameters`` and ``shapes`` have words of 64 bits. ``shapes`` has the sizes of every input, one after the other.
    """

    suffix = ".hex"

    def write_array(self, path, array):
        path.write_text(hex_words(array.ravel().tolist(), 8 * array.dtype.itemsize))

    def call_files(self, vector):
        sizes = [size for array in vector.arrays for size in array.shape]
        values = [vector.parameters[p.name] for p in find_op(vector.op).parameters]
        return {"parameters.hex": hex_words(values, 64), "shapes.hex": hex_words(sizes, 64)}

    def read_array(self, path, want):
        if (size := regular_size(path)) > HEX_LINE * (want.size + 16):
            raise ValueError(f"the file has {size} bytes, too many for {want.size} words")
        words = " ".join(line.split("//")[0] for line in path.read_text("ascii", "replace").split("\n")).split()
        bits, holds = 8 * want.dtype.itemsize, DTYPE_RANGE[want.dtype.name]
        if len(words) != want.size:
            raise ValueError(f"{len(words)} words, want {want.size}")
        values = []
        for i, word in enumerate(words):
            if not set(word) <= set("0123456789abcdefABCDEF") or len(word) > bits // 4:
                raise ValueError(f"word {i} is {shown(word)!r}, want {bits // 4} hexadecimal digits")
            value = int(word, 16)
            values.append(value if value <= holds.high else value - (1 << bits))
        return np.array(values, want.dtype).reshape(want.shape)


def hex_words(values: Sequence[int], bits: int) -> str:
    return "".join(f"{value & ((1 << bits) - 1):0{bits // 4}x}\n" for value in values)


class CHeader(Format):
    """Arrays of literals for a program that reads no files; its answers can't be read back."""

    def write(self, folder, op, vectors):
        (folder / f"{op}.h").write_text(self.text(op, vectors))

    def verify(self, folder, op, vectors):
        check_text(folder, folder / f"{op}.h", self.text(op, vectors))

    def text(self, op: str, vectors: Sequence[Vector]) -> str:
        lines = [f"/* Vectors of {op}, specification {spec.SPEC_VERSION}. */", "#include <stdint.h>", ""]
        lines.append(f"#define {op.upper()}_VECTORS {len(vectors)}")
        for i, vector in enumerate(vectors):
            lines.append("")
            for parameter in find_op(op).parameters:
                value = vector.parameters[parameter.name]
                literal = f"UINT64_C({value})" if value > DTYPE_RANGE["int64"].high else c_literal(value)
                lines.append(f"#define {op.upper()}_{i}_{parameter.name.upper()} {literal}")
            named = [(tensor.name, array) for tensor, array in zip(find_op(op).inputs, vector.arrays, strict=True)]
            right = zip(find_op(op).outputs, vector.results, strict=True)
            named += [(f"want_{tensor.name}", array) for tensor, array in right]
            for name, array in named:
                values = ", ".join(map(c_literal, array.ravel().tolist())) or "0"
                shape = "".join(f"[{size}]" for size in array.shape) or "a single integer"
                comment = f"/* {shape}{', empty' if not array.size else ''} */"
                lines.append(f"static const {array.dtype.name}_t {op}_{i}_{name}[] = {{{values}}}; {comment}")
        return "\n".join(lines) + "\n"

    def answers(self, folder, op, vectors):
        return iter(())


def c_literal(value: int) -> str:
    """Return an integer as C reads it: the least int64 has no literal of its own."""
    return f"({c_literal(value + 1)} - 1)" if value == DTYPE_RANGE["int64"].low else f"INT64_C({value})"


LINES = JsonLines()
FORMATS: dict[str, Format] = {"jsonl": LINES, "npy": Npy(), "hex": Hex(), "c-header": CHeader()}


def lines_of(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file without reading more of one than a line may have."""
    with open_regular(path) as file:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise VectorError(f"{path.name}: a line of more than {LONGEST_LINE} bytes")
            yield line.rstrip(b"\r\n")
