# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""From the losses of runs to means, 95 % t-intervals over seeds and verdicts on claims."""
import math
import statistics

# 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom.
T_975 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
         2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086]


def t_975(freedom):
    return T_975[freedom - 1] if freedom <= len(T_975) else 2.08


def interval(values):
    """(mean, half of the 95 % interval; None of one value)"""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    return mean, t_975(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


class Losses:
    """of[(arm, budget)][seed][key], of the entries of a RunFile. Keys are strategies; best:S the
    least loss of the run; S%codec what `strata-lm bits` says of a part of the text, and S+codec
    the loss at S with the difference that the codec makes there."""

    def __init__(self, entries):
        self.of = {}
        self.codec_bytes = {}  # K/V bytes per token by (arm, S+codec)
        for entry in entries:
            seeds = self.of.setdefault((entry["arm"], entry["budget"]), {})
            seeds[entry["seed"]] = self._keys(entry)

    def _keys(self, entry):
        keys = dict(entry["loss"])
        for key, (loss, kv_bytes) in entry.get("codecs", {}).items():
            strategy, _, codec = key.partition("%")
            exact = entry["codecs"][f"{strategy}%f32"][0]
            keys[key] = loss
            keys[f"{strategy}+{codec}"] = keys[strategy] + loss - exact
            self.codec_bytes[entry["arm"], f"{strategy}+{codec}"] = kv_bytes
        for strategy in entry["loss"] if entry["validations"] else ():
            keys[f"best:{strategy}"] = min(v[strategy] for _, v in entry["validations"])
        return keys

    def values(self, term):
        """{seed: loss} of arm[^budget]@key."""
        name, _, key = term.partition("@")
        arm, _, budget = name.partition("^")
        seeds = self.of.get((arm, budget or "main"), {})
        return {seed: keys[key] for seed, keys in seeds.items() if key in keys}

    def differences(self, law):
        """Per seed that has all terms, the left side of "2*a - b < 0"; and its sign and bound."""
        *words, sign, bound = law.split()
        total, factor = None, 1.0
        for word in words:
            if word in "+-":
                factor = -1.0 if word == "-" else 1.0
                continue
            times, _, term = word.rpartition("*")
            scale = factor * float(times or 1)
            values = self.values(term)
            if total is None:
                total = {seed: scale * x for seed, x in values.items()}
            else:
                total = {s: total[s] + scale * values[s] for s in total if s in values}
        return total, sign, float(bound)


def pooled_spread(samples):
    """(standard deviation within samples, degrees of freedom), or None where none has two."""
    several = [values for values in samples if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if freedom == 0:
        return None
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in several)
    return math.sqrt(squares / freedom), freedom


def pooled_interval(count, spread):
    """Half of the interval of a mean of so many, by the spread of all samples together."""
    deviation, freedom = spread
    return t_975(freedom) * deviation / math.sqrt(count)


def pooled_spreads(claims, losses):
    """Of each family of claims, over seeds."""
    samples = {}
    for claim in claims:
        if claim.family:
            values = list(losses.differences(claim.law)[0].values())
            samples.setdefault(claim.family, []).append(values)
    return {family: spread for family, of in samples.items() if (spread := pooled_spread(of))}


def verdict(mean, half, sign, bound):
    if half is None:
        return "undecided"
    if abs(mean - bound) <= half:
        return "undecided"
    return "held" if (mean < bound) == (sign == "<") else "did not hold"


def judged(claims, losses):
    """A row for each claim of which something has been measured."""
    spreads = pooled_spreads(claims, losses)
    rows = []
    for claim in claims:
        values, sign, bound = losses.differences(claim.law)
        if not values:
            continue
        mean, half = interval(list(values.values()))
        if claim.family in spreads:
            half = pooled_interval(len(values), spreads[claim.family])
        rows.append({"stage": claim.stage, "claim": claim.says, "law": claim.law,
                     "seeds": sorted(values), "mean": round(mean, 5),
                     "interval": None if half is None else round(half, 5),
                     "verdict": verdict(mean, half, sign, bound)})
    return rows
