#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Puts llama.cpp's serving of a model on the CPU beside `strata-lm bench`.

    bench/record.py bench/results/smollm2_llama_cpp.json -- python3 bench/peers/llama_cpp.py \
        --model SmolLM2-135M-Instruct.BF16.gguf --llama-bench build/bin/llama-bench \
        --strata build/all/examples/lm/strata-lm --out {}

with a llama-bench that llama.cpp's own CMake has built for this machine (Release, GGML_NATIVE=ON),
and a model whose matrices are bf16, which both keep so:

    llama-quantize --allow-requantize SmolLM2-135M-Instruct.Q4_1.gguf \
        SmolLM2-135M-Instruct.BF16.gguf BF16

The two run in turns, as processes of their own, on the same number of threads, K and V in f16: at
each context a prompt of that length, and then decode steps. llama.cpp runs with flash attention and
without, and of each figure the better median counts; both take a prompt 512 rows at a time. What
the tokens are makes no difference to the time.

In the file, figures are medians over the rounds, "spread" the least and the greatest. ratio is ours
/ theirs, of tokens per second and of memory. peak_bytes is what the system says that a process held
at most (ru_maxrss). attention_ms is how much longer a decode step is at a context than at the
shortest, on either side: what grows with the context is attention.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile


def run(command):
    """Its output, and the most memory that it held, in bytes."""
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
        out.seek(0)
        return out.read().decode(), usage.ru_maxrss * 1024


def strata(options, context):
    """{strategy: figures}. Of strategies but full the peak is what the program counts: full runs in
    the same process, before them."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.json")
        _, peak = run([options.strata, "bench", "--model", options.model, "--context", str(context),
                       "--strategy", *options.strategy, "--prefill", "--repeat", str(options.steps),
                       "--codec", "f16", "--threads", str(options.threads), "--weights", "bf16",
                       "--json", path])
        with open(path) as file:
            rows = json.load(file)["tables"][0]["strategies"]
    return {row["strategy"]: {
        "prefill_tokens_per_s": row["prefill_tokens_per_s"], "decode_ms": row["decode_ms"],
        "peak_bytes": peak if row["strategy"] == "full" else row["peak_bytes"],
        "kv_bytes": row["kv_bytes"]} for row in rows}


def llama(options, context, flash):
    """The prompt and the steps after one are two processes, since llama-bench has one figure for
    both where it runs them together; the larger peak counts. Long prompts have no warm-up."""
    common = [options.llama_bench, "-m", options.model, "-t", str(options.threads), "-fa",
              str(flash), "-r", "1", "-ub", "512", "-ctk", "f16", "-ctv", "f16", "-o", "json"]
    if context >= 2048:
        common.append("--no-warmup")
    out, peak = run([*common, "-p", str(context), "-n", "0"])
    prompt = json.loads(out)[0]
    out, more = run([*common, "-p", "0", "-n", str(options.steps), "-d", str(context)])
    step = json.loads(out)[0]
    return {"prefill_tokens_per_s": prompt["avg_ts"],
            "decode_ms": step["avg_ns"] / 1e6 / options.steps, "peak_bytes": max(peak, more),
            "build": f"{step['build_commit']} ({step['build_number']})"}


def middle(samples):
    out = {"median": statistics.median(samples)}
    if len(samples) > 1:
        out["spread"] = [min(samples), max(samples)]
    return out


def summary(rounds):
    out = {key: middle([r[key] for r in rounds])
           for key in ("prefill_tokens_per_s", "decode_ms", "peak_bytes")}
    rates = [1e3 / r["decode_ms"] for r in rounds]
    out["decode_tokens_per_s"] = middle(rates)
    if "kv_bytes" in rounds[0]:
        out["kv_bytes"] = rounds[0]["kv_bytes"]
    return out


def better(kinds):
    """Of each figure the better median of several ways to run."""
    best = {}
    for key, pick in (("prefill_tokens_per_s", max), ("decode_ms", min),
                      ("decode_tokens_per_s", max), ("peak_bytes", min)):
        name = pick(kinds, key=lambda k: kinds[k][key]["median"])
        best[key] = {"way": name, "median": kinds[name][key]["median"]}
    return best


def add_attention(by_context, contexts):
    """How much longer a step is at each context than at the shortest."""
    base = by_context[str(contexts[0])]["decode_ms"]["median"]
    for context in contexts[1:]:
        step = by_context[str(context)]["decode_ms"]["median"]
        by_context[str(context)]["attention_ms"] = step - base


def compare(figures, contexts):
    """The better way of llama.cpp, and ours against it."""
    kinds = figures["llama.cpp"]
    theirs = {str(c): better({way: kinds[way][str(c)] for way in kinds}) for c in contexts}
    for by_context in [theirs, *figures["strata"].values(), *kinds.values()]:
        add_attention(by_context, contexts)
    ratios = {}
    for c, them in theirs.items():
        us = figures["strata"]["full"][c]
        of = {name: us[key]["median"] / them[key]["median"]
              for name, key in (("prefill", "prefill_tokens_per_s"),
                                ("decode", "decode_tokens_per_s"), ("peak_bytes", "peak_bytes"))}
        if "attention_ms" in them:
            of["attention_speed"] = them["attention_ms"] / us["attention_ms"]
        ratios[c] = of
    return {"ratio": ratios, "llama.cpp_better": theirs}


def measure(options):
    """{side: {kind: {context: summary}}}, and which llama.cpp."""
    samples, build = {"strata": {}, "llama.cpp": {}}, ""

    def keep(side, kind, context, one):
        samples[side].setdefault(kind, {}).setdefault(str(context), []).append(one)
        print(f"{side} {kind} {context}: {one}", file=sys.stderr, flush=True)

    for turn in range(options.rounds):
        for context in options.contexts:
            for side in ("strata", "fa", "no_fa")[::1 if turn % 2 == 0 else -1]:
                if side == "strata":
                    for strategy, one in strata(options, context).items():
                        keep("strata", strategy, context, one)
                else:
                    one = llama(options, context, int(side == "fa"))
                    build = one.pop("build")
                    keep("llama.cpp", side, context, one)
    return {side: {kind: {c: summary(rounds) for c, rounds in by_context.items()}
                   for kind, by_context in kinds.items()}
            for side, kinds in samples.items()}, build


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--llama-bench", required=True)
    parser.add_argument("--strata", required=True, help="strata-lm")
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 2048, 8192])
    parser.add_argument("--strategy", nargs="+", default=["full", "every:2", "every:3"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=32, help="decode steps of a measurement")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out")
    options = parser.parse_args()
    if "full" not in options.strategy:
        parser.error("--strategy must have full, which is what is compared")
    options.contexts.sort()
    figures, build = measure(options)
    figures = {"model": os.path.basename(options.model), "weights": "bf16", "kv": "f16",
               "threads": options.threads, "rounds": options.rounds, "steps": options.steps,
               "llama.cpp_build": build, **compare(figures, options.contexts), **figures}
    print(json.dumps(figures["ratio"], indent=2))
    if options.out:
        with open(options.out, "w") as file:
            json.dump(figures, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
