"""Threads of torch that wait leave their core to others: passes beside each other would take several times as long."""

import os
import subprocess
import sys

PROGRAM = """
import time
import precompute, torch
torch.set_num_threads(2)
numbers = torch.ones(1 << 20).add(1)
begin = time.process_time()
for _ in range(100):
    numbers.add_(1)
    time.sleep(0.005)
print(time.process_time() - begin)
"""


def processor_seconds(**environment: str) -> float:
    """Of a hundred short operations on two threads, with pauses."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**own, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def test_a_thread_that_waits_uses_no_processor_time() -> None:
    assert processor_seconds() < processor_seconds(OMP_WAIT_POLICY="ACTIVE") / 4
