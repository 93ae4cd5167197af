# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What the study is expected to show, written down before it ran (2026-11-26, 16:00 UTC).

A claim is an inequality of losses in nats per byte: arm[^length]@key, with keys as judge.Losses
has them; factors are written 0.1*term. It is judged by the mean of the seeds and its 95 %
t-interval: held, did not hold (the interval lies on the other side), or undecided. Expectations
come from small runs of the demo's model (bench/results/routing_study.json); where the paper says
otherwise, the claim says so.
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Claim:
    stage: str
    says: str
    law: str
    family: str = ""  # claims of one family have one spread over seeds, estimated together


def robust():
    yield Claim("robust", "routing has a price at full", "rcla.5@full - plain@full > 0")
    yield Claim("robust", "the price falls with P(self)", "rcla.75@full - rcla.5@full < 0")
    yield Claim("robust", "paper: at P_self .75 the price is under 2 %",
                "rcla.75@full - 1.02*plain@full < 0")
    for strategy in ("every:2", "every:3", "every:4", "every:8", "tail:4"):
        for arm in ("rcla.75", "rcla.5"):
            yield Claim("robust", f"{arm} loses less than plain at {strategy}",
                        f"{arm}@{strategy} - plain@{strategy} < 0")
    yield Claim("robust", "less P(self), less lost by one leader",
                "rcla.5@every:8 - rcla.75@every:8 < 0")
    for s in ("spread:3", "spread:5", "groups:1,2,5", "leaders:0,1,6", "leaders:0,5",
              "leaders:0,3,4,7"):
        yield Claim("robust", f"at {s} rcla.5 loses at most a tenth of what plain loses",
                    f"rcla.5@{s} - rcla.5@full - 0.1*plain@{s} + 0.1*plain@full < 0")


def specialist():
    for k in (2, 4, 8):
        yield Claim("specialist", f"CLA@{k} wins at its own map",
                    f"cla{k}@every:{k} - rcla.5@every:{k} < 0")
        yield Claim("specialist", f"CLA@{k} falls apart at full, which it never saw",
                    f"cla{k}@full - rcla.5@full > 0")
    for k, others in ((2, (4, 8)), (4, (2, 8)), (8, (2, 4))):
        for other in others:
            yield Claim("specialist", f"CLA@{k} loses to R-CLA at every:{other}",
                        f"cla{k}@every:{other} - rcla.5@every:{other} > 0")
    for k in (2, 4):
        yield Claim("specialist", f"the coin costs CLA@{k} something at its own map",
                    f"rdcla{k}@every:{k} - cla{k}@every:{k} > 0")
        yield Claim("specialist", f"RD-CLA@{k} beats R-CLA at its own map",
                    f"rdcla{k}@every:{k} - rcla.5@every:{k} < 0")
        yield Claim("specialist", f"RD-CLA@{k} beats R-CLA at full",
                    f"rdcla{k}@full - rcla.5@full < 0")
    yield Claim("specialist", "RD-CLA@2 loses to R-CLA off its map",
                "rdcla2@every:4 - rcla.5@every:4 > 0")
    # The other reading of retention: of the variant's own leaders, not of all layers.
    for k, own, share in ((2, "every:4", 2), (2, "every:8", 4), (4, "every:8", 2)):
        yield Claim("specialist", f"at 1/{share} of its own leaders CLA@{k} loses to R-CLA at "
                    f"1/{share} of all layers", f"cla{k}@{own} - rcla.5@every:{share} > 0")


def tricks():
    for arm, says in (("late", "routing only the second half of training"),
                      ("half", "an unrouted half of each batch"),
                      ("anneal", "P(self) that rises from .5 to .9")):
        yield Claim("tricks", f"{says} costs less at full", f"{arm}@full - rcla.5@full < 0")
        yield Claim("tricks", f"{says} costs more at every:4",
                    f"{arm}@every:4 - rcla.5@every:4 > 0")
    for strategy in ("every:2", "every:4", "every:8"):
        yield Claim("tricks", f"distillation helps at {strategy}",
                    f"distilled@{strategy} - half@{strategy} < 0")
    yield Claim("tricks", "four draws per step gain nothing at full",
                "draws4@full - rcla.5@full > 0")
    yield Claim("tricks", "nor at every:4", "draws4@every:4 - rcla.5@every:4 > 0")
    yield Claim("tricks", "P(self) that falls with depth suits tail:4",
                "falling@tail:4 - rcla.5@tail:4 < 0")
    yield Claim("tricks", "and not every:4", "falling@every:4 - rcla.5@every:4 > 0")
    yield Claim("tricks", "P(self) that rises with depth suits tail:4 less",
                "rising@tail:4 - falling@tail:4 > 0")
    for arm in ("sets", "mix"):
        for strategy in ("full", "every:2", "every:4"):
            yield Claim("tricks", f"{arm} beats R-CLA at {strategy}, which it trained",
                        f"{arm}@{strategy} - rcla.5@{strategy} < 0")
        yield Claim("tricks", f"{arm} loses to R-CLA at one leader, which it did not",
                    f"{arm}@every:8 - rcla.5@every:8 > 0")
    yield Claim("tricks", "mix loses to R-CLA at a set it did not see",
                "mix@leaders:0,5 - rcla.5@leaders:0,5 > 0")


def equal_bytes():
    for strategy, arms in (("every:2", ("plain-4L", "wide-4L", "plain-4L-flops", "plain-2kv")),
                           ("every:4", ("plain-2L", "wide-2L", "plain-2L-flops", "plain-1kv"))):
        for arm in arms:
            paper = ", against the paper" if arm in ("plain-4L", "plain-2L") else ""
            yield Claim("bytes", f"{arm} beats routing at {strategy}{paper}: training is short",
                        f"{arm}@full - rcla.5@{strategy} < 0")
    for arm, strategy in (("plain", "full"), ("rcla.5", "full"), ("rcla.5", "every:2"),
                          ("rcla.5", "every:4")):
        yield Claim("bytes", f"int8 costs {arm} at {strategy} less than 0.001",
                    f"{arm}@{strategy}%int8 - {arm}@{strategy}%f32 < 0.001")
    yield Claim("bytes", "int4 costs the same at half of the layers as at all, to 0.003",
                "rcla.5@every:2%int4 - rcla.5@every:2%f32 - rcla.5@full%int4 + rcla.5@full%f32 "
                "< 0.003")
    yield Claim("bytes", "bits before depth: routed at full in int8 (53 % of bytes) beats every:2",
                "rcla.5@full%int8 - rcla.5@every:2%f16 < 0")
    for codec, percent, arm, share in (("int8", 53, "plain-4L", 50), ("int4", 28, "plain-2L", 25),
                                       ("int8", 53, "plain-2kv", 50), ("int4", 28, "plain-1kv", 25),
                                       ("int4", 28, "plain-4L", 50)):
        yield Claim("bytes", f"plain in {codec} ({percent} % of bytes) beats {arm} ({share} %)",
                    f"plain@full+{codec} - {arm}@full < 0")
    yield Claim("bytes", "routed at full in int4 (28 %) beats every:2 in int8 (27 %)",
                "rcla.5@full%int4 - rcla.5@every:2%int8 < 0")


def crossover():
    for x, strategy in ((4, "every:2"), (2, "every:4")):
        for budget, sign, says in (("2.5M", ">", "sharing costs more than depth is worth"),
                                   ("10M", ">", "sharing costs more than depth is worth"),
                                   ("40M", "<", "paper: sharing costs less than depth is worth")):
            yield Claim("crossover", f"after {budget} bytes, {says}, at {x} of 8 layers",
                        f"rcla.5^{budget}@{strategy} - plain-{x}L^{budget}@full {sign} 0",
                        f"crossover {x}")
        yield Claim("crossover", f"what depth over {x} layers is worth grows from 2.5M to 40M",
                    f"plain-{x}L^40M@full - plain^40M@full - plain-{x}L^2.5M@full "
                    "+ plain^2.5M@full > 0", f"worth {x}")
        yield Claim("crossover", f"what sharing at {strategy} costs shrinks from 2.5M to 40M",
                    f"rcla.5^40M@{strategy} - plain^40M@full - rcla.5^2.5M@{strategy} "
                    "+ plain^2.5M@full < 0", f"cost {x}")


def scale():
    for strategy in ("every:2", "every:4"):
        yield Claim("scale", f"a larger routed model holds at {strategy}, the plain one does not",
                    f"big-rcla.5^scale@{strategy} - big-plain^scale@{strategy} < 0")
    yield Claim("scale", "routing has a price at full",
                "big-rcla.5^scale@full - big-plain^scale@full > 0")
    yield Claim("scale", "and it is smaller than the small model's after as many bytes",
                "big-rcla.5^scale@full - big-plain^scale@full - rcla.5^10M@full + plain^10M@full "
                "< 0")


def little():
    yield Claim("little", "plain overfits: its last loss is above its best",
                "plain^little@full - plain^little@best:full > 0")
    for arm, strategy in (("rcla.5", "full"), ("cla2", "every:2"), ("dropout.2", "full")):
        yield Claim("little", f"{arm} at {strategy} ends below plain",
                    f"{arm}^little@{strategy} - plain^little@full < 0")
        yield Claim("little", f"{arm} at {strategy} overfits less",
                    f"{arm}^little@{strategy} - {arm}^little@best:{strategy} - plain^little@full "
                    "+ plain^little@best:full < 0")
        yield Claim("little", f"the best of {arm} at {strategy} is below plain's best",
                    f"{arm}^little@best:{strategy} - plain^little@best:full < 0")
    yield Claim("little", "the best of dropout.2 at full is below that of rcla.5",
                "dropout.2^little@best:full - rcla.5^little@best:full < 0")
    yield Claim("little", "rcla.5 at every:2 ends below dropout.2 at every:2",
                "rcla.5^little@every:2 - dropout.2^little@every:2 < 0")


def claims():
    return [claim for part in (robust, specialist, tricks, equal_bytes, crossover, scale, little)
            for claim in part()]
