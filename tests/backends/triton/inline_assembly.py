"""The rule of PTX that a kernel names itself: a result that is written before the last input is read has "=&".

Without it the assembler may give that result and an input one register, so that the input is lost.
"""

import re
from collections.abc import Iterator

CALL = re.compile(r'elementwise_inline_asm "((?:[^"\\]|\\.)*)" \{constraints = "([^"]*)"')
OPERAND = re.compile(r"\$(\d+)")


def calls_of(ttir: str) -> set[tuple[str, str]]:
    """Return code and constraints of each piece of PTX in a kernel's Triton IR."""
    return set(CALL.findall(ttir))


def early_results(code: str, constraints: str) -> Iterator[int]:
    """Yield each result that lacks "=&" though an instruction after the one that writes it reads an input."""
    results = [constraint for constraint in constraints.split(",") if constraint.startswith("=")]
    operands = [{int(number) for number in OPERAND.findall(line)} for line in code.split(";")]
    reads = [i for i, numbers in enumerate(operands) if any(number >= len(results) for number in numbers)]
    for number, constraint in enumerate(results):
        written = [i for i, numbers in enumerate(operands) if number in numbers]
        if "&" not in constraint and written and reads and written[0] < reads[-1]:
            yield number
