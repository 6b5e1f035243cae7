"""How a peer answers the lines that it is asked: `infer PRECISION BATCH` by the outputs, `slice PRECISION BATCH MILLISECONDS` by
the microseconds of a call."""

import functools
import gc
import json
import statistics
import sys
import time


def slice_of(run, milliseconds):
    """Microseconds: the median of the calls that begin within this time, at least three, after one that is not counted."""
    run()
    clock, times = time.perf_counter_ns, []
    end = clock() + milliseconds * 1_000_000
    while len(times) < 3 or clock() < end:
        began = clock()
        run()
        times.append(clock() - began)
    return statistics.median(times) / 1000


def fastest(*runs):
    return min(runs, key=lambda run: slice_of(run, 100))


def serve(about, session):
    """Says what it is, then answers: `session(precision, batch)` is made once for each, infers by `infer`, and is timed by `run`."""
    session = functools.cache(session)
    gc.disable()
    print(json.dumps(about), flush=True)
    for line in sys.stdin:
        verb, precision, batch, *rest = line.split()
        asked = session(precision, int(batch))
        answer = slice_of(asked.run, int(rest[0])) if verb == "slice" else asked.infer()
        print(json.dumps(answer), flush=True)
