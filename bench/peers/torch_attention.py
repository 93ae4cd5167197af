#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Puts PyTorch's scaled_dot_product_attention on the CPU beside bench/attention.

    bench/record.py bench/results/attention_torch.json -- python3 bench/peers/torch_attention.py \
        --program build/all/bench/attention --cases '^attention/decode/kernel:strata' --out {}

with a Python that has torch. The two run in turns, as processes of their own, with the same number
of threads, on the shapes that the program's cases name. PyTorch takes K and V in the cases' type,
queries in the same (it knows no other way), and each call in the form that is fastest:

    gqa       enable_gqa=True
    expanded  K and V copied once per query head, before the clock starts
    folded    few rows: those of all query heads of a KV head as rows of one head

Cases of codecs that PyTorch does not have are left out. In the file, seconds are medians over the
rounds of a round's median, "spread" the least and the greatest; ratio_to_torch is torch's seconds /
ours, above 1 where torch is slower.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

TYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
ENOUGH = 128 << 20  # bytes of K and V in turn: 4 times a last-level cache of 32 MiB


def shape_of(name):
    """What a case's name says: "attention/<set>/<key>:<value>/..."."""
    _, group, *parts = name.split("/")
    shape = dict(part.split(":") for part in parts if ":" in part)
    return {"set": group, **{k: int(v) if v.isdigit() else v for k, v in shape.items()}}


def without_kernel(name):
    return "/".join(part for part in name.split("/") if not part.startswith("kernel:"))


# ---- in a process of its own: torch ----

def sets_of(count, make):
    return [make() for _ in range(count)]


def random(torch, shape, dtype):
    return (torch.rand(shape) * 2 - 1).to(dtype)


def mask_of(torch, rows, context):
    """Rows that end where the keys end; is_causal would have them begin where the keys begin."""
    if rows in (1, context):
        return None
    return torch.ones(rows, context, dtype=torch.bool).tril(context - rows)


def forward_forms(torch, s, dtype):
    """Calls on the next K and V of several, by the name of their form."""
    attention = torch.nn.functional.scaled_dot_product_attention
    group, rows = s["q_heads"] // s["kv_heads"], s["rows"]
    kv = (s["batch"], s["kv_heads"], s["context"], s["dim"])
    q = random(torch, (s["batch"], s["q_heads"], rows, s["dim"]), dtype)
    mask = mask_of(torch, rows, s["context"])
    rule = {"attn_mask": mask, "is_causal": rows == s["context"] and rows > 1}
    bytes_of_set = 2 * kv[0] * kv[1] * kv[2] * kv[3] * dtype.itemsize
    pairs = sets_of(-(-ENOUGH // bytes_of_set),
                    lambda: (random(torch, kv, dtype), random(torch, kv, dtype)))

    def in_turn(queries, sets, **options):
        turn = [0]

        def call():
            k, v = sets[turn[0]]
            turn[0] = (turn[0] + 1) % len(sets)
            return attention(queries, k, v, **options)
        return call

    forms = {"gqa": in_turn(q, pairs, enable_gqa=True, **rule)}
    if rows < s["context"]:
        folded = in_turn(q.view(s["batch"], s["kv_heads"], group * rows, s["dim"]), pairs,
                         attn_mask=None if mask is None else mask.repeat(group, 1))
        forms["folded"] = lambda: folded().view(q.shape)
    few = pairs[:-(-ENOUGH // (bytes_of_set * group))]
    copies = [tuple(x.repeat_interleave(group, 1) for x in pair) for pair in few]
    forms["expanded"] = in_turn(q, copies, **rule)
    return forms


def backward_forms(torch, s, dtype):
    attention = torch.nn.functional.scaled_dot_product_attention
    group = s["q_heads"] // s["kv_heads"]

    def leaf(heads):
        x = random(torch, (s["batch"], heads, s["context"], s["dim"]), dtype)
        return x.requires_grad_()
    leaves = q, k, v = leaf(s["q_heads"]), leaf(s["kv_heads"]), leaf(s["kv_heads"])
    d_out = random(torch, q.shape, dtype)
    outs = {"gqa": attention(q, k, v, is_causal=True, enable_gqa=True),
            "expanded": attention(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1),
                                  is_causal=True)}
    return {form: lambda out=out: torch.autograd.grad(out, leaves, d_out, retain_graph=True)
            for form, out in outs.items()}


def seconds_of(call, repetitions, least):
    """Median of repetitions that each last at least so long."""
    call()
    times = []
    for _ in range(repetitions):
        start, calls = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < least or calls == 0:
            call()
            calls += 1
        times.append(passed / calls)
    return statistics.median(times)


def measure(options):
    # Tensors in huge pages, as the program's K and V are.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    import torch
    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    results = {}
    for name in json.load(sys.stdin):
        shape = shape_of(name)
        dtype = getattr(torch, TYPES[shape["codec"]])
        backward = shape["set"] == "backward"
        with torch.set_grad_enabled(backward):
            forms = (backward_forms if backward else forward_forms)(torch, shape, dtype)
            first = {form: call() for form, call in forms.items()}
            for out in first.values():  # the same K and V: a form that is wrong is no peer
                torch.testing.assert_close(out, first["expanded"], rtol=0.05, atol=0.05)
            del first
            seconds = {form: seconds_of(call, options.repetitions, options.min_time)
                       for form, call in forms.items()}
        results[name] = min((t, form) for form, t in seconds.items())
        del forms
    json.dump({"version": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(),
               "cases": results}, sys.stdout)


# ---- in this process: turns ----

def run_program(options):
    """Medians of the program's cases by name, and its context."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "out.json")
        subprocess.run([options.program, f"--threads={options.threads}",
                        f"--benchmark_filter={options.cases}",
                        f"--benchmark_repetitions={options.repetitions}",
                        f"--benchmark_min_time={options.min_time}",
                        "--benchmark_enable_random_interleaving=true",
                        "--benchmark_report_aggregates_only=true",
                        f"--benchmark_out={path}", "--benchmark_out_format=json"],
                       check=True, capture_output=True)
        with open(path) as file:
            figures = json.load(file)
    cases = {}
    for case in figures["benchmarks"]:
        name = case["run_name"].removesuffix("/real_time")
        shape = shape_of(name)
        plain = not {"block", "order", "threads"} & shape.keys()
        if case.get("aggregate_name") == "median" and plain and shape["codec"] in TYPES:
            cases[name] = case
    return cases, figures["context"]


def run_torch(options, names):
    done = subprocess.run([sys.executable, __file__, "--measure", f"--threads={options.threads}",
                           f"--repetitions={options.repetitions}",
                           f"--min_time={options.min_time}"],
                          input=json.dumps(names), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def entry(name, seconds, roofline, **more):
    """As Google Benchmark has it, so that one reader reads both."""
    median = statistics.median(seconds)
    return {"name": name + "_median", "run_name": name, "aggregate_name": "median",
            "seconds": median, "spread": [min(seconds), max(seconds)],
            "roofline_seconds": roofline, "fraction_of_roofline": roofline / median, **more}


def merge(rounds):
    """Rounds of (our cases, torch's) to the file's entries."""
    entries = []
    beside = {}
    for name in rounds[0][0]:
        ours = [cases[name]["seconds"] for cases, _ in rounds]
        roofline = statistics.median(cases[name]["roofline_seconds"] for cases, _ in rounds)
        key = without_kernel(name)
        its = [torch["cases"][key] for _, torch in rounds]
        theirs = [seconds for seconds, _ in its]
        ratios = [b / a for a, b in zip(ours, theirs)]
        entries.append(entry(name, ours, roofline,
                             ratio_to_torch=statistics.median(theirs) / statistics.median(ours),
                             ratio_spread=[min(ratios), max(ratios)]))
        group, rest = key.removeprefix("attention/").split("/", 1)
        beside[key] = entry(f"attention/{group}/kernel:torch/{rest}", theirs, roofline,
                            forms=sorted({form for _, form in its}))
    return entries + list(beside.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/all/bench/attention")
    parser.add_argument("--cases", default="^attention/(decode|batch|draft|prefill|backward)/"
                                           "kernel:(strata|blocked)/codec:(f16|bf16|f32)",
                        help="a filter for the program's cases")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--repetitions", type=int, default=3, help="of a case within a turn")
    parser.add_argument("--min_time", type=float, default=0.1, help="seconds of a repetition")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", default="/dev/stdout")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options)

    rounds = []
    for _ in range(options.rounds):
        cases, context = run_program(options)
        if not cases:
            sys.exit(f"no case that PyTorch can run matches {options.cases}")
        rounds.append((cases, run_torch(options, sorted({without_kernel(name) for name in cases}))))
    torch = rounds[0][1]
    context |= {"torch": torch["version"], "torch_cpu": torch["cpu"], "rounds": options.rounds}
    entries = merge(rounds)
    with open(options.out, "w") as file:
        json.dump({"context": context, "benchmarks": entries}, file, indent=2)
        file.write("\n")
    for case in entries:
        if "ratio_to_torch" in case:
            low, high = case["ratio_spread"]
            print(f"{case['run_name']}: {case['seconds'] * 1e3:.3f} ms, ratio_to_torch "
                  f"{case['ratio_to_torch']:.2f} ({low:.2f} to {high:.2f})", file=sys.stderr)


if __name__ == "__main__":
    main()
