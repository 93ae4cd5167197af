# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""How torch_cuda_forms.py measures: as the program beside it does, by events between graphs."""
import statistics
import time

import torch


def seconds_by_events(start, calls):
    """Median over 5 runs of what `start` starts, behind one that is not counted."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(6)]
    start()
    for i, event in enumerate(events):
        if i > 0:
            start()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(a.elapsed_time(b) * 1e-3 / calls for a, b in zip(events, events[1:]))


def seconds_on_cuda(calls, captured):
    """calls: on one set after another; all sets in turn, as often as fill 200 us. What is not
    captured runs on the stream that it was prepared on, as gradients do anyway."""
    for call in calls[:3]:
        call()
    torch.cuda.synchronize()
    once = seconds_by_events(lambda: [call() for call in calls], len(calls))
    turns = max(1, int(200e-6 / (once * len(calls))))

    def start():
        for _ in range(turns):
            for call in calls:
                call()
    if not captured:
        return seconds_by_events(start, turns * len(calls))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        start()  # what a stream is given for the first time may be set up
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            start()
        return seconds_by_events(graph.replay, turns * len(calls))


def seconds_on_cpu(calls, captured):
    start = time.perf_counter()
    for call in calls:
        call()
    return (time.perf_counter() - start) / len(calls)


def gemm_rate(size=8192):
    """Of products of bfloat16, to be held against what the program measured."""
    a, b = (torch.empty(size, size, dtype=torch.bfloat16, device="cuda").uniform_(-1, 1)
            for _ in range(2))
    return 2 * size ** 3 / seconds_by_events(lambda: [a @ b for _ in range(5)], 5)
