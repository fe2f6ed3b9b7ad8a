"""What gradients need between the ops: sums, magnitudes, exponents, stochastic rounding."""

__all__: list[str] = []
