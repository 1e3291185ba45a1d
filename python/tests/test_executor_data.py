"""Executor: what comes back from tasks: plain data, arrays, and the caller's own types."""

import array
import collections
import contextlib
import dataclasses
import datetime
import decimal
import enum
import fractions
import os
import pathlib
import sys
import threading
import uuid

import pytest

import sandcell

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = [entry for entry in sys.path if any(os.path.isdir(f"{entry}/{name}") for name in ("pytest", "sandcell"))]


def executor(**keywords):
    return sandcell.Executor(1, path=[HERE, *PACKAGES], timeout=120, **keywords)


@pytest.fixture(scope="module")
def pool():
    with executor() as pool:
        yield pool


def echo(value):
    return value


PLAIN = [
    None, True, 0, -1, (1 << 63) - 1, -(1 << 63), 1 << 63, -(1 << 100), 1.5, float("inf"), 2j,
    "", "a\0b", "é", "\U0001f600\ud800", "x" * 200_000, b"", b"\xff" * 200_000, bytearray(b"y"),
    [], [1] * 100, [1.5] * 100, [True] * 100, [1 << 70] * 100, [1, 2.0] * 50, (), (1, (2,)), {}, {"a": {1: [None]}},
    set(), {1, "a", (2, 3)}, frozenset("xyz"), range(5, 0, -2), collections.OrderedDict(b=1, a=2),
    collections.Counter("aab"), collections.deque([1, 2], 3), array.array("d", [1, 2]), array.array("b"),
    decimal.Decimal("-1.50"), decimal.Decimal("Infinity"), fractions.Fraction(-1, 3), uuid.UUID(int=7),
    datetime.date(2020, 2, 29), datetime.timedelta(-1, 2, 3), datetime.time(1, 2, 3, 4),
    datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.datetime(1, 1, 1, tzinfo=datetime.timezone.utc),
    datetime.timezone(datetime.timedelta(hours=-5, minutes=-30)), pathlib.Path("/a/b"), pathlib.PurePosixPath("c"),
    {i: str(i) for i in range(3000)}, int, type(None), datetime.date,
]  # fmt: skip


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: type(value).__name__)
def test_plain_data_comes_back_as_it_was(value, pool):
    found = pool.submit(echo, value).result()
    assert type(found) is type(value) and found == value
    if isinstance(value, collections.deque):
        assert found.maxlen == value.maxlen


def test_what_is_not_equal_to_itself_comes_back_too(pool):
    assert str(pool.submit(echo, float("nan")).result()) == "nan"
    assert pool.submit(echo, decimal.Decimal("NaN")).result().is_nan()
    error = pool.submit(echo, OSError(2, "gone", "name")).result()
    assert type(error) is FileNotFoundError and error.filename == "name"
    view = pool.submit(echo, bytearray(b"x" * 100_000)).result()
    assert len(view) == 100_000


def nested(depth):
    value = None
    for _ in range(depth):
        value = [value]
    return value


def contains_itself():
    value = []
    value.append(value)
    return value


def test_what_is_nested_too_deeply_is_refused_with_the_depth(pool):
    assert pool.submit(nested, 100).result() == nested(100)
    for task, arguments in ((nested, [101]), (contains_itself, [])):
        with pytest.raises(sandcell.TaskError, match="nested deeper than 100"):
            pool.submit(task, *arguments).result()


def bits(count):
    return 1 << count


def test_an_integer_has_so_many_bits_at_most(pool):
    assert pool.submit(bits, 1_000_000).result() == 1 << 1_000_000
    with pytest.raises(sandcell.TaskError, match="more than 1048576 bits"):
        pool.submit(bits, 1_100_000).result()


@dataclasses.dataclass
class Point:
    x: int
    y: "Colour"


class Colour(enum.Enum):
    RED = "red"


class Pair(collections.namedtuple("Pair", "left right")):
    pass


class Named:
    def __init__(self, name):
        self.name = name


class Label(str):
    pass


def own():
    return [Point(1, Colour.RED), Pair(2, 3), Named("n"), Label("l")]


def test_types_of_the_callers_come_back_by_its_own_decoders():
    decoders = {
        Point: lambda fields: Point(**fields),
        Colour: Colour,
        Pair: lambda fields: Pair(**fields),
        f"{__name__}.Named": lambda fields: Named(**fields),
        Label: Label,
    }
    with executor(decoders=decoders) as pool:
        point, pair, named, label = pool.submit(own).result()
    assert point == Point(1, Colour.RED) and pair == Pair(2, 3) and type(pair) is Pair
    assert named.name == "n" and type(label) is Label and label == "l"


def test_a_decoder_that_raises_fails_the_task_and_is_its_cause():
    with executor(decoders={Named: lambda fields: fields["missing"]}) as pool:
        with pytest.raises(sandcell.TaskError, match="decoder of .*Named failed") as caught:
            pool.submit(Named, "n").result()
        assert isinstance(caught.value.__cause__, KeyError)
        assert pool.submit(echo, 1).result() == 1
    with executor(decoders={Named: lambda fields: None}) as pool:
        with pytest.raises(sandcell.TaskError, match="Point in it.*decoders"):
            pool.submit(own).result()


def numpy():
    try:
        import numpy
    except ImportError:  # an interpreter for which it is not installed
        pytest.skip("no numpy for this interpreter")
    return numpy


def test_arrays_of_numpy_come_back_as_they_were_and_can_be_written(pool):
    np = numpy()
    arrays = [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::-2],
        np.zeros((0, 3)),
        np.array(3.5),
        np.array(["a", "bc"]),
        np.array([b"x"]),
        np.array([True, False]),
        np.array(["2020-01-01"], "M8[D]"),
        np.array([1j], "c8"),
        np.arange(1 << 18, dtype=">i4").reshape(512, 512),
    ]
    for sent in arrays:
        found = pool.submit(echo, sent).result()
        assert found.dtype == sent.dtype and found.shape == sent.shape and (found == sent).all()
        assert found.flags.writeable and found.flags.f_contiguous == sent.flags.f_contiguous or not sent.flags.forc
    scalar = pool.submit(echo, np.float32(2)).result()
    assert type(scalar) is np.float32 and scalar == 2
    with pytest.raises(sandcell.TaskError, match="ndarray of object"):
        pool.submit(echo, np.array([None])).result()


def test_a_large_array_is_not_copied_in_the_caller():
    np = numpy()

    def peak():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) << 10

    sent = np.full(100_000_000, 7, "u1")
    with executor() as pool:
        pool.submit(echo, 1).result()
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        resting = peak()
        found = pool.submit(echo, sent).result()
        assert (len(found), found[0], found[-1]) == (100_000_000, 7, 7)
        assert peak() - resting < 150_000_000
        assert int(found[::4096].sum()) == 7 * len(found[::4096])


def test_arrays_and_tables_of_arrow_come_back_as_they_were(pool):
    pa = pytest.importorskip("pyarrow")
    days = pa.array([datetime.date(2020, 1, 1), None])
    arrays = [
        pa.array([1, None, 3]),
        pa.array([1.5, 2.5, 3.5])[1:],
        pa.array(["a", None, "c"]),
        pa.array([True, False, None]),
        pa.array([b"x" * 100_000]),
        pa.array([], "int8"),
        pa.array([], "string"),
        days,
        pa.chunked_array([[1], [2, 3]]),
        pa.table({"a": [1, 2], "b": ["x", "y"], "c": days}),
    ]
    for sent in arrays:
        assert pool.submit(echo, sent).result().equals(sent)
    with pytest.raises(sandcell.TaskError):
        pool.submit(echo, pa.array([[1]])).result()


@contextlib.contextmanager
def held():
    """A large task that waits behind another."""
    with executor() as pool:
        event = threading.Event()
        pool._pool.submit(event.wait)
        yield pool, event


def test_a_large_argument_is_read_when_its_task_starts():
    np = numpy()
    sent = np.zeros(1 << 20, "u1")
    with held() as (pool, event):
        future = pool.submit(echo, sent)
        sent[:] = 1
        event.set()
        assert future.result().all()


def test_text_that_would_take_more_than_the_limit_in_memory_is_output_over_the_limit():
    with executor(result_limit="1M") as pool:
        with pytest.raises(sandcell.TaskError, match="result_limit") as caught:
            pool.submit(echo, [[] for _ in range(20_000)]).result()
        assert caught.value.outcome.kind == "output_limit"
        assert len(pool.submit(echo, [1] * 20_000).result()) == 20_000
