#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""PyTorch's side of torch_cuda_attention.py: a process that answers, line by line of JSON, how many
seconds a shape takes in each form:

    flash, cudnn, efficient    scaled_dot_product_attention by that backend alone, enable_gqa=True
    <backend> folded           one row: those of all query heads of a KV head as rows of one head
    <backend> expanded         K and V copied once per query head, before the clock starts
    flex                       flex_attention, compiled
    varlen                     varlen_attn, for lengths that differ

A form that refuses a shape, or whose answer is wrong, is noted with the reason.
"""
import argparse
import functools
import gc
import itertools
import json
import sys
import time
import time
import warnings
from inspect import signature

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from torch_cuda_clock import gemm_rate, seconds_on_cpu, seconds_on_cuda

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION,
            "efficient": SDPBackend.EFFICIENT_ATTENTION}
TYPE = torch.bfloat16


class OutOfTime(Exception):
    pass


def lengths_of(shape):
    """As attention_case.hpp has them."""
    batch, context = shape["batch"], shape["context"]
    if shape.get("lengths") != "log_uniform":
        return [context] * batch
    return [int(128 * (context / 128) ** ((i * 37 % batch + 0.5) / batch)) for i in range(batch)]


class Shape:
    """A shape's tensors on a device: q, and as many pairs of K and V as no cache holds."""

    def __init__(self, shape, device, l2_bytes):
        self.shape, self.device = shape, device
        self.batch, self.rows, self.context = shape["batch"], shape["rows"], shape["context"]
        self.kv_heads, self.dim = shape["kv_heads"], shape["dim"]
        self.q_heads = shape["q_heads"]
        self.group = self.q_heads // self.kv_heads
        self.lengths = lengths_of(shape)
        self.ragged = len(set(self.lengths)) > 1
        self.backward = shape["set"] == "backward"
        self.causal = self.rows > 1
        bytes_of_set = 2 * self.kv_heads * self.dim * 2 * sum(self.lengths)
        if self.backward:  # q, out and their gradients are read, too
            bytes_of_set += 4 * self.batch * self.rows * self.q_heads * self.dim * 2
        self.sets = max(3, -(-4 * l2_bytes // bytes_of_set))

    def random(self, heads, tokens):
        x = torch.empty(self.batch, heads, tokens, self.dim, dtype=TYPE, device=self.device)
        return x.uniform_(-1, 1).requires_grad_(self.backward)

    def draw(self):
        """A query per set where its gradient is asked for, else one."""
        count = self.sets if self.backward else 1
        self.q = [self.random(self.q_heads, self.rows) for _ in range(count)]
        self.kv = [tuple(self.random(self.kv_heads, self.context) for _ in range(2))
                   for _ in range(self.sets)]
        self.d_out = torch.empty_like(self.q[0]).uniform_(-1, 1) if self.backward else None

    def expected(self):
        """The last rows of the first and the last sequence, in float: [2, q_heads, rows, dim]."""
        rows = min(self.rows, 4)
        found = []
        for b in (0, self.batch - 1):
            n = self.lengths[b]
            k, v = (x[b, :, :n].detach().float().repeat_interleave(self.group, 0)
                    for x in self.kv[0])
            scores = self.q[0][b, :, -rows:].detach().float() @ k.transpose(1, 2) / self.dim ** 0.5
            seen = torch.ones(rows, n, dtype=torch.bool, device=self.device).tril(n - rows)
            found.append(scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v)
        return torch.stack(found)

    def check(self, out):
        rows = min(self.rows, 4)
        got = torch.stack([out[b, :, -rows:] for b in (0, self.batch - 1)]).detach().float()
        expected = self.expected()
        apart = ((got - expected).norm() / expected.norm()).item()
        if not apart < 0.02:
            raise RuntimeError(f"wrong by {apart:.3g} of its length")


# ---- forms: call(q, k, v), and how it wants K and V ----

def by_backend(s, backend, q_of=lambda q: q, expanded=False, **options):
    """Backward takes the copies along: that it adds up their gradients is its work."""
    inside = expanded and s.backward

    def call(q, k, v):
        if inside:
            k, v = (x.repeat_interleave(s.group, 1) for x in (k, v))
        with sdpa_kernel([backend]):
            return scaled_dot_product_attention(q_of(q), k, v, **options).view(q.shape)
    return call, "expanded" if expanded and not inside else None


def sdpa_forms(s):
    mask = {}
    if s.rows == s.context and s.rows > 1:
        mask = {"is_causal": True}
    elif s.causal:
        mask = {"attn_mask": causal_lower_right(s.rows, s.context)}
    elif s.ragged:
        seen = torch.arange(s.context, device=s.device) < torch.tensor(
            s.lengths, device=s.device)[:, None]
        mask = {"attn_mask": seen[:, None, None, :]}
    for name, backend in BACKENDS.items():
        yield name, by_backend(s, backend, enable_gqa=s.group > 1, **mask)
        if s.rows == 1 and s.group > 1:
            folded = dict(mask)
            if s.ragged:  # one mask for all rows, as backends without GQA want it
                folded["attn_mask"] = mask["attn_mask"].expand(-1, s.kv_heads, s.group, -1)
            yield f"{name} folded", by_backend(
                s, backend, lambda q: q.view(s.batch, s.kv_heads, s.group, s.dim), **folded)
        elif s.group > 1:
            yield f"{name} expanded", by_backend(s, backend, expanded=True, **mask)


@functools.cache
def compiled_flex():
    """One function for all shapes, each of which it is compiled for."""
    from torch.nn.attention.flex_attention import flex_attention
    return torch.compile(flex_attention, dynamic=False)


def flex_form(s, compiled):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    block_mask = None
    if s.causal:
        ahead = s.context - s.rows
        block_mask = create_block_mask(lambda b, h, q, k: q + ahead >= k, None, None, s.rows,
                                       s.context, device=s.device)
    elif s.ragged:
        lengths = torch.tensor(s.lengths, device=s.device)
        block_mask = create_block_mask(lambda b, h, q, k: k < lengths[b], s.batch, None, 1,
                                       s.context, device=s.device)
    function = compiled_flex() if compiled else flex_attention

    def call(q, k, v):
        return function(q, k, v, block_mask=block_mask, enable_gqa=s.group > 1)
    return call, None


def varlen_form(s):
    """K and V of all sequences in one line, as varlen_attn wants them."""
    from torch.nn.attention.varlen import varlen_attn
    ends = torch.tensor([0, *itertools.accumulate(s.lengths)], dtype=torch.int32, device=s.device)
    rows = torch.arange(s.batch + 1, dtype=torch.int32, device=s.device)

    more = {"enable_gqa": True} if s.group > 1 and "enable_gqa" in signature(
        varlen_attn).parameters else {}

    def call(q, k, v):
        q_rows = q.view(s.batch, s.q_heads, s.dim)
        return varlen_attn(q_rows, k, v, rows, ends, 1, s.context, **more).view(q.shape)
    return call, "packed"


def sets_for(s, kind):
    """Pairs of K and V as a form wants them."""
    if kind == "expanded":
        return [tuple(x.repeat_interleave(s.group, 1) for x in pair) for pair in s.kv]
    if kind == "packed":
        return [tuple(torch.cat([x[b, :, :n].transpose(0, 1) for b, n in enumerate(s.lengths)])
                      for x in pair) for pair in s.kv]
    return s.kv


# ---- answers ----

class Measurer:
    def __init__(self, options):
        self.dry = options.dry_run
        if not self.dry and not torch.cuda.is_available():
            sys.exit("torch_cuda_forms.py: PyTorch sees no device")
        self.device = "cpu" if self.dry else "cuda"
        self.l2_bytes = 1 << 16 if self.dry else torch.cuda.get_device_properties(0).L2_cache_size
        self.flex_seconds = options.flex_seconds
        self.flex_spent, self.flex_known = {}, set()
        self.gemm = None
        torch.manual_seed(1)
        torch._dynamo.config.cache_size_limit = 256

    def about(self):
        facts = {"torch": torch.__version__, "torch_cuda": str(torch.version.cuda)}
        if not self.dry:
            if self.gemm is None:
                self.gemm = gemm_rate()
            facts |= {"torch_cudnn": torch.backends.cudnn.version(),
                      "torch_device": torch.cuda.get_device_name(0),
                      "torch_gemm_flops_per_second": self.gemm}
        return facts

    def forms(self, s):
        yield from sdpa_forms(s)
        if s.ragged:
            yield "varlen", lambda: varlen_form(s)
        yield "flex", lambda: flex_form(s, compiled=not self.dry)

    def measure(self, shape):
        if self.dry:
            shape = small(shape)
        s = Shape(shape, self.device, self.l2_bytes)
        answer = {"seconds": {}, "refused": {}, "sets": s.sets}
        with torch.set_grad_enabled(s.backward):
            s.draw()
            for name, form in self.forms(s):
                try:
                    with warnings.catch_warnings(record=True) as said:
                        warnings.simplefilter("always")
                        answer["seconds"][name] = self.seconds(s, name, form)
                except OutOfTime as error:
                    answer["refused"][name] = str(error)
                except Exception as error:  # whatever it is: a form less
                    why = [str(error), *(str(w.message) for w in said)]
                    answer["refused"][name] = " | ".join(dict.fromkeys(w[:160] for w in why))
                if not self.dry:
                    torch.cuda.empty_cache()
        return answer

    def seconds(self, s, name, form):
        start = time.monotonic()
        known = (name, json.dumps(s.shape, sort_keys=True))
        spent = self.flex_spent.get(s.shape["set"], 0)
        if name == "flex" and known not in self.flex_known and spent > self.flex_seconds:
            raise OutOfTime("not tried: the time for compiling was spent on other shapes")
        function, kind = form() if callable(form) else form
        sets = sets_for(s, kind)
        queries = s.q * (1 if s.backward else len(sets))
        s.check(function(queries[0], *sets[0]))
        if name == "flex" and known not in self.flex_known:
            self.flex_known.add(known)
            self.flex_spent[s.shape["set"]] = spent + time.monotonic() - start
        calls = [lambda q=q, kv=kv: function(q, *kv) for q, kv in zip(queries, sets)]
        if s.backward:
            calls = [self.gradient(s, call(), (q, *kv))
                     for call, q, kv in zip(calls, queries, sets)]
        clock = seconds_on_cpu if self.dry else seconds_on_cuda
        return clock(calls, captured=not s.backward)

    @staticmethod
    def gradient(s, out, leaves):
        return lambda: torch.autograd.grad(out, leaves, s.d_out, retain_graph=True)


def small(shape):
    """The same kind of shape in sizes for a CPU."""
    context = {True: 300, False: 96}[shape.get("lengths") == "log_uniform"]
    rows = context if shape["rows"] == shape["context"] else shape["rows"]
    return {**shape, "context": context, "rows": rows, "batch": min(shape["batch"], 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flex_seconds", type=float, default=40)
    parser.add_argument("--dry-run", action="store_true")
    measurer = Measurer(parser.parse_args())
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    for line in sys.stdin:
        question = json.loads(line)
        answer = measurer.about() if "about" in question else measurer.measure(question["shape"])
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the other program's turn
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
