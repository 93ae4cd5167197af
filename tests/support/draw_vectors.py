#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The draw and the samplers, written from the comment at the top of random.hpp and the definitions of
the routes alone. Prints the tables of core/draw_vectors_test.cpp; a trainer in Python may copy it."""
from fractions import Fraction

MASK = 0xFFFFFFFF


def philox(counter, key):
    x, (k0, k1) = list(counter), key
    for _ in range(10):
        even, odd = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(odd >> 32) ^ x[1] ^ k0, odd & MASK, (even >> 32) ^ x[3] ^ k1, even & MASK]
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return x


assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]

WHOLE_MODEL = MASK


def words(key, layer, purpose=0, index=0):
    seed, step, micro_batch, sequence, replica = key
    s = philox([step & MASK, step >> 32, micro_batch, sequence], [seed & MASK, seed >> 32])
    return philox([layer, purpose, replica, index], s[:2])


def coin(w, probability):
    return w[0] < int(Fraction(probability) * 2**32)  # a double is a fraction: this rounds once


def pick(w, n):
    return w[1] * n >> 32


def random_previous(layers, key, probability):
    route = []
    for l in range(layers):
        w = words(key, l)
        route.append(l if l == 0 or coin(w, probability) else pick(w, l))
    return route


def random_window(layers, key, probability, window):
    route = []
    for l in range(layers):
        w, reach = words(key, l), min(window, l)
        route.append(l if l == 0 or coin(w, probability) else l - reach + pick(w, reach))
    return route


def coin_to_groups(layers, key, probability, size):
    return [l if coin(words(key, l), probability) else l - l % size for l in range(layers)]


def random_leader_set(layers, key, retentions):
    retention = retentions[pick(words(key, WHOLE_MODEL), len(retentions))]
    leaders = [0] + [l for l in range(1, layers) if coin(words(key, l), retention)]
    return [max(j for j in leaders if j <= l) for l in range(layers)]


def mixture_of_groups(layers, key, sizes):
    size = sizes[pick(words(key, WHOLE_MODEL), len(sizes))]
    return [l - l % size for l in range(layers)]


KEYS = [  # seed, step, micro_batch, sequence, replica
    (0, 0, 0, 0, 0),
    (1, 0, 0, 0, 0),
    (0, 1, 0, 0, 0),
    (0, 0, 1, 0, 0),
    (0, 0, 0, 1, 0),
    (0, 0, 0, 0, 1),
    (1 << 32, 0, 0, 0, 0),
    (0, 1 << 32, 0, 0, 0),
    (0xFEDCBA9876543210, 0x0123456789ABCDEF, 0xDEADBEEF, 0x00C0FFEE, 0x8BADF00D),
    (2**64 - 1, 2**64 - 1, MASK, MASK, MASK),
]
DRAWS = [  # layer, purpose, index
    (0, 0, 0), (1, 0, 0), (35, 0, 0), (WHOLE_MODEL, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 7),
]


def literal(key):
    named = {KEYS[8]: "busy", KEYS[9]: "all_ones"}
    return named.get(key) or "{%s}" % ", ".join(str(x) if x < 10 else hex(x) for x in key)


def print_words():
    shown = [(key, DRAWS[i % len(DRAWS)]) for i, key in enumerate(KEYS)]
    shown += [(KEYS[8], draw) for draw in DRAWS]
    for key, (layer, purpose, index) in shown:
        w = words(key, layer, purpose, index)
        coins = "".join(str(int(coin(w, p))) for p in (0.1, 0.5, 0.6, 0.9))
        picks = ", ".join(str(pick(w, n)) for n in (1, 2, 7, 255, 2**31 - 1))
        print("    {%s, %s, %d, %d, {{0x%08x, 0x%08x, 0x%08x, 0x%08x}}, \"%s\", {%s}},"
              % (literal(key), "whole_model" if layer == WHOLE_MODEL else layer, purpose, index, *w,
                 coins, picks))


def print_routes():
    samplers = [
        ("previous", lambda k: random_previous(12, k, 0.6)),
        ("window", lambda k: random_window(12, k, 0.3, 3)),
        ("coin_to_groups", lambda k: coin_to_groups(12, k, 0.4, 4)),
        ("leader_set", lambda k: random_leader_set(12, k, [1, 0.5, 0.25])),
        ("mixture", lambda k: mixture_of_groups(12, k, [1, 2, 3, 5])),
    ]
    for name, route in samplers:
        for key in (KEYS[0], KEYS[2], KEYS[3], KEYS[8]):
            print("    {drawn_by::%s, %s, {%s}}," %
                  (name, literal(key), ", ".join(map(str, route(key)))))


if __name__ == "__main__":
    print("// words, coins of .1 .5 .6 .9, picks of 1 2 7 255 2^31-1")
    print_words()
    print("// routes of 12 layers")
    print_routes()
