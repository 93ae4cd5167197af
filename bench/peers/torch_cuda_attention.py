#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Puts PyTorch's attention on a device beside bench/cuda/attention.

    bench/record.py bench/results/cuda_attention.json -- \
        python3 bench/peers/torch_cuda_attention.py \
        --program build/cuda/bench/cuda/attention --out {}

with a Python that has torch. The two take turns, as processes of their own, on the shapes that the
program's cases name; both measure captured graphs of calls (backward: calls) by events, on random
K/V that no cache holds. Each call is made in every form that PyTorch has for it, and the fastest
that gives the right answer counts (torch_cuda_forms.py). Refusals are noted with their reasons.
PyTorch reads K and V in one piece where ours lie in blocks; codecs that it does not have are left
out.

In the file, seconds are medians over the rounds of a round's median, "spread" the least and the
greatest; ratio_to_torch is torch's seconds / ours, above 1 where torch is slower. The file is
written anew after each group of sets: what breaks later takes nothing away.

--dry-run needs no device: it runs all of this on small tensors of the CPU and made-up figures of
ours, and says so in the file.
"""
import argparse
import json
import os
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time

DEFAULT_SETS = "single|large,prefill,backward,ragged|draft|group|head_dim,int8|split"
SUFFIX = re.compile(r"/(iterations:\d+|manual_time)")


def shape_of(name):
    """What a case's name says: "attention/<set>/<key>:<value>/..."."""
    _, group, *parts = name.split("/")
    shape = dict(part.split(":") for part in parts if ":" in part)
    return {"set": group, **{k: int(v) if v.isdigit() else v for k, v in shape.items()}}


def peer_key(name):
    """The shape alone: kernels, blocks, splits, sums that are added to and atomics are ours."""
    return "/".join(part for part in name.split("/")
                    if not re.match(r"(kernel|block|split|adds|dq):", part))


# ---- the two ----

def run_program(options, sets, seconds):
    """Medians of the program's cases by name, and its context."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "out.json")
        subprocess.run([options.program, f"--benchmark_filter=^attention/({sets})/",
                        f"--benchmark_repetitions={options.repetitions}",
                        "--benchmark_enable_random_interleaving=true",
                        "--benchmark_report_aggregates_only=true",
                        f"--benchmark_out={path}", "--benchmark_out_format=json"],
                       check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       timeout=seconds)
        with open(path) as file:
            written = file.read()
    figures = json.loads(written) if written else {"context": {}, "benchmarks": []}  # no such case
    cases, failed = {}, {}
    for case in figures["benchmarks"]:
        name = SUFFIX.sub("", case["run_name"])
        if case.get("error_occurred"):
            failed[name] = case.get("error_message", "")
        elif case.get("aggregate_name") == "median":
            cases[name] = case
    return cases, failed, figures["context"]


def list_cases(options, sets):
    listed = subprocess.run([options.program, "--benchmark_list_tests=true"], check=True,
                            stdout=subprocess.PIPE, text=True).stdout.split()
    return [SUFFIX.sub("", name) for name in listed if re.match(f"attention/({sets})/", name)]


def made_up_cases(options, sets):
    """The program's names with figures that nobody measured."""
    names = list_cases(options, sets)
    case = {"seconds": 1e-3, "roofline_seconds": 5e-4, "fraction_of_read": 0.5}
    return {name: dict(case) for name in names}, {}, {"device": "made up"}


class Torch:
    """A process that keeps what it compiled, and is started again when it dies."""

    def __init__(self, options):
        self.command = [sys.executable,
                        os.path.join(os.path.dirname(__file__), "torch_cuda_forms.py"),
                        f"--flex_seconds={options.flex_seconds}"]
        if options.dry_run:
            self.command.append("--dry-run")
        self.process = None
        self.answers, self.mute_starts = {}, 0

    def ask_once(self, key, number, seconds):
        """The same shape stands in several sets: once a round is enough."""
        shape = shape_of(key)
        backward = shape["set"] == "backward"
        same = json.dumps([number, backward, {**shape, "set": None}])
        if same not in self.answers:
            if seconds < 2:
                return {"error": "out of time"}
            self.answers[same] = self.ask({"shape": shape}, seconds)
        return self.answers[same]

    def ask(self, question, seconds):
        """Its answer, or why there is none."""
        if self.mute_starts >= 3:
            return {"error": "PyTorch's process ended 3 times without an answer"}
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, text=True)
            self.mute_starts += 1
        try:
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()
            if not select.select([self.process.stdout], [], [], seconds)[0]:
                self.stop()
                return {"error": f"no answer within {seconds:.0f} s"}
            answer = self.process.stdout.readline()
            if not answer:
                return {"error": "PyTorch's process ended"}
            self.mute_starts = 0
            return json.loads(answer)
        except (OSError, ValueError) as error:
            self.stop()
            return {"error": str(error)}

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.process = None


# ---- figures ----

def entry(name, seconds, roofline, **more):
    """As Google Benchmark has it, so that one reader reads both."""
    median = statistics.median(seconds)
    return {"name": name + "_median", "run_name": name, "aggregate_name": "median",
            "seconds": median, "spread": [min(seconds), max(seconds)],
            "roofline_seconds": roofline, "fraction_of_roofline": roofline / median, **more}


def best_form(answers):
    """The form with the least median over rounds, its seconds by round, and what was refused."""
    seconds, refused = {}, {}
    for answer in answers:
        refused.update(answer.get("refused", {}))
        if "error" in answer:
            refused["all"] = answer["error"]
        for form, value in answer.get("seconds", {}).items():
            seconds.setdefault(form, []).append(value)
    best = min(seconds, key=lambda form: statistics.median(seconds[form]), default=None)
    return best, seconds, refused


def merge(rounds):
    """Rounds of (our cases, torch's answers by key) to the file's entries."""
    entries, beside = [], {}
    for name in dict.fromkeys(name for cases, _ in rounds for name in cases):
        runs = [cases[name] for cases, _ in rounds if name in cases]
        key = peer_key(name)
        best, seconds, refused = best_form([answers[key] for _, answers in rounds
                                            if key in answers])
        ours = [run["seconds"] for run in runs]
        roofline = statistics.median(run["roofline_seconds"] for run in runs)
        more = {counter: statistics.median(run[counter] for run in runs)
                for counter in ("fraction_of_read", "GB_per_second", "TFLOP_per_second",
                                "fraction_of_gemm", "kv_mb", "kernels", "device_reads")
                if all(counter in run for run in runs)}
        more |= {c: v for c, v in runs[-1].items() if c.startswith("ratio_to_")}
        if best is not None:
            ratios = [b / a for a, b in zip(ours, seconds[best])]
            more |= {"ratio_to_torch": statistics.median(seconds[best]) / statistics.median(ours),
                     "ratio_spread": [min(ratios), max(ratios)], "best_form": best}
            group, rest = key.removeprefix("attention/").split("/", 1)
            its = {form: statistics.median(all_of_it) for form, all_of_it in seconds.items()}
            beside[key] = entry(f"attention/{group}/kernel:torch/{rest}", seconds[best], roofline,
                                best_form=best, forms=its, refused=refused)
        elif refused:
            more["refused"] = refused
        entries.append(entry(name, ours, roofline, **more))
    return entries + list(beside.values())


def one_round(options, torch, sets, number, deadline, failed):
    """Our cases, torch's answers by key, and the program's context."""
    left = deadline - time.monotonic()
    if options.dry_run:
        cases, wrong, context = made_up_cases(options, sets)
    else:
        cases, wrong, context = run_program(options, sets, min(left, options.most_seconds))
    failed.update(wrong)
    answers = {}
    for key in dict.fromkeys(peer_key(name) for name in cases):
        if options.no_torch or shape_of(key)["codec"] != "bf16":
            continue
        left = min(deadline - time.monotonic(), options.most_seconds)
        answers[key] = torch.ask_once(key, number, left)
    return cases, answers, context


def write(options, context, entries, failed):
    figures = {"context": context, "benchmarks": entries}
    if options.dry_run:
        figures = {"made_up": "a dry run without a device: no figure here was measured on one",
                   **figures}
    if failed:
        figures["failed"] = failed
    with open(options.out, "w") as file:
        json.dump(figures, file, indent=2)
        file.write("\n")


def measure(options):
    """All groups of sets, as many times as there are rounds, until the time is up."""
    deadline = time.monotonic() + options.seconds
    torch, context, failed = Torch(options), {}, {}
    rounds = {sets: [] for sets in options.sets.split(",")}
    for number in range(options.rounds):
        for sets, done in rounds.items():
            if deadline - time.monotonic() < 5:
                failed.setdefault(sets, f"out of time in round {number + 1}")
            if sets in failed:
                continue
            print(f"{sets}, round {number + 1}", file=sys.stderr, flush=True)
            try:
                cases, answers, its = one_round(options, torch, sets, number, deadline, failed)
            except subprocess.CalledProcessError as error:
                failed[sets] = f"exit code {error.returncode}: {(error.output or '')[-400:]}"
                continue
            except subprocess.TimeoutExpired as error:
                failed[sets] = f"not done within {error.timeout:.0f} s"
                continue
            except (OSError, ValueError) as error:
                failed[sets] = str(error)
                continue
            done.append((cases, answers))
            context |= its | torch_context(torch, options)
            entries = [e for all_of_it in rounds.values() for e in merge(all_of_it)]
            write(options, context, entries, failed)
    torch.stop()
    for sets, why in failed.items():
        print(f"failed: {sets}: {why}", file=sys.stderr)
    return 0 if any(rounds.values()) else 1


def torch_context(torch, options):
    if options.no_torch:
        return {}
    return {**torch.ask({"about": True}, 60), "rounds": options.rounds}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/cuda/bench/cuda/attention")
    parser.add_argument("--sets", default=DEFAULT_SETS, help="groups of sets, a run of ours each")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each")
    parser.add_argument("--repetitions", type=int, default=5, help="of a case within a turn")
    parser.add_argument("--seconds", type=float, default=600, help="for all of it")
    parser.add_argument("--most_seconds", type=float, default=90, help="for one run or answer")
    parser.add_argument("--flex_seconds", type=float, default=40,
                        help="for compiling FlexAttention, per set")
    parser.add_argument("--out", default="/dev/stdout")
    parser.add_argument("--no-torch", action="store_true", help="ours alone")
    parser.add_argument("--dry-run", action="store_true")
    return measure(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
