#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Training steps of `strata-lm train` on the CPU beside PyTorch's, of one model on one text.

    bench/record.py bench/results/torch_training.json -- python3 bench/peers/torch_training.py \
        --program build/all/examples/lm/strata-lm --text FILE --out {}

with a Python that has torch. Each is a process of its own with the same number of threads, and
they take turns: ours plain, ours under --routing, PyTorch eager and compiled (torch.compile,
inductor). PyTorch has the same shape, batch and kinds of work, all in float32: RMSNorm, RoPE,
scaled_dot_product_attention, SwiGLU, a tied embedding, cross-entropy, clipping by the global norm,
AdamW in its fused form. A step's seconds are the median of a process's steps but the first few,
and of those the median over rounds. Both draw windows of the text and start from normal weights of
deviation 0.02, those that write into the residual stream divided by sqrt(2 layers), so that the
losses after as many steps are close; a round where they are not is refused.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

SHAPE = {"layers": 8, "dim": 224, "q_heads": 7, "kv_heads": 7, "head_dim": 32, "mlp": 608}
CONTEXT, BATCH, RATE, WARM = 256, 16, 2e-3, 5
LAST = 10  # steps over which losses are compared: of one step they differ by 0.1 and more
NEAR = 0.15  # nats between the losses of two programs there


# ---- in a process of its own: torch ----

def make_model(torch, s):
    nn, functional = torch.nn, torch.nn.functional
    heads, width = s["q_heads"], s["head_dim"]
    if heads != s["kv_heads"]:
        sys.exit("one K and V head for each query head: no form of grouping to choose")
    angles = torch.outer(torch.arange(CONTEXT).float(),
                         10000 ** (-torch.arange(0, width, 2).float() / width))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.RMSNorm(s["dim"], 1e-5), nn.RMSNorm(s["dim"], 1e-5)
            self.qkv = nn.Linear(s["dim"], 3 * heads * width, bias=False)
            self.out = nn.Linear(heads * width, s["dim"], bias=False)
            self.gate_up = nn.Linear(s["dim"], 2 * s["mlp"], bias=False)
            self.down = nn.Linear(s["mlp"], s["dim"], bias=False)

        def forward(self, x, cos, sin):
            n, t, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, heads, width).permute(2, 0, 3, 1, 4)

            def turned(y):
                a, b = y.chunk(2, -1)
                return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)
            seen = functional.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True)
            x = x + self.out(seen.transpose(1, 2).reshape(n, t, heads * width))
            gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
            return x + self.down(functional.silu(gate) * up)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(256, s["dim"])
            self.layers = nn.ModuleList(Layer() for _ in range(s["layers"]))
            self.norm = nn.RMSNorm(s["dim"], 1e-5)
            self.register_buffer("cos", angles.cos())
            self.register_buffer("sin", angles.sin())

        def forward(self, inputs, targets):
            x = self.embedding(inputs)
            for layer in self.layers:
                x = layer(x, self.cos, self.sin)
            logits = functional.linear(self.norm(x), self.embedding.weight)
            return functional.cross_entropy(logits.view(-1, 256), targets.reshape(-1))

    model = Model()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            residual = name.endswith(("out.weight", "down.weight"))
            if parameter.dim() > 1:
                parameter.normal_(0, 0.02 / (math.sqrt(2 * s["layers"]) if residual else 1))
    return model


def rate_at(step, steps):
    """As examples/lm/optimizer_options.hpp: a twentieth of the steps up, then a cosine."""
    rising = math.ceil(0.05 * steps)
    if step < rising:
        return RATE * (step + 1) / rising
    return RATE * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(steps - rising, 1)))


def measure(options):
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    import torch
    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    model = make_model(torch, SHAPE)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    gains = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                                   {"params": gains, "weight_decay": 0.0}],
                                  lr=RATE, betas=(0.9, 0.99), eps=1e-8, fused=True)
    call = torch.compile(model) if options.measure == "compiled" else model
    with open(options.text, "rb") as file:
        text = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    seconds, losses = [], []
    for step in range(options.steps):
        start = time.perf_counter()
        begins = torch.randint(len(text) - CONTEXT, (BATCH, 1))
        windows = text[begins + torch.arange(CONTEXT + 1)].long()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, options.steps)
        loss = call(windows[:, :-1], windows[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    json.dump({"version": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(),
               "parameters": sum(p.numel() for p in model.parameters()),
               "seconds": statistics.median(seconds[WARM:]),
               "loss": statistics.fmean(losses[-LAST:])}, sys.stdout)


# ---- in this process: turns ----

def run_torch(options, form):
    done = subprocess.run([sys.executable, __file__, "--measure", form, "--text", options.text,
                           "--steps", str(options.steps), "--threads", str(options.threads)],
                          check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def run_ours(options, routing):
    with tempfile.TemporaryDirectory() as folder:
        log, out = os.path.join(folder, "log"), os.path.join(folder, "model")
        shape = [part for name, value in SHAPE.items()
                 for part in ("--" + name.replace("_", "-"), str(value))]
        subprocess.run([options.program, "train", "--text", options.text, "--routing", routing,
                        *shape, "--context", str(CONTEXT), "--batch", str(BATCH), "--lr",
                        str(RATE), "--steps", str(options.steps), "--threads",
                        str(options.threads), "--log", log, "--out", out],
                       check=True, stderr=subprocess.DEVNULL)
        with open(log) as file:
            steps = [entry for entry in map(json.loads, file) if "seconds" in entry]
    return {"seconds": statistics.median(s["seconds"] for s in steps[WARM:]),
            "loss": statistics.fmean(s["loss"] for s in steps[-LAST:])}


def one_round(options):
    runs = {"self": run_ours(options, "self")}
    for form in ("eager", "compiled"):
        runs[form] = run_torch(options, form)
    runs[options.routing] = run_ours(options, options.routing)
    for form in ("eager", "compiled"):
        if not abs(runs[form]["loss"] - runs["self"]["loss"]) < NEAR:
            sys.exit(f"torch {form} has loss {runs[form]['loss']:.3f} after {options.steps} steps, "
                     f"strata-lm {runs['self']['loss']:.3f}: they do not compute the same")
    return runs


def figures(options, rounds):
    tokens = BATCH * CONTEXT
    steps = {}
    for name in rounds[0]:
        seconds = [runs[name]["seconds"] for runs in rounds]
        steps[name] = {"ms": 1e3 * statistics.median(seconds),
                       "spread_ms": [1e3 * min(seconds), 1e3 * max(seconds)],
                       "tokens_per_second": tokens / statistics.median(seconds),
                       "loss": rounds[-1][name]["loss"]}
    faster = min(("eager", "compiled"), key=lambda form: steps[form]["ms"])
    theirs = rounds[0]["eager"]
    return {"torch": theirs["version"], "torch_cpu": theirs["cpu"],
            "parameters": theirs["parameters"], "model": SHAPE, "context": CONTEXT,
            "batch": BATCH, "threads": options.threads, "rounds": len(rounds),
            "steps_per_process": options.steps, "steps": steps, "faster_torch": faster,
            "speed_over_torch": statistics.median(
                min(r["eager"]["seconds"], r["compiled"]["seconds"]) / r["self"]["seconds"]
                for r in rounds),
            "routed_over_plain_time": statistics.median(
                r[options.routing]["seconds"] / r["self"]["seconds"] for r in rounds)}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/all/examples/lm/strata-lm")
    parser.add_argument("--text", required=True)
    parser.add_argument("--out", help="JSON")
    parser.add_argument("--routing", default="rcla:0.6")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--measure", choices=["eager", "compiled"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options)
        return
    rounds = []
    for number in range(options.rounds):
        rounds.append(one_round(options))
        print(f"round {number + 1} of {options.rounds}: " + ", ".join(
            f"{name} {1e3 * run['seconds']:.0f} ms (loss {run['loss']:.3f})"
            for name, run in rounds[-1].items()), file=sys.stderr)
    text = json.dumps(figures(options, rounds), indent=2)
    print(text)
    if options.out:
        with open(options.out, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
