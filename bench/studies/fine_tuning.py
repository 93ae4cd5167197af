#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What fine-tuning with routing gives a finished plain model: question answering, by strategy.

    bench/studies/question_sets.py --out questions
    bench/studies/fine_tuning.py --questions questions --model SmolLM2-135M-Instruct.Q4_1.gguf \\
        --device cuda --runs runs.jsonl
    bench/studies/fine_tuning.py --runs runs.jsonl --report bench/results/fine_tuning.json

Every arm starts from the same model, sees the same questions in the same order (one model on the
union of the sets), and is scored on each set by greedy answers: the paper's protocol
(arXiv:2604.22782; question first with probability 1/2 and three orders of the passages in training,
context first in evaluation). Arms are routings; "lora" in their names: adapters of rank 16 alone.
Strategies keep all, 1/2, 1/3, 1/4 of the layers, and three leader sets that no arm trained on. Of
groups of layers (CLA) a share can be meant of all layers or of the leaders that the group's map has:
arms of groups are asked at these shares of their own leaders as well, and the report has both.
Runs that are in --runs are not run again; a run is one JSON line: its arm, its seed, its losses and
its scores. What was expected is in EXPECTED, written before the first run.
"""
import argparse
import concurrent.futures
import datetime
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))
import record  # noqa: E402
from judge import interval, verdict  # noqa: E402

# In the order in which time is spent.
ARMS = {
    "plain": ["--routing", "self"],
    "rcla.6": ["--routing", "rcla:0.6"],
    "cla2": ["--routing", "cla:2"],
    "cla4": ["--routing", "cla:4"],
    "rcla.4": ["--routing", "rcla:0.4"],
    "sets": ["--routing", "sets:1,0.5,0.33,0.25"],
    "rdcla2": ["--routing", "rdcla:2:0.6"],
    "rdcla4": ["--routing", "rdcla:4:0.6"],
    "taught": ["--routing", "rcla:0.6", "--full-half", "--distill", "0.5"],
    "rcla.6-lora": ["--routing", "rcla:0.6", "--lora", "16"],
    "plain-lora": ["--routing", "self", "--lora", "16"],
}
TRAINED = ["full", "every:2", "every:3", "every:4"]


def unseen(layers):
    """Leader sets that no arm trains on: the first third and the last layer; a front-loaded half;
    every third layer from the second on, and the first."""
    def leaders(kept):
        return "leaders:" + ",".join(map(str, sorted(kept)))
    third = set(range(1, layers, 3)) | {0}
    return [leaders(set(range(layers // 3)) | {layers - 1}),
            f"tail:{layers - layers // 2}", leaders(third)]


def own_shares(arm, layers):
    """Of an arm of groups of K layers: the strategies that keep all, 1/2, 1/3 and 1/4 of the leaders
    of its own map, as far as a leader more than the first is left or all are."""
    kind, *numbers = ARMS[arm][1].split(":")  # of its routing
    if kind not in ("cla", "rdcla"):
        return {}
    group = int(numbers[0])
    return {f"1/{n}" if n > 1 else "all": f"every:{n * group}" for n in (1, 2, 3, 4)
            if n == 1 or n * group < layers}


# (what, arm, strategy, above, other arm, other strategy): the difference in F1, the mean of the
# three sets, is expected to lie above. Written before the runs.
EXPECTED = [
    ("routing costs at most 0.05 at full", "rcla.6", "full", -0.05, "plain", "full"),
    ("plain falls apart at every:2", "plain", "full", 0.2, "plain", "every:2"),
    ("routing beats plain at every:2", "rcla.6", "every:2", 0, "plain", "every:2"),
    ("routing beats plain at every:4", "rcla.6", "every:4", 0, "plain", "every:4"),
    ("CLA@2 wins at its own map", "cla2", "every:2", 0, "rcla.6", "every:2"),
    ("CLA@4 wins at its own map", "cla4", "every:4", 0, "rcla.6", "every:4"),
    ("CLA@2 loses to routing at full", "rcla.6", "full", 0, "cla2", "full"),
    ("CLA@4 loses to routing at every:3", "rcla.6", "every:3", 0, "cla4", "every:3"),
    ("R-CLA beats RD-CLA@2 at every:4", "rcla.6", "every:4", 0, "rdcla2", "every:4"),
    ("more routing, better at every:4", "rcla.4", "every:4", 0, "rcla.6", "every:4"),
    ("a full half that teaches costs less at full", "taught", "full", 0, "rcla.6", "full"),
    ("adapters do worse than all weights at every:2", "rcla.6", "every:2", 0, "rcla.6-lora",
     "every:2"),
]


def parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", required=True, metavar="FILE", help="JSON lines, a run each")
    parser.add_argument("--report", metavar="FILE", help="write tables and JSON, and stop")
    parser.add_argument("--program", default="build/all/examples/lm/strata-lm")
    parser.add_argument("--questions", metavar="FOLDER", help="of question_sets.py")
    parser.add_argument("--model", metavar="FILE", help="what all arms start from")
    parser.add_argument("--name", default="smollm2-135m", help="of the model, in --runs")
    parser.add_argument("--layers", type=int, default=30, help="of the model [%(default)s]")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--ask-device", choices=["cpu", "cuda"], help="[that of --device]")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--context", type=int, default=384)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--answers-only", action="store_true",
                        help="of questions the answers alone count, in every arm")
    parser.add_argument("--lora-lr", type=float, default=2e-3, help="of arms with adapters")
    parser.add_argument("--limit", type=int, default=0, help="questions of a set to ask; 0: all")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time [%(default)s]")
    parser.add_argument("--budget", type=float, default=math.inf,
                        help="seconds; no run starts that would not end in them [unlimited]")
    parser.add_argument("--commit", help="of --program, where there is no git")
    return parser.parse_args()


class Runs:
    """The file: lines that say how runs came about, and a line for each run. Files may be joined."""

    def __init__(self, path):
        self.path, self.studies, self.entries = path, [], []
        self.lock = threading.Lock()
        if os.path.exists(path):
            with open(path) as file:
                for line in file:
                    self.keep(json.loads(line))

    def keep(self, entry):
        if "study" in entry:
            self.studies.append(entry["study"])
        else:
            self.entries.append(entry)

    def has(self, name, arm, seed, lr, steps):
        return any((e["model"], e["arm"], e["seed"], e["lr"], e["steps"]) ==
                   (name, arm, seed, lr, steps) for e in self.entries)

    def note(self, study):
        """That runs come about this way, too."""
        same = ("command", "commit", "machine")
        if not any(all(s[key] == study[key] for key in same) for s in self.studies):
            self.add({"study": study})

    def add(self, entry):
        with self.lock, open(self.path, "a") as file:
            self.keep(entry)
            file.write(json.dumps(entry) + "\n")


def rate_of(options, arm):
    return options.lora_lr if arm.endswith("-lora") else options.lr


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def train(options, arm, seed, out):
    """The steps of the log."""
    run([options.program, "train", "--init", options.model, "--out", out + ".strata",
         "--weights-only", "--log", out + ".log", "--questions",
         os.path.join(options.questions, "train.jsonl"), "--context", str(options.context),
         "--batch", str(options.batch), "--steps", str(options.steps), "--lr",
         str(rate_of(options, arm)), "--seed", str(seed), "--beta2", "0.95", "--clip", "1",
         "--warmup", "0.03", "--decay", "linear", "--threads", "2", "--device", options.device,
         *(["--answers-only"] if options.answers_only else []), *ARMS[arm]])
    with open(out + ".log") as file:
        return [json.loads(line) for line in file]


def ask(options, arm, out):
    """What `strata-lm answer` says of each strategy."""
    asked = dict.fromkeys([*TRAINED, *unseen(options.layers),
                           *own_shares(arm, options.layers).values()])
    command = [options.program, "answer", "--model", out + ".strata", "--questions",
               os.path.join(options.questions, "test.jsonl"), "--json", out + ".json", "--device",
               options.ask_device or options.device, "--max-tokens", "48", "--batch", "64",
               "--strategy", *asked]
    if options.limit:
        command += ["--limit", str(options.limit)]
    run(command)
    with open(out + ".json") as file:
        return json.load(file)["strategies"]


def one_arm(options, arm, seed, folder):
    """Trains and asks; the entry of the file."""
    out = os.path.join(folder, f"{options.name}-{arm}-{seed}")
    start = time.monotonic()
    steps = train(options, arm, seed, out)
    trained = time.monotonic()
    scores = ask(options, arm, out)
    os.remove(out + ".strata")
    return {"model": options.name, "arm": arm, "seed": seed, "lr": rate_of(options, arm),
            "steps": len(steps), "tokens": sum(s["tokens"] for s in steps),
            "last_loss": statistics.fmean(s["loss"] for s in steps[-20:]),
            "train_seconds": round(trained - start, 1),
            "answer_seconds": round(time.monotonic() - trained, 1), "strategies": scores}


def study(options):
    return {"command": " ".join(["bench/studies/fine_tuning.py", *sys.argv[1:]]),
            "commit": options.commit or record.git("rev-parse", "HEAD"),
            "machine": record.machine(), "date": datetime.date.today().isoformat(),
            "device": options.device}


def run_all(options, runs):
    end = time.monotonic() + options.budget
    runs.note(study(options))
    longest, failed = [0.0], []

    def take(job):
        arm, seed = job
        if runs.has(options.name, arm, seed, rate_of(options, arm), options.steps):
            return
        if time.monotonic() + 1.1 * longest[0] > end:
            print(f"{arm}, seed {seed}: no time left", flush=True)
            return
        start = time.monotonic()
        try:
            entry = one_arm(options, arm, seed, folder)
        except RuntimeError as error:
            print(f"{arm}, seed {seed}: {error}", file=sys.stderr, flush=True)
            failed.append(job)
            return
        longest[0] = max(longest[0], time.monotonic() - start)
        runs.add(entry)
        print(f"{arm}, seed {seed}: {f1_line(entry)}; {entry['train_seconds']} s and "
              f"{entry['answer_seconds']} s" +
              (f"; {max(end - time.monotonic(), 0):.0f} s left" if options.budget < math.inf else ""),
              flush=True)

    with tempfile.TemporaryDirectory() as folder:
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(take, [(arm, seed) for seed in options.seeds for arm in options.arms]))
    if failed:
        sys.exit(f"{len(failed)} runs failed")


def mean_f1(entry, strategy):
    for s in entry["strategies"]:
        if s["strategy"] == strategy:
            return statistics.fmean(one["f1"] for one in s["sets"])
    raise KeyError(strategy)


def f1_line(entry):
    return "  ".join(f"{s['strategy'][:12]} {mean_f1(entry, s['strategy']):.3f}"
                     for s in entry["strategies"])


def pairs(entries, arm, strategy, other, other_strategy):
    """Differences of F1 between two arms, of the seeds that have both."""
    of = {(e["arm"], e["seed"]): e for e in entries}
    return [mean_f1(of[arm, seed], strategy) - mean_f1(of[other, seed], other_strategy)
            for a, seed in sorted(of) if a == arm and (other, seed) in of]


def judged(entries):
    rows = []
    for says, arm, strategy, bound, other, other_strategy in EXPECTED:
        values = pairs(entries, arm, strategy, other, other_strategy)
        if not values:
            continue
        mean, half = interval(values)
        rows.append({"expected": says, "difference": round(mean, 4), "above": bound,
                     "interval": None if half is None else round(half, 4), "seeds": len(values),
                     "verdict": verdict(mean, half, ">", bound)})
    return rows


def tables(entries):
    """Mean scores over seeds: per arm, strategy and set."""
    rows = []
    for arm in dict.fromkeys(e["arm"] for e in entries):
        of_arm = [e for e in entries if e["arm"] == arm]
        for i, s in enumerate(of_arm[0]["strategies"]):
            row = {"arm": arm, "strategy": s["strategy"], "leaders": len(s["leaders"]),
                   "retention": s["retention"], "seeds": len(of_arm),
                   "f1": round(statistics.fmean(mean_f1(e, s["strategy"]) for e in of_arm), 4)}
            for j, one in enumerate(s["sets"]):
                row[one["set"]] = {score: round(statistics.fmean(
                    e["strategies"][i]["sets"][j][score] for e in of_arm), 4)
                    for score in ("f1", "em", "rouge_l")}
            rows.append(row)
    return rows


def print_table(name, rows):
    arms = list(dict.fromkeys(r["arm"] for r in rows))
    f1 = {(r["arm"], r["strategy"]): r["f1"] for r in rows}
    print(f"\n{name}: F1, mean of the sets\n{'':28}" + "".join(f"{a:>13}" for a in arms))
    for strategy in dict.fromkeys(r["strategy"] for r in rows):
        print(f"{strategy[:27]:28}" + "".join(
            f"{f1[a, strategy]:13.3f}" if (a, strategy) in f1 else 13 * " " for a in arms))


def by_own_leaders(entries, rows):
    """The other reading of a share: F1 of the arms of groups at shares of their own leaders."""
    layers = {len(s["leaders"]) for e in entries for s in e["strategies"]
              if s["strategy"] == "full"}.pop()
    f1 = {(r["arm"], r["strategy"]): r["f1"] for r in rows}
    return [{"arm": arm, "share": share, "strategy": strategy, "f1": f1[arm, strategy]}
            for arm in dict.fromkeys(r["arm"] for r in rows)
            for share, strategy in own_shares(arm, layers).items() if (arm, strategy) in f1]


def report(options, runs):
    out = {"recorded": runs.studies, "models": []}
    for name in dict.fromkeys(e["model"] for e in runs.entries):
        entries = [e for e in runs.entries if e["model"] == name]
        rows, verdicts = tables(entries), judged(entries)
        print_table(name, rows)
        for v in verdicts:
            half = "" if v["interval"] is None else f" +- {v['interval']:.3f}"
            print(f"{v['verdict']:>12}: {v['expected']} ({v['difference']:+.3f}{half})")
        own = by_own_leaders(entries, rows)
        for o in own:
            print(f"{o['arm']:>12} at {o['share']:>4} of its own leaders, {o['strategy']}: "
                  f"{o['f1']:.3f}")
        out["models"].append({"name": name, "scores": rows, "by_own_leaders": own,
                              "expected": verdicts,
                              "runs": [{k: v for k, v in e.items() if k != "strategies"}
                                       for e in entries]})
    with open(options.report, "w") as file:
        json.dump(out, file, indent=1)
        file.write("\n")


def main():
    options = parse()
    runs = Runs(options.runs)
    if options.report:
        report(options, runs)
    elif not options.questions or not options.model:
        sys.exit("--questions and --model are needed to run; --report to look at runs")
    else:
        run_all(options, runs)


if __name__ == "__main__":
    main()
