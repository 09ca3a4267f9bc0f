"""Device times: a card's own events, with its cache cold or warm."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.errors import BenchError

WARM_CALLS = 20
# Cycles, some milliseconds, that the card waits before a time begins: the host queues the calls
# meanwhile, which takes it longer than the card needs for them. It grows where that is too short.
HEAD_START, LONGEST = 2**24, 2**30


class Clock:
    """Times calls on the current card with its own events."""

    def __init__(self) -> None:
        size = torch.cuda.get_device_properties(0).L2_cache_size
        self.flush = torch.empty(max(4 * size, 2**28), dtype=torch.uint8, device="cuda")
        self.head_start = HEAD_START

    def cold(self, call: Callable[[], object]) -> float:
        """Seconds of one call whose memory is not in cache."""
        self.flush.zero_()
        return self._seconds(call, 1)

    def warm(self, call: Callable[[], object]) -> float:
        """Seconds of a call among many."""
        return self._seconds(call, WARM_CALLS) / WARM_CALLS

    def _seconds(self, call: Callable[[], object], count: int) -> float:
        while self.head_start <= LONGEST:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(self.head_start)
            start.record()
            for _ in range(count):
                call()
            end.record()
            late = start.query()
            torch.cuda.synchronize()
            if not late:
                return float(start.elapsed_time(end)) * 1e-3
            # The card had begun before all was queued, so it may have waited for the host.
            self.head_start *= 2
        raise BenchError("clock: a call waits for the card; allowed: calls that only queue work")
