"""Replies that hostile code writes, from inside a sandbox, on the socket where an Executor expects the worker's answer."""

import os
import pickle
import socket
import struct
import sys
import time

#: What `result_limit` is.
LIMIT = 16 << 20
#: By name: what is done inside, and what comes of it: a value, or one of these.
CASES = {}
#: It is refused; it is taken, as a value or as an exception; it is taken, and the worker is not ready for another task;
#: there is no answer in time; the answer's socket is closed.
FAILS, DATA, RAISES, STAYS, TIMES_OUT, GONE = "fails", "data", "raises", "stays", "times out", "gone"


def case(function=None, *, value=FAILS):
    def add(function):
        CASES[function.__name__] = function, value
        return function

    return add if function is None else add(function)


def done(name, value, *buffers):
    """A result that is this value, as bytes, with these buffers."""
    CASES[name] = lambda wire, _: wire.done(value(), *buffers), FAILS


class Wire:
    """The answer's socket and its token, found in the worker's frames as hostile code would."""

    def __init__(self):
        frame = sys._getframe()
        while frame.f_code.co_name != "main" or "reply" not in frame.f_locals:
            frame = frame.f_back
        self.reply, self.token = frame.f_locals["reply"], frame.f_locals["token"]

    def put(self, data):
        self.reply.sendall(data)

    def head(self, length, *sizes, count=None, token=None):
        self.put((token or self.token) + size(length) + size(len(sizes) if count is None else count))
        self.put(b"".join(map(size, sizes)))

    def message(self, message, *buffers):
        self.head(len(message), *map(len, buffers))
        self.put(message + b"".join(buffers))
        self.end()

    def end(self):
        self.reply.shutdown(socket.SHUT_WR)

    def done(self, value, *buffers):
        self.message(b"D" + value, *buffers)


def size(number):
    return struct.pack(">Q", number)


def data(code, value):
    return code + size(len(value)) + value


def text(value):
    return data(b"s", value if isinstance(value, bytes) else value.encode())


def integer(value):
    return b"i" + struct.pack(">q", value)


def several(code, *values):
    return code + size(len(values)) + b"".join(values)


def tag(name, value):
    return b"x" + bytes([len(name)]) + name.encode() + value


def parts(*values):
    return several(b"t", *values)


def numpy(kind="<f8", shape=parts(integer(2)), order="C", content=bytes(16)):
    return tag("numpy", parts(text(kind), shape, text(order), data(b"B", content)))


class Runs:
    """A pickle of this runs a program."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def stay():
    while True:
        time.sleep(1)


def square(n):
    """A task that does no harm; here, where no large module has to be imported inside."""
    return n * n


def attack(name, mark):
    wire = Wire()
    function, value = CASES[name]
    function(wire, mark)
    if value in (FAILS, STAYS, TIMES_OUT, GONE):
        stay()  # so that what has been sent is all that comes


# Lengths


@case
def a_message_of_2_to_the_64(wire, _):
    wire.head((1 << 64) - 1)


@case
def a_message_of_2_to_the_32_of_which_nothing_comes(wire, _):
    wire.head(1 << 32)


@case(value=TIMES_OUT)
def a_message_just_within_the_limit_of_which_nothing_comes(wire, _):
    wire.head(LIMIT)


@case
def an_empty_message(wire, _):
    wire.head(0)


@case
def a_million_buffers(wire, _):
    wire.head(10, count=1 << 20)


@case
def as_many_buffers_as_a_number_holds(wire, _):
    wire.head(10, count=(1 << 64) - 1)


@case
def buffers_that_together_are_too_large(wire, _):
    wire.head(10, *[LIMIT // 4] * 5)


@case
def buffers_whose_sizes_overflow(wire, _):
    wire.head(10, (1 << 64) - 1, 1)


@case
def many_empty_buffers(wire, _):
    wire.head(2, *[0] * 16000)
    wire.put(b"DN")
    wire.end()


done("a_buffer_that_nobody_uses", lambda: b"N", b"x")
done("a_buffer_that_is_not_there", lambda: b"m")
done("a_buffer_that_is_used_twice", lambda: several(b"l", b"m", b"m"), b"x")
done("text_of_2_to_the_63", lambda: b"s" + size(1 << 63) + b"x")
done("a_list_of_2_to_the_62", lambda: b"l" + size(1 << 62) + b"N" * 100)
done("a_dictionary_of_more_than_there_is", lambda: b"d" + size(60) + b"N" * 100)
done("a_packed_list_of_2_to_the_61", lambda: b"Pq" + size(1 << 61) + bytes(800))
done("bytes_that_end_in_the_middle", lambda: b"b" + size(100) + b"x" * 99)


# What grows

done("a_list_of_millions_of_empty_lists", lambda: several(b"l", *[b"l" + size(0)] * (1 << 20)))
done("a_list_of_ten_million_nothings", lambda: b"l" + size(10 << 20) + b"N" * (10 << 20))
done("a_packed_list_that_grows_sixfold", lambda: b"Pd" + size(1 << 20) + bytes(8 << 20))
done("ascii_text_with_one_wide_character", lambda: text(b"x" * (10 << 20) + "\U0001f600".encode()))
done("a_hundred_thousand_empty_sets", lambda: several(b"l", *[b"e" + size(0)] * 100_000))
done("a_hundred_thousand_deques", lambda: several(b"l", *[tag("deque", parts(b"N", b"l" + size(0)))] * 100_000))
done("bytes_of_the_whole_limit_twice", lambda: parts(data(b"b", bytes(LIMIT // 2)), data(b"b", bytes(LIMIT // 2 - 100))))


# Depth

done("lists_a_million_deep", lambda: (b"l" + size(1)) * 1_000_000 + b"N")
done("tuples_a_hundred_thousand_deep", lambda: (b"t" + size(1)) * 100_000 + b"N")
done("types_a_thousand_deep", lambda: b"x\x04path" * 1000 + b"N")
done("dictionaries_in_keys_and_values", lambda: (b"d" + size(1) + b"N") * 200 + b"N")
done("frozensets_a_hundred_and_fifty_deep", lambda: (b"z" + size(1)) * 150 + b"N")


# Numbers

done("an_integer_of_ten_million_digits", lambda: data(b"I", b"\x7f" * 4_152_411))
done("an_integer_just_too_long", lambda: data(b"I", b"\x7f" * ((1 << 17) + 2)))
done("a_decimal_with_a_gigantic_exponent", lambda: tag("decimal", text("1e10000000")))
done("a_zero_with_a_gigantic_exponent", lambda: tag("decimal", text("0e-999999999999")))
done("a_decimal_of_a_million_digits", lambda: tag("decimal", text("9" * 1_000_000)))
done("a_decimal_that_is_no_number", lambda: tag("decimal", text("one")))
done("a_decimal_from_a_tuple", lambda: tag("decimal", parts(integer(0), parts(integer(1)), integer(10**9))))
done("a_fraction_from_text", lambda: tag("fraction", text("1e10000000")))
done("a_fraction_of_a_decimal", lambda: tag("fraction", parts(tag("decimal", text("1e9999")), integer(1))))
done("a_fraction_of_large_numbers", lambda: tag("fraction", parts(data(b"I", b"\x7f" * 100_000), data(b"I", b"\x7e" * 100_000))))
done("a_fraction_of_nothing", lambda: tag("fraction", parts(integer(1), integer(0))))


@case(value=DATA)
def thousands_of_fractions_that_take_long(wire, _):
    one = tag("fraction", parts(data(b"I", b"\x7f" * 2048), data(b"I", b"\x7e" * 2048)))
    wire.done(several(b"l", *[one] * 3500))


@case
def keys_of_one_hash(wire, _):
    modulus = (1 << 61) - 1
    keys = [data(b"I", (n * modulus).to_bytes(12, "big")) for n in range(1, 100_000)]
    wire.done(several(b"e", *keys))


@case
def complex_keys_of_one_hash(wire, _):
    keys = [b"c" + struct.pack(">dd", -1000003.0 * n, float(n)) for n in range(1, 50_000)]
    wire.done(several(b"e", *keys))


done("a_date_that_is_none", lambda: tag("date", parts(integer(2020), integer(2), integer(31))))
done("a_duration_beyond_all", lambda: tag("timedelta", parts(integer(10**18), integer(0), integer(0))))
done("a_time_zone_of_the_callers_files", lambda: tag("timezone", text("../../etc/passwd")))
done("a_queue_of_negative_length", lambda: tag("deque", parts(integer(-5), several(b"l", b"N"))))
done("a_counter_that_is_a_list", lambda: tag("counter", several(b"l", b"N")))


# Codes

done("an_unknown_code", lambda: b"\xff")
done("every_byte", lambda: bytes(range(256)))


@case
def random_bytes(wire, _):
    wire.message(os.urandom(100_000))


@case
def an_unknown_kind_of_answer(wire, _):
    wire.message(b"ZN")


done("two_values", lambda: b"NN")
done("a_type_by_its_dotted_name", lambda: tag("os.system", text("true")))
done("a_type_whose_name_is_no_text", lambda: b"x\x04\xff\xfe\xfd\xfcN")
done("a_class_that_is_not_plain", lambda: tag("class", parts(text("subprocess"), text("Popen"))))
done("a_class_with_a_dotted_name", lambda: tag("class", parts(text("numpy"), text("ndarray.__init__"))))
done("a_registered_type_that_is_not", lambda: data(b"X", b"builtins.eval") + text("1"))
done("a_list_as_key", lambda: several(b"e", b"l" + size(0)))
done("a_signalling_number_as_key", lambda: several(b"e", tag("decimal", text("sNaN"))))
done("text_that_is_not_utf8", lambda: text(b"\xff\xfe\xff"))


@case(value="a\0\ud800\x1b[31m")
def text_with_nul_surrogates_and_escapes_is_data(wire, _):
    wire.done(text("a\0\ud800\x1b[31m".encode("utf-8", "surrogatepass")))


# Pickles


@case
def a_pickle_that_runs_a_program(wire, mark):
    wire.message(pickle.dumps(Runs(mark)))


@case
def a_pickle_where_unsafe_pickles_are_not_taken(wire, mark):
    wire.message(b"P" + pickle.dumps((Runs(mark), None, "")))


@case
def a_pickle_with_a_dotted_name(wire, mark):
    wire.message(b"P\x80\x04\x8c\x09fractions\x8c\x1cFraction.__init__.__globals__\x93.")


@case
def a_pickle_with_a_memo_of_2_to_the_26(wire, _):
    wire.message(b"PNr" + struct.pack("<I", 1 << 26) + b".")


@case
def a_pickle_that_changes_a_class(wire, _):
    wire.message(b"Pcfractions\nFraction\n}X\x06\0\0\0__eq__K\x01sb.")


# Arrays

done("an_array_of_objects", lambda: numpy("|O"))
done("an_array_of_a_structure_with_objects", lambda: numpy("O,O"))
done("an_array_whose_type_is_code", lambda: numpy("__import__('os').system('true')"))
done("an_array_of_another_length", lambda: numpy(shape=parts(integer(3))))
done("an_array_of_a_negative_length", lambda: numpy(shape=parts(integer(-2))))
done("an_array_of_two_negative_lengths", lambda: numpy(shape=parts(integer(-2), integer(-1))))
done("an_array_whose_length_is_not_a_number", lambda: numpy(shape=parts(b"f" + struct.pack(">d", float("nan")))))
done("an_array_whose_length_is_true", lambda: numpy("|u1", shape=parts(b"T"), content=b"x"))
done("an_array_whose_size_overflows", lambda: numpy("|u1", parts(integer(1 << 40), integer(1 << 40)), content=b""))
done("an_empty_array_of_gigantic_axes", lambda: numpy(shape=parts(integer(1 << 50), integer(0)), content=b""))
done("an_array_of_texts_of_no_length", lambda: numpy("<U0", parts(integer(1 << 40)), content=b""))
done("an_array_of_a_hundred_axes", lambda: numpy("<f8", parts(*[integer(1)] * 100), content=bytes(8)))


@case
def an_array_with_strides(wire, _):
    shape = parts(integer(2))
    wire.done(tag("numpy", parts(text("<f8"), shape, text("C"), data(b"B", bytes(16)), parts(integer(-8)))))


done("an_array_in_an_order_that_is_none", lambda: numpy(order="K"))
done("an_array_of_characters_that_are_none", lambda: numpy("<U4", parts(integer(1)), content=b"\xff" * 16))
done("an_array_of_truths_that_are_neither", lambda: numpy("|b1", content=b"\x02\xff"))
done("an_array_without_bytes", lambda: tag("numpy", parts(text("<f8"), parts(integer(2)), text("C"), b"N")))
done("an_array_of_numbers_of_a_type_that_is_none", lambda: tag("array", parts(text("u"), data(b"B", b"\xff" * 8))))


@case
def an_arrow_array_beyond_its_bytes(wire, _):
    buffers = several(b"l", b"N", data(b"B", bytes(8)))
    wire.done(tag("arrow", parts(text("int64"), integer(1 << 30), integer(0), buffers)))


@case
def arrow_texts_at_wild_offsets(wire, _):
    offsets = data(b"B", struct.pack("<ii", 0, 1 << 30))
    buffers = several(b"l", b"N", offsets, data(b"B", b"x"))
    wire.done(tag("arrow", parts(text("string"), integer(1), integer(0), buffers)))


@case
def an_arrow_extension_type(wire, _):
    buffers = several(b"l", b"N", data(b"B", bytes(8)))
    wire.done(tag("arrow", parts(text("extension<x>"), integer(1), integer(0), buffers)))


# Exceptions


@case
def an_exception_that_is_no_class(wire, _):
    wire.message(b"R" + parts(*[text("x")] * 3) + tag("error", parts(text("eval"), parts(text("1")))))


@case
def an_exception_that_ends_the_caller(wire, _):
    wire.message(b"R" + parts(*[text("x")] * 3) + tag("error", parts(text("SystemExit"), parts(integer(1)))))


@case
def an_exception_that_is_a_number(wire, _):
    wire.message(b"R" + parts(*[text("x")] * 3) + integer(1))


@case
def an_exception_with_wrong_arguments(wire, _):
    wire.message(b"R" + parts(*[text("x")] * 3) + tag("error", parts(text("UnicodeDecodeError"), parts(b"N"))))


@case
def an_exception_without_texts(wire, _):
    wire.message(b"R" + parts(integer(1), integer(2), integer(3)) + b"N")


@case(value=RAISES)
def an_exception_whose_text_controls_a_terminal(wire, _):
    wire.message(b"R" + parts(text("a\x1b]0;x\x07"), text("\x1b[2J\r\u202e"), text("\x1b[31m" * 100)) + b"N")


# Who answers what


@case(value=TIMES_OUT)
def half_an_answer(wire, _):
    wire.head(100)
    wire.put(b"D" + b"x" * 40)


@case(value=TIMES_OUT)
def half_a_head(wire, _):
    wire.put(wire.token)


@case(value=GONE)
def half_an_answer_and_the_end(wire, _):
    wire.head(100)
    wire.put(b"D")
    os.close(wire.reply.fileno())


@case(value=TIMES_OUT)
def no_answer(wire, _):
    pass


@case(value=GONE)
def no_answer_and_no_socket(wire, _):
    os.close(wire.reply.fileno())


@case(value=TIMES_OUT)
def an_answer_a_byte_at_a_time(wire, _):
    wire.head(1 << 20)
    while True:
        wire.put(b"D")
        time.sleep(0.05)


@case
def an_answer_with_another_number(wire, _):
    wire.head(2, token=bytes(16))
    wire.put(b"DN")


@case
def an_answer_with_a_number_one_off(wire, _):
    wire.head(2, token=wire.token[:15] + bytes([wire.token[15] ^ 1]))
    wire.put(b"DN")


@case
def two_answers(wire, _):
    wire.put((wire.token + size(2) + size(0) + b"DN") * 2)


@case(value=STAYS)
def an_answer_that_is_not_ended(wire, _):
    wire.head(2)
    wire.put(b"DN")


@case(value=STAYS)
def another_answer_a_little_later(wire, _):
    for _ in range(2):
        wire.head(2)
        wire.put(b"DN")
        time.sleep(0.2)


@case
def an_answer_and_a_megabyte(wire, _):
    wire.head(2)
    try:
        wire.put(b"DN" + bytes(1 << 20))
    except OSError:
        pass  # the caller has closed it
