"""Runs a snippet that nobody has read and shows what came of it."""

import sandcell

SNIPPETS = {
    "a good one": "print(sum(range(10)))",
    "a curious one": "import os; print(os.listdir('/home'), os.environ.get('AWS_SECRET_KEY'))",
    "one without end": "while True: pass",
    "a talkative one": "while True: print('x' * 1000)",
    "a broken one": "print(1 / 0)",
}


def main() -> None:
    # What a start prepares is prepared once; each snippet has a sandbox of its own.
    box = sandcell.Sandbox(timeout="1s", grace="100ms", output_limit="64K")
    for name, code in SNIPPETS.items():
        try:
            r = box.run(["/usr/bin/python3", "-I", "-c", code], capture_output=True, text=True)
        except sandcell.TimeoutExpired as expired:
            print(f"{name}: timed out after {expired.timeout} s")
            continue
        last = (r.stdout or r.stderr).splitlines()[-1:] or ["(nothing)"]
        print(f"{name}: {r.outcome}, CPU {r.usage.user_seconds:.2f} s, said {last[0][:60]}")


if __name__ == "__main__":
    main()
