# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Trains the runs of a study, several at a time, within a budget of seconds.

Everything that is known is in one file of JSON lines, appended to after each run, so that a study
that was cut off goes on where it was: of a machine that is given back only few files return.
"""
import json
import os
import subprocess
import sys
import time

import pretraining_stages as stages

LOOK_SECONDS = 0.1       # between two looks at what runs
FIRST_SPEED = 2.0e6      # tokens of the base shape per second and machine, before one was measured
FIRST_OVERHEAD = 3.0     # seconds of a run besides its steps, likewise


class RunFile:
    """The JSON lines: one "study", one "chosen", for each run one "run", and a "continued" where runs
    that follow are of another program or machine."""

    def __init__(self, path):
        self.path = path
        self.study, self.chosen, self.runs, self.continued = None, None, {}, []
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if os.path.exists(path):
            with open(path) as file:
                for line in file:
                    self._take(line)

    def _take(self, line):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # cut off while it was written
            return
        self.study = entry.get("study", self.study)
        self.chosen = entry.get("chosen", self.chosen)
        if "continued" in entry:
            self.continued.append(entry["continued"])
        if "run" in entry and "failed" not in entry:
            self.runs[entry["run"]] = entry
        if "codecs_of" in entry:
            self.runs[entry["codecs_of"]]["codecs"] = entry["codecs"]

    def add(self, entry):
        line = json.dumps(entry, separators=(",", ":"))
        with open(self.path, "a") as file:
            file.write(line + "\n")
        self._take(line)


class Job:
    """A process of `strata-lm train`, or of `strata-lm bits` on the model that one left."""

    def __init__(self, name, command, folder, estimate, run=None, model=None):
        self.name, self.command, self.run, self.model = name, command, run, model
        self.estimate, self.begin = estimate, time.monotonic()
        self.log = os.path.join(folder, name + ".log")
        with open(os.path.join(folder, name + ".err"), "w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors,
                                            stdin=subprocess.DEVNULL)
        self.errors = errors.name

    def seconds(self):
        return time.monotonic() - self.begin

    def left(self):
        return max(self.estimate - self.seconds(), 0)

    def complaint(self):
        with open(self.errors, errors="replace") as file:
            last = file.read().replace("\r", "\n").strip().splitlines()[-1:]
        return f"exit code {self.process.returncode}: " + "".join(last)


def summary_of(log, run, size):
    """What is kept of a run's --log: validations, and of the steps what tells whether they went
    smoothly."""
    losses, norms, seconds, validations = [], [], 0.0, []
    with open(log) as file:
        for line in file:
            entry = json.loads(line)
            if "validation" in entry:
                validations.append([entry["step"], {v["strategy"]: v["loss"]
                                                    for v in entry["validation"]}])
            else:
                losses.append(entry["loss"])
                norms.append(entry["gradient_norm"])
                seconds += entry["seconds"]
    if not validations:
        raise ValueError(f"{log} has no validation")
    width = max(len(losses) // 40, 1)
    smooth = [sum(losses[i:i + width]) / len(losses[i:i + width])
              for i in range(0, len(losses), width)]
    half = smooth[len(smooth) // 2:]
    rises = [half[i] - min(half[:i]) for i in range(1, len(half))]
    return {"tokens": len(losses) * size.batch * size.context, "steps": len(losses),
            "step_seconds": round(seconds, 6), "loss": validations[-1][1],
            "validations": validations if len(validations) > 1 else [],
            "training_loss": [round(x, 4) for x in smooth],
            "largest_rise": round(max(rises, default=0), 4),
            "largest_norm": round(max(norms[len(norms) // 20:]), 4)}


class Estimates:
    """Seconds of a run, from those of the same kind that have ended."""

    def __init__(self, size, jobs):
        self.size = size
        units = stages.FULL.base.layers + 1
        self.first = jobs / (units * FIRST_SPEED)
        self.done = []  # (units, seconds of steps, other seconds)

    def units(self, run):
        """Time grows with layers and a little less than the square of the width; embedding and
        loss take about as long as a layer."""
        shape, base = run.arm.shape, self.size.base
        width = (shape.dim / base.dim) ** 1.6
        tokens = run.steps(self.size) * self.size.batch * self.size.context
        return tokens * (shape.layers + 1) * width * run.arm.effort

    def add(self, run, step_seconds, seconds):
        self.done.append((self.units(run), step_seconds, max(seconds - step_seconds, 0)))

    def scale(self, factor):
        self.first *= factor
        self.done = [(units, factor * steps, other) for units, steps, other in self.done]

    def seconds(self, run):
        recent = self.done[-12:]
        if not recent:
            return FIRST_OVERHEAD + self.units(run) * self.first
        rate = sum(s for _, s, _ in recent) / sum(u for u, _, _ in recent)
        other = sum(o for _, _, o in recent) / len(recent)
        return other + self.units(run) * rate


class Queue:
    def __init__(self, options, size, file):
        self.options, self.size, self.file = options, size, file
        self.begin = time.monotonic()
        self.estimates = Estimates(size, options.jobs)
        self.jobs, self.codec_jobs, self.waiting_codecs = [], [], []
        self.failed = set()
        self.shown = 0.0

    def set_jobs(self, jobs):
        """A run is then as much faster as fewer run beside it."""
        self.estimates.scale(jobs / self.options.jobs)
        self.options.jobs = jobs
        self.options.long_jobs = min(self.options.long_jobs, max(jobs - 1, 1))

    def time_left(self):
        return self.options.budget - (time.monotonic() - self.begin)

    def work_left(self, runs):
        """Seconds that all slots together need, if they are never idle."""
        todo = [r for r in runs if r.id not in self.file.runs and not r.spare]
        return sum(self.estimates.seconds(r) for r in todo) / self.options.jobs

    # ---- commands ----

    def train_command(self, run, out, log):
        o, size = self.options, self.size
        little = run.budget == "little"
        rate = run.rate or self.file.chosen["rate"][run.arm.family]
        rate *= size.base.dim / run.arm.shape.dim
        steps = run.steps(size)
        command = [o.program, "train", "--text", o.little_text if little else o.text,
                   "--hold-out", str(stages.LITTLE_HOLD_OUT if little else 20),
                   "--context", str(size.context), "--batch", str(size.batch),
                   "--steps", str(steps), "--seed", str(run.seed), "--lr", f"{rate:g}",
                   "--routing", run.arm.routing, *run.arm.more, *run.arm.shape.options(),
                   "--device", o.device, "--threads", str(o.threads), "--out", out, "--log", log,
                   "--validate", *run.strategies, "--validate-tokens", str(size.validate_tokens)]
        if run.validations > 1:
            command += ["--validate-every", str(max(steps // run.validations, 1))]
        return command

    def codec_command(self, model, out):
        o, size = self.options, self.size
        return [o.program, "bits", "--model", model, "--text", o.text, "--hold-out", "20",
                "--context", str(size.context), "--stride", str(size.context),
                "--max-bytes", str(size.codec_tokens), "--strategy", *stages.DEPTHS,
                "--codec", "f16", "int8", "int4", "--threads", "4", "--json", out]

    # ---- what starts and ends ----

    def start(self, run):
        out = os.path.join(self.options.scratch, run.id + ".strata")
        log = os.path.join(self.options.scratch, run.id + ".log")
        command = self.train_command(run, out, log)
        self.jobs.append(Job(run.id, command, self.options.scratch, self.estimates.seconds(run),
                             run, out))

    def finish(self, job):
        if job.process.returncode != 0:
            self.failed.add(job.name)
            self.file.add({"run": job.name, "failed": job.complaint(), "command": job.command})
            print(f"{job.name} failed: {job.complaint()}", file=sys.stderr)
        else:
            entry = summary_of(job.log, job.run, self.size)
            self.estimates.add(job.run, entry["step_seconds"], job.seconds())
            self.file.add({"run": job.name, "arm": job.run.arm.name, "budget": job.run.budget,
                           "seed": job.run.seed, "rate": job.run.rate, **entry,
                           "seconds": round(job.seconds(), 3),
                           "command": " ".join(job.command[1:])})
            if job.run.codecs:
                self.waiting_codecs.append((job.name, job.model))
                job.model = None
        remove(job.model, job.log, job.errors)

    def finish_codecs(self, job):
        figures = os.path.join(self.options.scratch, job.name + ".json")
        if job.process.returncode != 0:
            print(f"{job.name} failed: {job.complaint()}", file=sys.stderr)
        else:
            with open(figures) as file:
                cells = json.load(file)["models"][0]["cells"]
            codecs = {f"{c['strategy']}%{c['codec']}": [c["loss"]["mean"], c["kv_bytes_per_token"]]
                      for c in cells}
            self.file.add({"codecs_of": job.name.removesuffix(".bits"), "codecs": codecs})
        remove(job.model, figures, job.errors)

    def start_codecs(self):
        if not self.waiting_codecs or len(self.codec_jobs) >= self.options.codec_jobs:
            return
        name, model = self.waiting_codecs.pop(0)
        figures = os.path.join(self.options.scratch, name + ".bits.json")
        self.codec_jobs.append(Job(name + ".bits", self.codec_command(model, figures),
                                   self.options.scratch, 0, model=model))

    # ---- which is next ----

    def next_run(self, runs):
        """The first that ends in time. Long ones have slots of their own, where they begin early:
        last, they would not end."""
        running = {job.name for job in self.jobs}
        todo = [r for r in runs if r.id not in running | self.failed | set(self.file.runs)
                and self.estimates.seconds(r) <= self.time_left()]
        longest = sum(is_long(job.run) for job in self.jobs)
        lanes = self.options.long_jobs
        short = [r for r in todo if not is_long(r)]
        long = sorted((r for r in todo if is_long(r)),
                      key=lambda r: (r.spare, -self.estimates.seconds(r)))
        first, second = (long, short) if longest < lanes else (short, long)
        return next(iter(first + second), None)

    def run_all(self, runs):
        """Until all are done, the time is up or nothing more ends in it."""
        while True:
            for job in [j for j in self.jobs if j.process.poll() is not None]:
                self.jobs.remove(job)
                self.finish(job)
            for job in [j for j in self.codec_jobs if j.process.poll() is not None]:
                self.codec_jobs.remove(job)
                self.finish_codecs(job)
            self.start_codecs()
            while len(self.jobs) < self.options.jobs:
                run = self.next_run(runs)
                if run is None:
                    break
                self.start(run)
            self.show(runs)
            if not self.jobs and not self.codec_jobs and not self.waiting_codecs:
                return
            if self.time_left() <= 0:
                self.stop()
                return
            time.sleep(LOOK_SECONDS)

    def stop(self):
        for job in self.jobs + self.codec_jobs:
            print(f"{job.name}: no time left for it", file=sys.stderr)
            job.process.kill()
            job.process.wait()
            remove(job.model, job.log, job.errors)
        self.jobs, self.codec_jobs = [], []

    def show(self, runs):
        if time.monotonic() - self.shown < 5:
            return
        self.shown = time.monotonic()
        done = sum(r.id in self.file.runs for r in runs)
        past = sum(j.estimate - j.left() for j in self.jobs) / self.options.jobs
        left = self.work_left(runs) - past
        print(f"{done} of {len(runs)} runs, about {max(left, 0):.0f} s of work and "
              f"{self.time_left():.0f} s of time left; now: "
              + ", ".join(f"{j.name} ({j.left():.0f} s)" for j in self.jobs), file=sys.stderr)


def is_long(run):
    return run.budget in ("10M", "40M", "scale")


def remove(*paths):
    for path in paths:
        if path is not None and os.path.exists(path):
            os.remove(path)
