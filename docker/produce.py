"""The producer of compose.yaml: orders that come in waves, now above the capacity and now below."""

from __future__ import annotations

import math
import time
from itertools import count

from proj import alive, write_orders

PERIOD = 120.0
"""Seconds from wave to wave."""
COST = 10


def main() -> None:
    """Enqueue 20 to 160 orders a second, each of cost 10, for ever: the capacity is 100 of them."""
    numbers = count()
    while True:
        wave = math.sin(2 * math.pi * time.time() / PERIOD)
        orders = [{"order": next(numbers)} for _ in range(round(90 + 70 * wave))]
        write_orders.enqueue_many(orders, cost=COST)
        alive()
        time.sleep(1)


if __name__ == "__main__":
    main()
