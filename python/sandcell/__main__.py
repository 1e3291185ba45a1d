"""`python -m sandcell doctor`: what this host allows, what blocks, and the remedy."""

import json
import sys

from . import _native


def main(words: list[str]) -> int:
    if words not in (["doctor"], ["doctor", "--json"]):
        print("usage: python -m sandcell doctor [--json]", file=sys.stderr)
        return 2
    text = _native.doctor()
    findings = json.loads(text)
    if "--json" in words:
        print(text)
    else:
        for finding in findings:
            print(f"{'ok  ' if finding['ok'] else 'NO  '}{finding['name']}: {finding['detail']}")
            if finding["remedy"]:
                print(f"      {finding['remedy']}")
    return 0 if all(f["ok"] for f in findings if f["name"] == "sandbox") else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
