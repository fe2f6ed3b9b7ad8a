"""Every output that a dishonest prover can reach: all assignments of a small circuit's wires are tried."""

from collections.abc import Iterator

from mamba_integer.conformance.circuits.constraints import MODULUS, Circuit


def assignments(circuit: Circuit, known: dict[int, int]) -> Iterator[dict[int, int]]:
    """Yield each way to complete an assignment, but for wires that may be any element of the field."""
    known = {0: 1, **known}
    booleans = {next(iter(a)) for a, b, c in circuit.constraints if a == b == c and len(a) == 1}
    while True:
        unknown, progress = False, False
        for a, b, c in circuit.constraints:
            missing = {wire for terms in (a, b, c) for wire in terms} - known.keys()
            left, right, out = (
                None if terms.keys() & missing else sum(f * known[w] for w, f in terms.items()) % MODULUS
                for terms in (a, b, c)
            )
            if left == 0 or right == 0:  # whatever the other factor is
                missing = c.keys() - known.keys()
                left = right = 0
            if not missing:
                if (left * right - out) % MODULUS:
                    return
            elif len(missing) == 1 and not missing & booleans:
                (wire,) = missing
                product = ({}, {}) if left == right == 0 else (a, b)
                factor, rest = relation(known, wire, (*product, c), (left, right, out))
                if factor is None:
                    unknown = True
                elif factor % MODULUS:
                    known[wire] = -rest * pow(factor, -1, MODULUS) % MODULUS
                    progress = True
                elif rest % MODULUS:
                    return
            else:
                unknown = True
        if progress:
            continue
        free = sorted(booleans - known.keys())
        if not free:
            assert not unknown, "the solver has to branch on a wire that is no bit"
            yield known
            return
        for value in (0, 1):
            yield from assignments(circuit, {**known, free[0]: value})
        return


def relation(known, wire, constraint, totals):
    """Return factor and rest of ``factor * wire + rest = 0``; None where the wire is in both factors of a product."""
    parts = []
    for terms, total in zip(constraint, totals, strict=True):
        rest = total if total is not None else sum(f * known[w] for w, f in terms.items() if w != wire)
        parts.append((terms.get(wire, 0), rest))
    (a1, a0), (b1, b0), (c1, c0) = parts
    if a1 and b1:
        return None, None
    return a1 * b0 + b1 * a0 - c1, a0 * b0 - c0
