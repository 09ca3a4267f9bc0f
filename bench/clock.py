"""Device times: a card's own events, with its cache cold or warm."""

from __future__ import annotations

from collections.abc import Callable

import torch

WARM_CALLS = 20
# Cycles, some milliseconds, that the card waits before a time begins: the host queues the calls
# meanwhile, which takes it longer than the card needs for them.
HEAD_START = 2**24


class Clock:
    """Times calls on the current card with its own events."""

    def __init__(self) -> None:
        size = torch.cuda.get_device_properties(0).L2_cache_size
        self.flush = torch.empty(max(4 * size, 2**28), dtype=torch.uint8, device="cuda")

    def cold(self, call: Callable[[], object]) -> float:
        """Seconds of one call whose memory is not in cache."""
        self.flush.zero_()
        return self._seconds(call, 1)

    def warm(self, call: Callable[[], object]) -> float:
        """Seconds of a call among many."""
        return self._seconds(call, WARM_CALLS) / WARM_CALLS

    def _seconds(self, call: Callable[[], object], count: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(HEAD_START)
        start.record()
        for _ in range(count):
            call()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) * 1e-3
