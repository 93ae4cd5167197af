#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs a command that writes a JSON file and notes in it what it takes to repeat the run.

    bench/record.py bench/results/decode.json -- build/all/bench/decode \
        --benchmark_out_format=json --benchmark_out={}

{} stands for the file. A "recorded" object is added: command, commit, machine, date. Refuses to
record what no commit describes: a tree whose sources differ from HEAD.
"""
import datetime
import json
import os
import platform
import subprocess
import sys

SOURCES = ["include", "examples", "bench", "cmake", "CMakeLists.txt", "CMakePresets.json",
           ":!bench/results"]


def git(*arguments):
    return subprocess.run(["git", *arguments], check=True, capture_output=True,
                          text=True).stdout.strip()


def machine():
    facts = {"system": f"{platform.system()} {platform.release()}", "cores": os.cpu_count()}
    with open("/proc/cpuinfo") as info:
        for line in info:
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "cache size"):
                facts.setdefault(name.strip().replace(" ", "_"), value.strip())
    with open("/proc/meminfo") as info:
        facts["memory"] = info.readline().split(":")[1].strip()
    if gpus := graphics():
        facts["gpu"] = gpus
    return facts


def graphics():
    """Names and drivers of the machine's GPUs, "" where it has none."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version",
                               "--format=csv,noheader"], check=True, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return "; ".join(done.stdout.strip().splitlines())


def main():
    if len(sys.argv) < 4 or sys.argv[2] != "--":
        sys.exit(__doc__)
    path, command = sys.argv[1], sys.argv[3:]
    if changed := git("status", "--porcelain", "--", *SOURCES):
        sys.exit(f"record.py: commit these first, or the figures have no source:\n{changed}")
    commit = git("rev-parse", "HEAD")  # before the run, in which somebody may commit
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    subprocess.run([part.replace("{}", path) for part in command], check=True)
    note(path, " ".join(part.replace("{}", path) for part in command), commit)


def note(path, command, commit):
    with open(path) as file:
        figures = json.load(file)
    figures.pop("recorded", None)  # of a run that this one goes on from
    recorded = {
        "command": command,
        "commit": commit,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
    }
    with open(path, "w") as file:
        json.dump({"recorded": recorded, **figures}, file, indent=2, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main()
