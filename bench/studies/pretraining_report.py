# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Tables, and the JSON that is kept of the study."""
import pretraining_stages as stages
from judge import Losses, interval, judged, pooled_interval, pooled_spread
from pretraining_claims import claims

MAIN_TABLES = {"robust": ["plain", "rcla.75", "rcla.5"],
               "specialist": ["rcla.5", "cla2", "cla4", "cla8", "rdcla2", "rdcla4"],
               "tricks": ["plain", "rcla.5", "late", "half", "distilled", "draws4", "falling",
                          "rising", "sets", "mix", "anneal"]}
BYTES_ARMS = ["plain", "rcla.75", "rcla.5", "plain-4L", "plain-2L", "plain-4L-flops",
              "plain-2L-flops", "wide-4L", "wide-2L", "plain-2kv", "plain-1kv"]


def means_of(losses, arm, budget="main"):
    """{key: {mean, interval, seeds}} of an arm, over the seeds that have it."""
    seeds = losses.of.get((arm, budget), {})
    out = {}
    for key in sorted({k for keys in seeds.values() for k in keys}):
        values = [keys[key] for keys in seeds.values() if key in keys]
        mean, half = interval(values)
        out[key] = {"mean": round(mean, 5), "interval": None if half is None else round(half, 5),
                    "seeds": len(values)}
    return out


def plus_minus(cell, digits=4):
    if cell is None:
        return "-"
    text = f"{cell['mean']:.{digits}f}"
    return text if cell["interval"] is None else f"{text} ±{cell['interval']:.{digits}f}"


def columns(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip()
                     for row in rows)


def strategies_table(losses, arms, strategies, budget="main"):
    rows = [["", *strategies]]
    for arm in arms:
        means = means_of(losses, arm, budget)
        if means:
            rows.append([arm, *(plus_minus(means.get(s)) for s in strategies)])
    return columns(rows) if len(rows) > 1 else "nothing yet"


def bytes_points(losses, size):
    """(group, label, K/V bytes per token, cell): what the plot and the table of `bytes` show."""
    arms = stages.arms(size)
    points = []

    def add(group, arm, key, leaders=None):
        means = means_of(losses, arm)
        strategy, _, codec = key.partition("+")
        if key not in means:
            return
        cell = means[key]
        if codec:  # of few seeds, and the difference is the same in all: on top of all seeds' mean
            values = losses.differences(f"{arm}@{key} - {arm}@{strategy} < 0")[0].values()
            cell = {"mean": round(means[strategy]["mean"] + sum(values) / len(values), 5),
                    "interval": None, "seeds": len(values)}
        count = losses.codec_bytes.get((arm, key)) or arms[arm].shape.kv_bytes(leaders)
        points.append((group, f"{arm} {key}", count, cell))

    for arm in ("rcla.5", "rcla.75", "mix"):
        for leaders, key in ((8, "full"), (4, "every:2"), (2, "every:4"), (1, "every:8")):
            add(f"{arm}, fewer leaders", arm, key, leaders)
    for group, names in (("plain, fewer layers", ("plain", "plain-4L", "plain-2L")),
                         ("the same at equal FLOPs", ("plain", "plain-4L-flops", "plain-2L-flops")),
                         ("the same at equal parameters", ("plain", "wide-4L", "wide-2L")),
                         ("plain, fewer KV heads", ("plain", "plain-2kv", "plain-1kv"))):
        for name in names:
            add(group, name, "full")
    for codec in ("f16", "int8", "int4"):
        add("plain, fewer bits", "plain", f"full+{codec}")
        for key in stages.DEPTHS:
            add(f"rcla.5 {key}, fewer bits", "rcla.5", f"{key}+{codec}")
    return points


def crossover_points(losses, size, main_tokens):
    """Per length: what depth is worth and what sharing costs, paired within seeds. Intervals are by
    the spread over seeds of all lengths together, since the longest have few."""
    lengths = {"main": main_tokens, **size.budgets}
    points = []
    for x, strategy in ((4, "every:2"), (2, "every:4")):
        laws = {"depth_is_worth": "plain-{x}L{at}@full - plain{at}@full",
                "sharing_costs": "rcla.5{at}@{s} - plain{at}@full",
                "sharing_less_shallow": "rcla.5{at}@{s} - plain-{x}L{at}@full"}
        of_x = {tokens: {"tokens": tokens, "layers": x} for tokens in lengths.values()}
        for name, law in laws.items():
            samples = {}
            for budget, tokens in lengths.items():
                at = "" if budget == "main" else f"^{budget}"
                filled = law.format(x=x, at=at, s=strategy) + " < 0"
                samples[tokens] = list(losses.differences(filled)[0].values())
            spread = pooled_spread(samples.values())
            for tokens, values in samples.items():
                if values:
                    half = pooled_interval(len(values), spread) if spread else None
                    of_x[tokens][name] = {"mean": round(sum(values) / len(values), 5),
                                          "interval": None if half is None else round(half, 5),
                                          "seeds": len(values)}
        points += [point for _, point in sorted(of_x.items()) if laws.keys() <= point.keys()]
    return points


def crossover_table(points):
    rows = [["bytes trained", "x of 8", "depth is worth", "sharing costs", "shared - shallow",
             "seeds"]]
    for p in points:
        rows.append([f"{p['tokens'] / 1e6:g}M", str(p["layers"]), plus_minus(p["depth_is_worth"]),
                     plus_minus(p["sharing_costs"]), plus_minus(p["sharing_less_shallow"]),
                     str(p["sharing_less_shallow"]["seeds"])])
    return columns(rows) if points else "nothing yet"


def bytes_table(points):
    rows = [["", "model", "K/V bytes per token", "nats per byte"]]
    rows += [[group, label, f"{count:g}", plus_minus(cell)] for group, label, count, cell in points]
    return columns(rows) if points else "nothing yet"


def verdict_table(rows, stage):
    out = [["verdict", "claim", "mean", "seeds"]]
    for row in rows:
        if row["stage"] == stage:
            bound = row["law"].split(" ")[-2:]
            out.append([row["verdict"], row["claim"],
                        f"{plus_minus(row)} {'<' if bound[0] == '<' else '>'} {bound[1]}",
                        str(len(row["seeds"]))])
    return columns(out) if len(out) > 1 else ""


def rate_table(file):
    rows = [["", "rate", *stages.DEPTHS]]
    for entry in file.runs.values():
        if entry["budget"] == "rate":
            rows.append([entry["arm"], f"{entry['rate']:g}",
                         *(f"{entry['loss'][s]:.4f}" for s in stages.DEPTHS)])
    table = columns(rows[:1] + sorted(rows[1:], key=lambda row: (row[0], float(row[1]))))
    tried = [float(row[1]) for row in rows[1:]]
    for family, rate in (file.chosen["rate"] if file.chosen and tried else {}).items():
        if rate in (min(tried), max(tried)):
            table += f"\n{family}: {rate:g} is an end of the grid; a rate beyond it may be better"
    return table


def little_table(losses):
    rows = [["", "strategy", "last loss", "best loss"]]
    for arm in ("plain", "rcla.5", "cla2", "dropout.2"):
        means = means_of(losses, arm, "little")
        for s in stages.DEPTHS[:2]:
            if s in means:
                rows.append([arm, s, plus_minus(means[s]), plus_minus(means.get(f"best:{s}"))])
    return columns(rows)


def smooth_table(file):
    """Whether training went smoothly: the greatest rise of the training loss in its second half,
    and the greatest norm of a gradient after the first twentieth."""
    worst = {}
    for entry in file.runs.values():
        if entry["budget"] == "main":
            rise, norm = worst.get(entry["arm"], (0, 0))
            worst[entry["arm"]] = (max(rise, entry["largest_rise"]),
                                   max(norm, entry["largest_norm"]))
    rows = [["", "largest rise", "largest norm"]]
    return columns(rows + [[arm, f"{r:.3f}", f"{n:.2f}"] for arm, (r, n) in worst.items()])


def text(file, size):
    losses = Losses(file.runs.values())
    rows = judged(claims(), losses)
    main = file.chosen["tokens"] if file.chosen else 0
    tables = {"rate": rate_table(file)}
    for stage, arms in MAIN_TABLES.items():
        tables[stage] = strategies_table(
            losses, arms, stages.SERVING if stage == "tricks" else stages.TWELVE)
    tables["robust"] += "\n\n" + smooth_table(file)
    tables["bytes"] = bytes_table(bytes_points(losses, size))
    tables["crossover"] = crossover_table(crossover_points(losses, size, main))
    tables["scale"] = strategies_table(losses, ["big-plain", "big-rcla.5"], stages.DEPTHS, "scale")
    tables["little"] = little_table(losses)
    head = (f"{len(file.runs)} runs; {main} bytes each where nothing else is said; nats per byte, "
            "± half of the 95 % t-interval over seeds")
    parts = [head]
    for stage in stages.STAGES:
        parts.append(f"== {stage}\n\n{tables[stage]}\n\n{verdict_table(rows, stage)}".rstrip())
    return "\n\n".join(parts) + "\n"


def figures(file, size):
    """What bench/results/pretraining.json holds besides how it was recorded."""
    losses = Losses(file.runs.values())
    rows = judged(claims(), losses)
    arms = {}
    for (arm, budget) in losses.of:
        arms.setdefault(arm, {})[budget] = means_of(losses, arm, budget)
    verdicts = {v: sum(row["verdict"] == v for row in rows)
                for v in ("held", "did not hold", "undecided")}
    main = file.chosen["tokens"]
    return {"study": file.study, "chosen": file.chosen, "verdicts": verdicts, "claims": rows,
            "crossover": crossover_points(losses, size, main),
            "bytes": [{"group": g, "model": m, "kv_bytes_per_token": b, "loss": c}
                      for g, m, b, c in bytes_points(losses, size)],
            "arms": arms, "runs": len(file.runs)}
