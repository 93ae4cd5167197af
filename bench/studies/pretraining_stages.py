# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What the study trains: shapes, arms and the runs of each stage, in the order of their priority.

The same seed gives all arms of one shape the same initial weights and, at one length of training,
the same batches: arms are compared within a seed.
"""
import dataclasses

STAGES = ["rate", "robust", "specialist", "tricks", "bytes", "crossover", "scale", "little"]
SERVING = ("full", "every:2", "every:4", "every:8", "tail:4", "leaders:0,5")
# The last seven are maps that nobody would train for.
TWELVE = ("full", "every:2", "every:3", "every:4", "every:8", "tail:4", "spread:3", "spread:5",
          "groups:1,2,5", "leaders:0,1,6", "leaders:0,5", "leaders:0,3,4,7")
DEPTHS = ("full", "every:2", "every:4")


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int
    dim: int
    q_heads: int
    kv_heads: int
    head_dim: int
    mlp: int

    def options(self):
        names = [("layers", "layers"), ("dim", "dim"), ("q-heads", "q_heads"),
                 ("kv-heads", "kv_heads"), ("head-dim", "head_dim"), ("mlp", "mlp")]
        return [part for option, field in names
                for part in (f"--{option}", str(getattr(self, field)))]

    def parameters(self):
        return self.layers * self.layer_weights() + 257 * self.dim + 2 * self.layers * self.dim

    def layer_weights(self):
        heads = 2 * (self.q_heads + self.kv_heads) * self.head_dim
        return self.dim * (heads + 3 * self.mlp)

    def flops(self, context):
        """Of one token's forward pass: products, attention over half a context, logits."""
        attention = 4 * self.q_heads * self.head_dim * context / 2
        return self.layers * (2 * self.layer_weights() + attention) + 2 * 256 * self.dim

    def kv_bytes(self, leaders=None):
        """Per token, in 16 bits."""
        return 2 * 2 * self.kv_heads * self.head_dim * (leaders or self.layers)


@dataclasses.dataclass(frozen=True)
class Size:
    """What --small makes small."""
    base: Shape
    context: int
    batch: int
    tokens: tuple        # of most runs, the largest that fits the time
    rate_tokens: int     # of the runs that choose the learning rate
    budgets: dict        # of the stage crossover: name -> tokens
    scale: Shape
    scale_tokens: int
    epochs: int          # of the stage little
    validate_tokens: int
    codec_tokens: int

    def shape(self, **changes):
        return dataclasses.replace(self.base, **changes)


M = 1_000_000
FULL = Size(base=Shape(8, 256, 4, 4, 64, 704), context=256, batch=32,
            tokens=(8 * M, 6 * M, 5 * M, 4 * M, 3 * M, 2 * M), rate_tokens=2 * M,
            budgets={"2.5M": 5 * M // 2, "10M": 10 * M, "40M": 40 * M},
            scale=Shape(12, 512, 8, 8, 64, 1408), scale_tokens=10 * M, epochs=40,
            validate_tokens=65536, codec_tokens=32768)
# So small that all of the study is minutes of two CPU cores: its losses mean nothing.
SMALL = Size(base=Shape(8, 32, 4, 4, 8, 64), context=32, batch=4, tokens=(4096, 2048),
             rate_tokens=1024, budgets={"2.5M": 1024, "10M": 2048, "40M": 8192},
             scale=Shape(12, 64, 8, 8, 8, 128), scale_tokens=2048, epochs=1,
             validate_tokens=512, codec_tokens=512)


@dataclasses.dataclass(frozen=True)
class Arm:
    name: str
    shape: Shape
    routing: str = "self"
    more: tuple = ()    # further options of `strata-lm train`
    length: float = 1   # times the tokens of the others
    effort: float = 1   # times the seconds per token, guessed: more and smaller passes

    @property
    def family(self):
        """Whose learning rate it takes."""
        return "plain" if self.routing == "self" else "rcla.5"


def arms(size):
    """All of them by name."""
    base = size.base
    half, quarter = size.shape(layers=base.layers // 2), size.shape(layers=base.layers // 4)
    longer = {s: base.flops(size.context) / s.flops(size.context) for s in (half, quarter)}
    # Fewer layers, wider, with the K and V heads of the others: as many parameters as the base.
    wide = {s: widened(s, base.parameters()) for s in (half, quarter)}
    rcla = "rcla:0.5"
    listed = [
        Arm("plain", base), Arm("rcla.75", base, "rcla:0.75"), Arm("rcla.5", base, rcla),
        Arm("cla2", base, "cla:2"), Arm("cla4", base, "cla:4"), Arm("cla8", base, "cla:8"),
        Arm("rdcla2", base, "rdcla:2:0.5"), Arm("rdcla4", base, "rdcla:4:0.5"),
        Arm("plain-4L", half), Arm("plain-2L", quarter),
        Arm("plain-4L-flops", half, length=longer[half]),
        Arm("plain-2L-flops", quarter, length=longer[quarter]),
        Arm("wide-4L", wide[half]), Arm("wide-2L", wide[quarter]),
        Arm("plain-2kv", size.shape(kv_heads=base.kv_heads // 2)),
        Arm("plain-1kv", size.shape(kv_heads=base.kv_heads // 4)),
        Arm("late", base, rcla, ("--schedule", "1:0.5:0.5")),
        Arm("half", base, rcla, ("--full-half",), effort=1.3),
        Arm("distilled", base, rcla, ("--full-half", "--distill", "0.5"), effort=1.5),
        Arm("draws4", base, rcla, ("--draws-per-step", "4"), effort=2),
        Arm("falling", base, rcla, ("--depth-schedule", "0.8:0.2")),
        Arm("rising", base, rcla, ("--depth-schedule", "0.2:0.8")),
        Arm("sets", base, "sets:1,0.5,0.25"), Arm("mix", base, "mix:full/every:2/every:4"),
        Arm("anneal", base, rcla, ("--schedule", "0.5:0.9")),
        Arm("dropout.2", base, more=("--dropout", "0.2")),
        Arm("big-plain", size.scale), Arm("big-rcla.5", size.scale, rcla)]
    return {arm.name: arm for arm in listed}


def widened(shape, parameters):
    """The multiple of 32 as dim that comes nearest with the MLP in proportion, whose width is then
    adjusted in steps of 16."""
    def with_dim(dim):
        ratio = shape.mlp / shape.dim
        return dataclasses.replace(shape, dim=dim, mlp=round(dim * ratio / 16) * 16)
    wide = min((with_dim(dim) for dim in range(shape.dim, 8 * shape.dim, 32)),
               key=lambda s: abs(s.parameters() - parameters))
    step = 16 * 3 * wide.dim * wide.layers
    more = round((parameters - wide.parameters()) / step) * 16
    return dataclasses.replace(wide, mlp=wide.mlp + more)


@dataclasses.dataclass(frozen=True)
class Run:
    stage: str
    arm: Arm
    tokens: int
    seed: int
    strategies: tuple
    budget: str = "main"      # "main" or the name of one of crossover's, "rate", "little", "scale"
    rate: float = 0           # 0: what the stage `rate` chose for the arm's family
    validations: int = 1      # over the run
    codecs: bool = False      # score the model with a cache in fewer bits, too
    spare: bool = False       # left out of the time that --plan asks for

    @property
    def id(self):
        rate = f"-{self.rate:g}" if self.rate else ""
        return f"{self.arm.name}-{self.budget}{rate}-{self.seed}"

    def steps(self, size):
        return max(round(self.tokens * self.arm.length / (size.batch * size.context)), 4)


def rate_runs(size):
    """A grid on one seed; its best is everybody's, scaled by 256 / dim for wider models. (The runs
    in bench/results had 1e-3 to 8e-3, of which the least was best.)"""
    all_arms = arms(size)
    return [Run("rate", all_arms[name], size.rate_tokens, 1, DEPTHS, "rate", rate)
            for rate in (2.5e-4, 5e-4, 1e-3, 2e-3) for name in ("plain", "rcla.5")]


def runs(size, tokens):
    """Those of all other stages, in the order in which they are worth most: by stage, within it by
    seed, so that whatever is cut off leaves whole seeds. Runs that two stages share stand once."""
    listed = []
    all_arms = arms(size)

    def add(stage, seeds, names, strategies, tokens=tokens, **more):
        for seed in seeds:
            for name in names:
                of_arm = strategies if all_arms[name].shape.layers >= 8 else ("full",)
                listed.append(Run(stage, all_arms[name], tokens, seed, of_arm, **more))

    three = (1, 2, 3)
    add("robust", three, ["plain", "rcla.5"], TWELVE, codecs=True)
    add("robust", three, ["rcla.75"], TWELVE)
    add("robust", (4, 5), ["plain", "rcla.75", "rcla.5"], TWELVE)
    add("specialist", three, ["cla2", "cla4", "cla8", "rdcla2", "rdcla4"], TWELVE)
    add("tricks", three, ["late", "half", "distilled", "draws4", "falling", "rising", "sets",
                          "mix", "anneal"], SERVING)
    add("bytes", three, ["plain-4L", "plain-2L", "plain-2kv", "plain-1kv", "wide-4L", "wide-2L",
                         "plain-4L-flops", "plain-2L-flops"], DEPTHS)
    paired = ["plain", "rcla.5", "plain-4L", "plain-2L"]
    *shorter, longest = size.budgets
    for budget in shorter:
        add("crossover", three, paired, DEPTHS, tokens=size.budgets[budget], budget=budget)
    for seed in three:  # the long ones are spare from the second seed on
        add("crossover", (seed,), paired, DEPTHS, tokens=size.budgets[longest], budget=longest,
            spare=seed > 1)
        add("scale", (seed,), ["big-plain", "big-rcla.5"], DEPTHS, tokens=size.scale_tokens,
            budget="scale", spare=seed > 1)
    add("little", three, ["plain", "rcla.5", "cla2", "dropout.2"], DEPTHS, budget="little",
        validations=20, tokens=size.epochs * LITTLE_TRAINING)
    return listed


# The stage `little` has this much text: 16 blocks of 16 KiB, of which every fourth is held out.
LITTLE_BYTES, LITTLE_HOLD_OUT = 16 * 16384, 4
LITTLE_TRAINING = LITTLE_BYTES * 3 // 4
