#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What stochastic KV routing costs and gives in pre-training: about 130 runs of `strata-lm train`.

    bench/studies/pretraining.py --prepare-text text            # 54 MB, from Debian's packages
    bench/studies/pretraining.py --text text --plan
    bench/studies/pretraining.py --text text --device cuda --jobs 5 --budget 400 --runs runs.jsonl
    bench/studies/pretraining.py --runs runs.jsonl --report bench/results/pretraining.json

bench/results/pretraining_runs.jsonl are such runs, from which more go on.

The text may be compressed (.xz). First a grid on one seed chooses the learning rate, of plain and
of routed models apart; then --tokens, the length of most runs, is the largest for which all runs
fit the budget by the speed just seen. Stages, in the order in which time is spent: robust,
specialist, tricks, bytes, crossover, scale, little. pretraining_stages.py says what is in them,
pretraining_claims.py what each was expected to show before it ran. Runs that are in --runs are not
run again. No run starts that would not end in the budget; what has not ended then is stopped and
lost. A step of `distilled` sees half as much text as the others', twice. --report needs gnuplot and
writes the plots beside its file.
"""
import argparse
import datetime
import json
import lzma
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(FOLDER))
import mixed_text  # noqa: E402
import record  # noqa: E402
import pretraining_stages as stages  # noqa: E402
from pretraining_queue import Estimates, Queue, RunFile  # noqa: E402


FEWER_JOBS = 3  # enough that one computes while others start or are scored


def parse():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare-text", metavar="FILE", help="write the text and stop")
    parser.add_argument("--text", metavar="FILE", help="what to train on; .xz is unpacked")
    parser.add_argument("--runs", metavar="FILE", default="build/pretraining/runs.jsonl",
                        help="JSON lines, a run each [%(default)s]")
    parser.add_argument("--program", default="build/all/examples/lm/strata-lm")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time [%(default)s]")
    parser.add_argument("--long-jobs", type=int, default=2,
                        help="of which so many may be long ones, started first [%(default)s]")
    parser.add_argument("--codec-jobs", type=int, default=1,
                        help="besides, `strata-lm bits` on models, on the CPU [%(default)s]")
    parser.add_argument("--threads", type=int, default=2, help="of a run [%(default)s]")
    parser.add_argument("--budget", type=float, default=1e9, help="seconds [unlimited]")
    parser.add_argument("--tokens", type=int, help="bytes that most runs train on [by the budget]")
    parser.add_argument("--stages", nargs="+", choices=stages.STAGES[1:], default=stages.STAGES[1:])
    parser.add_argument("--commit", help="of --program, where there is no git")
    parser.add_argument("--small", action="store_true", help="tiny shapes, to try the script")
    parser.add_argument("--plan", action="store_true", help="say what would run, and stop")
    parser.add_argument("--report", metavar="FILE", help="write tables, JSON and plots, and stop")
    return parser.parse_args()


def output_of(*command):
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""


def study(options, size):
    """How the runs came about, noted before the first."""
    with open(options.text, "rb") as file:
        size_of_text = len(file.read())
    return {"command": " ".join(["bench/studies/pretraining.py", *sys.argv[1:]]),
            "commit": options.commit or output_of("git", "-C", FOLDER, "rev-parse", "HEAD"),
            "machine": record.machine(), "date": datetime.date.today().isoformat(), "small": options.small,
            "device": options.device, "text_bytes": size_of_text, "context": size.context,
            "bytes_per_step": size.context * size.batch, "shape": vars(size.base),
            "scale_shape": vars(size.scale), "validated_bytes": size.validate_tokens}


def open_text(options):
    """Unpacks the text where it is packed, and cuts off what the stage `little` trains on."""
    if options.text.endswith(".xz"):
        plain = os.path.join(options.scratch, "text")
        with lzma.open(options.text) as packed, open(plain, "wb") as file:
            shutil.copyfileobj(packed, file)
        options.text = plain
    options.little_text = os.path.join(options.scratch, "little")
    with open(options.text, "rb") as text, open(options.little_text, "wb") as file:
        file.write(text.read(stages.LITTLE_BYTES))


def chosen_rates(file, size):
    """Of each family the rate with the least mean loss over DEPTHS; of plain, at full."""
    rates = {}
    for family, judged in (("plain", ("full",)), ("rcla.5", stages.DEPTHS)):
        tried = {run.rate: file.runs[run.id]["loss"] for run in stages.rate_runs(size)
                 if run.arm.name == family and run.id in file.runs}
        if not tried:
            sys.exit(f"no learning rate of {family} could be tried; see {file.path}")
        rates[family] = min(tried, key=lambda rate: sum(tried[rate][s] for s in judged))
    return rates


def chosen_tokens(options, size, queue):
    """The largest length for which all runs that are not spare fit the time, a tenth kept back."""
    if options.tokens:
        return options.tokens
    for tokens in size.tokens:
        if queue.work_left(stages.runs(size, tokens)) <= 0.9 * queue.time_left():
            return tokens
    return size.tokens[-1]


def try_rates(options, size, queue):
    """Runs the grid: its first run alone, the others together, which tells whether that gains
    anything. A device gives processes turns; where these cost more than they fill, fewer run."""
    alone, *others = stages.rate_runs(size)
    queue.run_all([alone])
    queue.estimates.done.clear()
    queue.run_all(others)
    times = [queue.file.runs[run.id]["step_seconds"] for run in others if run.id in queue.file.runs]
    if alone.id not in queue.file.runs or not times or options.jobs <= FEWER_JOBS:
        return
    gain = options.jobs * queue.file.runs[alone.id]["step_seconds"] / statistics.median(times)
    print(f"{options.jobs} runs at a time do {gain:.2f} times the work of one", file=sys.stderr)
    if gain < 1.2:
        queue.set_jobs(FEWER_JOBS)


def print_plan(options, size):
    estimates = Estimates(size, options.jobs)
    listed = stages.rate_runs(size) + stages.runs(size, options.tokens or size.tokens[3 % len(
        size.tokens)])
    total = {}
    for run in listed:
        print(f"{run.stage:<10} {run.id:<26} {run.tokens * run.arm.length / 1e6:8.2f}M bytes "
              f"{run.steps(size):6d} steps {estimates.seconds(run):7.1f} s"
              + (" (spare)" if run.spare else ""))
        stage = total.setdefault((run.stage, run.spare), [0, 0.0])
        stage[0] += 1
        stage[1] += estimates.seconds(run) / options.jobs
    for (stage, spare), (count, seconds) in total.items():
        print(f"{stage + (' (spare)' if spare else ''):<18} {count:3d} runs {seconds:6.0f} s")
    need = sum(s for (_, spare), (_, s) in total.items() if not spare)
    print(f"{need:.0f} s at {options.jobs} at a time, before any speed has been measured")


def report(options, size, file):
    from pretraining_curves import draw_all
    from pretraining_report import figures, text
    tables = text(file, size)
    print(tables, end="")
    how = {k: file.study[k] for k in ("command", "commit", "machine", "date")}
    how["commit"] = output_of("git", "-C", FOLDER, "rev-parse", how["commit"]) or how["commit"]
    if file.continued:
        how["continued"] = file.continued
    with open(options.report, "w") as out:
        json.dump({"recorded": how, **figures(file, size)}, out, indent=1, ensure_ascii=False)
        out.write("\n")
    with open(options.report.removesuffix(".json") + ".txt", "w") as out:
        out.write(tables)
    draw_all(os.path.dirname(options.report) or ".", file, size)


def train(options, size, file):
    with tempfile.TemporaryDirectory(prefix="pretraining-") as options.scratch:
        open_text(options)
        now = study(options, size)
        if file.study is None:
            file.add({"study": now})
        elif any(now[k] != (file.continued or [file.study])[-1][k] for k in ("commit", "machine")):
            file.add({"continued": {k: now[k] for k in ("command", "commit", "machine", "date",
                                                        "device")}})
        queue = Queue(options, size, file)
        if file.chosen:
            queue.set_jobs(min(options.jobs, file.chosen["jobs"]))
        else:
            try_rates(options, size, queue)
            rates = chosen_rates(file, size)
            file.add({"chosen": {"rate": rates, "tokens": chosen_tokens(options, size, queue),
                                 "jobs": options.jobs}})
            print(f"chosen: {file.chosen}", file=sys.stderr)
        listed = [run for run in stages.runs(size, file.chosen["tokens"])
                  if run.stage in options.stages]
        queue.run_all(listed)
        done = sum(run.id in file.runs for run in listed)
        print(f"{done} of {len(listed)} runs are in {file.path}", file=sys.stderr)


def main():
    options = parse()
    if options.prepare_text:
        mixed_text.prepare(options.prepare_text)
        return
    file = None if options.plan else RunFile(options.runs)
    small = options.small or bool(file and file.study and file.study["small"])
    size = stages.SMALL if small else stages.FULL
    if options.plan:
        print_plan(options, size)
    elif options.report:
        report(options, size, file)
    else:
        if not options.text:
            sys.exit("--text is missing (--prepare-text writes it)")
        if file.study and file.study["small"] != options.small:
            sys.exit(f"{options.runs} is of another size; give another --runs")
        train(options, size, file)


if __name__ == "__main__":
    main()
