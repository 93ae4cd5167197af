#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draws how near attention comes to the roofline, over the length of the context, with gnuplot.

    bench/plot_attention.py bench/results/attention.svg bench/results/attention_decode.json \
        bench/results/attention_torch.json

reads what bench/attention and bench/peers/torch_attention.py wrote. A column for each codec, a row
for each number of heads, a line for each implementation. Of figures that stand in several files the first
count. --set names other cases that differ in their context: prefill, backward.
"""
import argparse
import itertools
import json
import subprocess
import sys

# In the order of the legend; the colours are those of strata-lm's plots.
COLOURS = {"strata": "#1b6ca8", "strata_bf16q": "#73b3e0", "blocked": "#8d99ae",
           "ggml": "#d1495b", "torch": "#66a182"}
CODECS = ["f32", "bf16", "f16", "q8_0", "int8"]
WIDTH, HEIGHT, TOP = 330, 300, 40  # of a panel, and of the title, in pixels


def read(paths, group):
    """{(codec, (q_heads, kv_heads)): {kernel: {context: fraction}}}"""
    panels = {}
    for path in paths:
        with open(path) as file:
            cases = json.load(file)["benchmarks"]
        for case in cases:
            name = case["run_name"].removesuffix("/real_time").split("/")
            whole = case.get("aggregate_name") == "median" or case.get("repetitions") == 1
            if name[1] != group or not whole:
                continue
            key = dict(part.split(":") for part in name[2:])
            heads = int(key["q_heads"]), int(key["kv_heads"])
            panel = panels.setdefault((key["codec"], heads), {})
            line = panel.setdefault(key["kernel"], {})
            line.setdefault(int(key["context"]), case["fraction_of_roofline"])
    return panels


def label(context):
    return f"{context // 1024}K" if context % 1024 == 0 else str(context)


def script(panels, title, path):
    """A gnuplot script that draws all panels into one SVG."""
    columns = [codec for codec in CODECS if any(codec == c for c, _ in panels)]
    rows = sorted({heads for _, heads in panels}, key=lambda heads: -heads[1])
    contexts = sorted({c for panel in panels.values() for line in panel.values() for c in line})
    out = [f"set terminal svg size {len(columns) * WIDTH},{len(rows) * HEIGHT + TOP} "
           "background rgb 'white'",
           f"set output '{path}'",
           f"set multiplot layout {len(rows)},{len(columns)} title '{title}' noenhanced",
           "set grid", "set key top right noenhanced", "set logscale x 2",
           "set yrange [0:1.25]", "set ytics 0, 0.2, 1",
           f"set xrange [{contexts[0] / 1.2}:{contexts[-1] * 1.2}]",
           "set xtics (" + ", ".join(f"'{label(c)}' {c}" for c in contexts) + ")",
           "set xlabel 'context, tokens'", "set ylabel 'fraction of the roofline'"]
    for heads, codec in itertools.product(rows, columns):
        if (codec, heads) not in panels:
            out.append("set multiplot next")
            continue
        lines = panels[codec, heads]
        out.append(f"set title '{codec}, {heads[0]} query and {heads[1]} KV heads' noenhanced")
        kernels = [k for k in COLOURS if k in lines]
        for kernel in kernels:
            out.append(f"${kernel} << EOD")
            out += [f"{context} {lines[kernel][context]:.4f}" for context in sorted(lines[kernel])]
            out.append("EOD")
        out.append("plot " + ", ".join(
            f"${kernel} with linespoints lw 2 pt 7 ps 0.6 lc rgb '{COLOURS[kernel]}' "
            f"title '{kernel}'" for kernel in kernels))
    return "\n".join(out + ["unset multiplot", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", help="the .svg to write")
    parser.add_argument("figures", nargs="+", help="recorded .json files")
    parser.add_argument("--set", default="decode", dest="group")
    options = parser.parse_args()
    panels = read(options.figures, options.group)
    if not panels:
        sys.exit(f"no median of attention/{options.group} in {', '.join(options.figures)}")
    text = script(panels, f"attention, {options.group}: seconds that the machine needs at best / "
                          "seconds taken", options.picture)
    try:
        subprocess.run(["gnuplot"], input=text, text=True, check=True)
    except FileNotFoundError:
        sys.exit("gnuplot is missing (gnuplot-nox)")


if __name__ == "__main__":
    main()
