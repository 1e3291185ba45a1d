"""What reads hostile bytes in the caller, fed with changed good ones: no other error than the documented one, bounded memory.

Some thousand cases each; SANDCELL_FUZZ=N makes N, and SANDCELL_FUZZ_SEED begins elsewhere.
"""

import collections
import datetime
import decimal
import fractions
import os
import random
import resource
import time
import uuid

import pytest

from sandcell import _pytest_frames as frames
from sandcell._decode import Decoder, Malformed
from sandcell._decode_types import TAGS
from sandcell._encode import Encoder

CASES = int(os.environ.get("SANDCELL_FUZZ", "4000"))
SEED = int(os.environ.get("SANDCELL_FUZZ_SEED", "1"))
LIMIT = 1 << 20

GOOD = [
    None, [1, 2.5, "text", b"bytes", True], {"a": [1] * 40, "b": {"c": (1, 2)}}, {1, 2, "x"}, frozenset("ab"), 1 << 200,
    decimal.Decimal("-1.5e10"), fractions.Fraction(1, 3), uuid.UUID(int=1), datetime.datetime(2020, 1, 2, 3, 4, 5),
    collections.OrderedDict(a=1), collections.Counter("aab"), collections.deque([1], 2), range(3), ValueError("wrong"),
    [[[[[]]]]] * 5, "é\ud800" * 20, bytearray(b"x" * 300), [1.5] * 64, datetime.timezone.utc, complex(1, 2),
]  # fmt: skip
#: Numbers that lengths and counts are replaced by.
NUMBERS = [0, 1, 255, 1 << 16, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]


def encoded(value):
    encoder = Encoder()
    encoder.put(value)
    assert not encoder.buffers
    return bytes(encoder.out)


def changed(chance, data, other):
    """A few changes: bits, bytes, numbers, pieces that are left out, doubled or another message's."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + 8] = chance.choice(NUMBERS).to_bytes(8, "big")
        elif kind == 2:
            del data[at : at + chance.randint(1, 16)]
        elif kind == 3:
            data[at:at] = data[at : at + chance.randint(1, 64)] * chance.randint(1, 30)
        elif kind == 4:
            data[at:at] = other[chance.randrange(len(other)) :][:64]
        else:
            data[at : at + 1] = bytes([chance.choice(b"NTFiIfcsbBmltezdOPxX[]{}\",0123456789")])
    return bytes(data)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.mark.parametrize("part", range(4))
def test_a_decoder_of_results_raises_only_what_it_documents(part):
    chance = random.Random(f"results {SEED} {part}")
    messages = [encoded(value) for value in GOOD]
    for message in messages:  # the control: each is good before it is changed
        Decoder(memoryview(message), budget=LIMIT, tags=TAGS).value()
    before, accepted = peak(), 0
    for _ in range(CASES // 4):
        message = changed(chance, chance.choice(messages), chance.choice(messages))
        decoder = Decoder(memoryview(message), budget=LIMIT, until=time.monotonic() + 60, tags=TAGS)
        try:
            decoder.value()
            decoder.end()
            accepted += 1
        except Malformed:
            pass
        except Exception as error:  # `answer` makes a Malformed of it; here it has to be one of Python's own for bad values
            assert isinstance(error, (ValueError, TypeError, OverflowError, ArithmeticError)), (message, repr(error))
    assert peak() - before < 64 << 20
    assert 0 < accepted < CASES // 4


@pytest.mark.parametrize("part", range(4))
def test_a_decoder_of_reports_refuses_or_gives_plain_data(part):
    chance = random.Random(f"reports {SEED} {part}")
    reports = [
        frames.encode("n", "report", {"outcome": "passed", "when": "call", "longrepr": None, "sections": [["out", "x" * 50]]}),
        frames.encode("n", "coverage", ["", "file.py", None, [1, 2, 3] * 20]),
        frames.encode("n", "warning", {"message": "w", "category": "UserWarning", "deep": [[[[{"a": 1e10}]]]]}),
    ]
    before, taken, refused = peak(), 0, 0
    for _ in range(CASES // 4):
        reader = frames.Frames()
        reader.begin("n")
        stream = b"".join(chance.choice(reports) for _ in range(2))
        stream = changed(chance, stream, chance.choice(reports))
        try:
            while stream:
                piece, stream = stream[: chance.randint(1, 200)], stream[200:]
                for kind, value in reader.take_in(piece):
                    assert isinstance(kind, str)
                    frames.check(frames.encode("n", kind, value)[8:])
                    taken += 1
        except frames.Refused:
            refused += 1
    assert peak() - before < 64 << 20
    assert taken and refused
