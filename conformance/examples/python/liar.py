"""A backend that lies: Numba's ops, but for one bit of a "mamba2" block's state at one position of each chunk."""

from mamba_integer.spec import compiled

POSITION = 5


def __getattr__(name):
    return getattr(compiled, name)


def ssd_chunk_scan_step(x, d, b, c, skip, h, open_x, open_d, open_b, fill, *, s_h, s_y):
    y, h, *rest = compiled.ssd_chunk_scan_step(x, d, b, c, skip, h, open_x, open_d, open_b, fill, s_h=s_h, s_y=s_y)
    if fill[0] == POSITION:
        h[0, 0, 0, 0] ^= 1
    return y, h, *rest
