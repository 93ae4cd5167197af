# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The study's plots, with gnuplot."""
import subprocess
import sys

import pretraining_stages as stages
from judge import Losses
from pretraining_report import bytes_points, crossover_points, means_of

COLOURS = ["#1b6ca8", "#d1495b", "#66a182", "#edae49", "#8d99ae", "#7b4fa3", "#2e4057", "#73b3e0",
           "#b5651d", "#000000"]


NOT_DRAWN = ("rcla.75, fewer leaders", "rcla.5 full, fewer bits", "rcla.5 every:4, fewer bits")


def draw(path, title, labels, lines, more=()):
    """lines: (name, [(x, y, half of an interval or None)])"""
    out = ["set terminal svg size 760,520 background rgb 'white' noenhanced",
           f"set output '{path}'", f"set title '{title}'", "set grid",
           f"set xlabel '{labels[0]}'", f"set ylabel '{labels[1]}'",
           "set key outside bottom center horizontal maxcols 3", *more]
    plots = []
    for number, (name, points) in enumerate(lines):
        out.append(f"$line{number} << EOD")
        out += [f"{x:g} {y:.5f} {half or 0:.5f}" for x, y, half in sorted(points)]
        out.append("EOD")
        colour = COLOURS[number % len(COLOURS)]
        dashes = 1 + number // len(COLOURS)
        plots.append(f"$line{number} with yerrorlines lw 2 pt 7 ps 0.5 dt {dashes} "
                     f"lc rgb '{colour}' title '{name}'")
    if not plots:
        print(f"{path}: nothing to draw yet", file=sys.stderr)
        return
    out.append("plot " + ", ".join(plots))
    try:
        subprocess.run(["gnuplot"], input="\n".join(out) + "\n", text=True, check=True)
    except FileNotFoundError:
        sys.exit("gnuplot is missing (gnuplot-nox)")


def point(x, cell):
    return x, cell["mean"], cell["interval"]


def retention(path, losses, size):
    lines = []
    for arm in ("plain", "rcla.75", "rcla.5", "half", "mix", "cla2", "cla4", "cla8", "rdcla2"):
        means = means_of(losses, arm)
        points = [point(100 / k, means[s]) for k, s in ((1, "full"), (2, "every:2"), (4, "every:4"),
                                                       (8, "every:8")) if s in means]
        if points:
            lines.append((arm, points))
    draw(path, "held-out loss of one checkpoint, by how many of its layers keep a cache",
         ("layers that keep K/V, %", "nats per byte"), lines,
         ("set logscale x 2", "set xtics (12.5, 25, 50, 100)", "set xrange [11:115]"))


def crossover(path, losses, size, main_tokens):
    lines = {}
    for p in crossover_points(losses, size, main_tokens):
        for key, says in (("depth_is_worth", "8 layers are worth over"),
                          ("sharing_costs", "sharing costs, leaders:")):
            lines.setdefault(f"{says} {p['layers']}", []).append(point(p["tokens"], p[key]))
    draw(path, "what depth is worth, and what sharing it costs",
         ("bytes trained", "nats per byte"), list(lines.items()),
         ("set logscale x", "set format x '%.1s%c'"))


def by_bytes(path, losses, size):
    groups = {}
    for group, _, count, cell in bytes_points(losses, size):
        groups.setdefault(group, []).append(point(count, cell))
    keep = [(g, p) for g, p in groups.items() if len(p) > 1 and g not in NOT_DRAWN]
    draw(path, "held-out loss by the bytes of the cache", ("K/V bytes per token", "nats per byte"),
         keep, ("set logscale x 2",))


def draw_all(folder, file, size):
    losses = Losses(file.runs.values())
    retention(f"{folder}/pretraining_retention.svg", losses, size)
    crossover(f"{folder}/pretraining_crossover.svg", losses, size, file.chosen["tokens"])
    by_bytes(f"{folder}/pretraining_bytes.svg", losses, size)
