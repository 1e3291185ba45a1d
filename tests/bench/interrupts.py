"""How long a KeyboardInterrupt takes to come out of each blocking call, in milliseconds. Run by tests/bench/python."""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

CALLS = [
    "box.run(['sleep', '1000'])",
    "box.run(['sleep', '1000'], capture_output=True)",
    "cell.run(['sleep', '1000'])",
    "box.Popen(['sleep', '1000']).wait()",
    "box.Popen(['sleep', '1000']).wait(timeout=1000)",
    "box.Popen(['sleep', '1000'], stdout=sandcell.PIPE).communicate()",
    "cell.Popen(['sleep', '1000'], stdout=sandcell.PIPE).communicate(timeout=1000)",
    "asyncio.run(box.run_async(['sleep', '1000']))",
    "pool.submit(time.sleep, 1000).result()",
    "store.load(large, name='large', format='rootfs')",
    "store.build(sandcell.Build('scratch').copy('.', '/'), context=large)",
]
PROGRAM = """
import asyncio, sys, time, sandcell
store, large = sandcell.Store({place!r} + "/store"), {place!r} + "/large"
box = sandcell.Sandbox()
cell = box.start()
pool = sandcell.Executor(1)
print(flush=True)
try:
    {call}
except KeyboardInterrupt:
    print(time.monotonic(), flush=True)
pool._pool.shutdown(False, cancel_futures=True)
pool.kill_workers()
"""

# Two seconds of work, at least.
place = tempfile.mkdtemp(prefix="sandcell-bench-", dir="/var/tmp")
atexit.register(shutil.rmtree, place)
os.mkdir(place + "/large")
for number in range(16):
    with open(f"{place}/large/{number}", "wb") as file:
        file.write(os.urandom(1 << 20) * 64)

for call in CALLS:
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(call=call, place=place)], stdout=subprocess.PIPE, text=True
    ) as python:
        python.stdout.readline()
        time.sleep(0.5)
        start = time.monotonic()
        python.send_signal(signal.SIGINT)
        print(f"{(float(python.stdout.readline()) - start) * 1e3:7.1f} ms   {call}", flush=True)
