"""Changes the capacity of the shared resource: `python -m apps.set_capacity 1000`.

Prints when the store had it, on the monotonic clock.
"""

import sys
import time

from apps.sharing import resource

resource.set_capacity(int(sys.argv[1]))
print(time.monotonic())
