"""The sums of a training step: gradients and losses, added over its passes and over the ranks."""

from typing import Any

import numpy as np

from .backward import Pass


class BatchSums:
    """Gradients, their largest magnitudes and losses, summed over the passes of a step and then over the ranks."""

    def __init__(self, run: Any):
        self.run = run
        self.gradients: dict[str, Any] = {}
        narrow = bool(run.at_once("lion_updates"))  # which takes gradients as int32 too
        self.sums = run.exchange.sums(narrow) if run.exchange.ranks > 1 else None
        self.last = False  # whether this is the last pass, whose gradients complete the sums
        self.scales: dict[str, int] = {}
        self.unread: list[tuple[list[int], Any, Any]] = []  # places among the largest, these and losses, of each pass
        self.largest = np.zeros(len(run.gradient_names), np.int64)
        self.totals = np.zeros(2, np.int64)

    def take(self, name: str, gradient: Any) -> None:
        """Add a gradient of a pass; in the last pass, let the other ranks have the sum while the pass goes on."""
        held = self.gradients.pop(name, None)
        total = gradient if held is None else self.run.kernels.gradient_add(held, gradient)
        self.gradients[name] = total
        if self.sums and self.last:
            self.sums.add(total)

    def add(self, backward_pass: Pass, losses: Any) -> None:
        run = self.run
        self.scales |= backward_pass.scales
        places = [run.streams[name] for name in backward_pass.seen]
        self.unread.append((places, run.join(backward_pass.largest, 0), losses))

    def read(self) -> None:
        """Wait for the passes."""
        for places, magnitudes, losses in self.unread:
            self.largest[places] = np.maximum(self.largest[places], self.run.store(magnitudes))
            losses = self.run.store(losses)
            self.totals += losses.sum(dtype=np.int64), losses.size
        self.unread.clear()

    def exchange(self) -> None:
        """Take the gradients of all ranks, which may be wrong until they have settled."""
        if self.sums:
            self.gradients = dict(zip(self.gradients, self.sums.totals(), strict=True))

    def settled(self) -> bool:
        """Wait for the passes and the other ranks; return whether the gradients were right: else they are now."""
        self.read()
        if self.sums is None:
            return True
        numbers, right = self.sums.settle(np.concatenate([self.largest, self.totals]))
        self.largest, self.totals = numbers[:, :-2].max(0), numbers[:, -2:].sum(0)
        if not right:
            self.exchange()
        self.sums = None
        return right
