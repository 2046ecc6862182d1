"""RandomKey and fill_uniform of the library in numpy, so that inputs need no files."""

import numpy as np


def bits(key, count):
    """The first `count` numbers of RandomKey(key)."""
    low32 = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    blocks = np.arange((count + 1) // 2, dtype=np.uint64)
    c0, c1 = blocks & low32, blocks >> shift
    c2, c3 = np.zeros_like(blocks), np.zeros_like(blocks)
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c0
        p1 = np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (p1 >> shift) ^ c1 ^ np.uint64(k0),
            p1 & low32,
            (p0 >> shift) ^ c3 ^ np.uint64(k1),
            p0 & low32,
        )
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c1 << shift | c0, c3 << shift | c2], axis=1).reshape(-1)[:count]


def uniform(key, shape, low, high, dtype=np.float32):
    """What fill_uniform(tensor, RandomKey(key), low, high) writes."""
    digits = 24 if dtype == np.float32 else 53
    units = (bits(key, int(np.prod(shape))) >> np.uint64(64 - digits)).astype(dtype)
    units *= dtype(2.0**-digits)
    return (dtype(low) + dtype(high - low) * units).reshape(shape)
