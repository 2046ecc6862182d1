#!/usr/bin/env python3
"""Prints the shuffled order that distributed_sampler_test.cpp expects, from the definitions alone:
XXH3 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md, inputs of 4 to 8 bytes), Philox4x32-10 (Salmon et al., SC'11)
and Fisher-Yates. Usage: shuffle_order.py SIZE SEED EPOCH"""

import sys

M64 = 2**64 - 1


def xxh3(data, seed):
    assert 4 <= len(data) <= 8
    little = lambda b: int.from_bytes(b, "little")
    secret = bytes.fromhex("7c01812cf721ad1cded46de9839097db")
    seed ^= int.from_bytes((seed & 0xFFFFFFFF).to_bytes(4, "little"), "big") << 32
    flip = ((little(secret[:8]) ^ little(secret[8:])) - seed) & M64
    h = (little(data[-4:]) + (little(data[:4]) << 32)) ^ flip
    rotl = lambda x, r: (x << r | x >> (64 - r)) & M64
    h ^= rotl(h, 49) ^ rotl(h, 24)
    h = h * 0x9FB21C651E98DF25 & M64
    h ^= (h >> 35) + len(data)
    h = h * 0x9FB21C651E98DF25 & M64
    return h ^ h >> 28


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [p1 >> 32 ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def bits(key, index):
    block = index // 2
    words = philox([block & 0xFFFFFFFF, block >> 32, 0, 0], [key & 0xFFFFFFFF, key >> 32])
    lane = 2 * (index % 2)
    return words[lane + 1] << 32 | words[lane]


def order(size, seed, epoch):
    key = xxh3(epoch.to_bytes(8, "little"), xxh3(b"shuffle", seed))
    samples = list(range(size))
    for last in range(size - 1, 0, -1):
        other = bits(key, last) * (last + 1) >> 64
        samples[last], samples[other] = samples[other], samples[last]
    return samples


print(*order(*map(int, sys.argv[1:])), sep=", ")
