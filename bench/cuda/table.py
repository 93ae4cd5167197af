#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""One table of what was measured on a device: bench/cuda/table.py attention.json append.json

Case, ours, the best peer, the ratio of its seconds to ours (above 1: it is slower; = where the
spread of the rounds has 1 in it), and fractions of what the device reads and of its roofline.
"""
import json
import os
import sys

DEFAULTS = {"kernel": "strata", "codec": "bf16", "q_heads": "32", "kv_heads": "8", "dim": "128",
            "rope": "fused", "sequences": None, "tokens": None, "context": None, "batch": None,
            "rows": None}


def short(name):
    """A case's name without what all have in common."""
    program, *parts = name.split("/")
    shape = dict(part.split(":") for part in parts if ":" in part)
    shape = {k: v for k, v in shape.items() if k not in ("iterations", "repeats")}
    if program == "append":
        words = [f"append {shape['tokens']} tokens"]
    else:
        words = [f"{parts[0]} {shape['batch']}x{shape['context']}"]
        if shape["rows"] not in ("1", shape["context"]):
            words.append(f"rows:{shape['rows']}")
    words += [f"{k}:{v}" for k, v in shape.items() if DEFAULTS.get(k, "") not in (v, None)]
    if program == "append" and "rope" not in shape:
        words.append("no rope")
    return " ".join(words)


def microseconds(seconds):
    return f"{seconds * 1e6:.1f}"


def fraction(case, name):
    return f"{case[name]:.3f}" if name in case else "-"


def row(case):
    ratio = "-"
    if "ratio_to_torch" in case:
        low, high = case["ratio_spread"]
        ratio = f"{case['ratio_to_torch']:.2f}" + ("=" if low <= 1 <= high else "")
    peer = "-"
    if "ratio_to_torch" in case:
        peer = f"{microseconds(case['seconds'] * case['ratio_to_torch'])} {case['best_form']}"
    more = [f"{case['TFLOP_per_second']:.0f} TFLOP/s"] if "TFLOP_per_second" in case else []
    more += [f"{k.removeprefix('ratio_to_')}/this {v:.2f}" for k, v in case.items()
             if k.startswith("ratio_to_") and k != "ratio_to_torch"]
    of_bytes = "fraction_of_copy" if "fraction_of_copy" in case else "fraction_of_read"
    return [short(case["run_name"]), microseconds(case["seconds"]), peer, ratio,
            fraction(case, of_bytes), fraction(case, "fraction_of_roofline"), ", ".join(more)]


def limits(context):
    def number(name, scale):
        return f"{float(context[name]) * scale:.3g}" if name in context else "?"
    return (f"{context.get('device', '?')}: reads {number('read_bytes_per_second', 1e-12)} TB/s, "
            f"copies {number('copy_bytes_per_second', 1e-12)}; L2 reads "
            f"{number('l2_16mb_bytes_per_second', 1e-12)}, "
            f"{number('l2_32mb_bytes_per_second', 1e-12)}, "
            f"{number('l2_45mb_bytes_per_second', 1e-12)} TB/s of 16, 32, 45 MB; bf16 products "
            f"{number('gemm_bf16_flops_per_second', 1e-12)} TFLOP/s (torch "
            f"{number('torch_gemm_flops_per_second', 1e-12)}); a kernel every "
            f"{number('launch_seconds', 1e6)} us")


def ours(figures):
    """Medians, or runs that were not repeated, of ours."""
    for case in sorted(figures["benchmarks"], key=lambda case: case.get("family_index", 0)):
        if "kernel:strata" in case["run_name"] and "seconds" in case and \
                case.get("aggregate_name", "median") == "median":
            yield case


def main():
    rows = [["case", "us", "best peer, us", "ratio", "of read", "of roof", ""]]
    for path in sys.argv[1:]:
        if not os.path.exists(path):
            print(f"no {path}")
            continue
        with open(path) as file:
            figures = json.load(file)
        print(limits(figures.get("context", {})))
        if "made_up" in figures:
            print(f"MADE UP, {figures['made_up']}")
        for sets, why in figures.get("failed", {}).items():
            print(f"failed: {sets}: {why}")
        rows += map(row, ours(figures))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for r in rows:
        cells = [r[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(r[1:-1], widths[1:-1]))]
        print("  ".join([*cells, r[-1]]).rstrip())


if __name__ == "__main__":
    main()
