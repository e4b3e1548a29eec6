#!/usr/bin/env python3
"""Writes the session cases: python3 tests/vectors/session/generate.py tests/vectors/session

Each family below states what must come out; nothing here plays a broker. Where an outcome depends
on a length or a state, the rule stands as a condition in the family, as in the protocol's tables.
"""

import json
import pathlib
import sys

CONNECT, DISCONNECT = b"\x01\x00", b"\x02\x00"
BUDGET = 64


def frame(packet, payload=b""):
    return bytes([packet, len(payload)]) + payload


def topics(*names):
    return b"".join(bytes([len(name)]) + name for name in names)


def subscribe(*names):
    return frame(3, topics(*names))


def unsubscribe(*names):
    return frame(4, topics(*names))


def publish(topic, data=b""):
    return frame(5, topics(topic) + data)


class Case:
    """Bytes of connections in their order, what each of them gets, and why it is closed."""

    def __init__(self, name, row):
        self.name, self.row = name, row
        self.steps, self.out, self.close = [], {}, {}

    def send(self, who, *parts):
        self.steps.append({"at": who, "send": b"".join(parts).hex(" ")})
        self.out.setdefault(who, b"")
        self.close.setdefault(who, "eof")
        return self

    def end(self, who):
        self.steps.append({"at": who, "end": True})
        return self

    def wait(self, millis):
        self.steps.append({"pass_ms": millis})
        return self

    def gets(self, who, *parts):
        self.out[who] = b"".join(parts)
        return self

    def closes(self, who, reason):
        self.close[who] = reason
        return self

    def as_json(self):
        ends = {}
        for who in self.close:
            ends[who] = {"out": self.out[who].hex(" "), "close": self.close[who]}
        return {"name": self.name, "row": self.row, "steps": self.steps, "connections": ends}


FILES = {}


def family(file, about):
    cases = FILES.setdefault(file, {"about": about, "cases": []})["cases"]

    def add(case):
        cases.append(case)
        return case

    return lambda name, row: add(Case(name, row))


# ---- frames and their lengths

case = family("frames", "Lengths, lists and topics: what is forwarded, and what changes nothing.")

for payload_len in (0, 1, 2, 3, 127, 128, 254, 255):
    lengths = {0, 1, payload_len - 2, payload_len - 1, payload_len, payload_len + 1, 255}
    for topic_len in sorted(length for length in lengths if 0 <= length <= 255):
        if payload_len == 0 and topic_len > 0:
            continue
        payload = bytes([topic_len])[:payload_len] + b"x" * (payload_len - 1)
        sent = frame(5, payload)
        fits = topic_len + 1 <= payload_len
        topic = b"x" * topic_len
        wanted = topic if topic_len <= 254 else b"x"
        it = case(f"publish_payload_{payload_len}_topic_{topic_len}", "A3")
        it.send("w", CONNECT, subscribe(wanted))
        it.send("s", CONNECT, sent, publish(wanted[:250], b"!"))
        behind = publish(wanted[:250], b"!") if wanted == wanted[:250] else b""
        it.gets("w", sent if fits else b"", behind)

for name, sent, held in [
    ("127_topics_of_one_byte", subscribe(*[bytes([n]) for n in range(127)]), [b"\x00", b"\x7e"]),
    ("255_empty_topics", subscribe(*[b""] * 255), [b""]),
    ("one_topic_of_254_bytes", subscribe(b"t" * 254), [b"t" * 254]),
    ("85_topics_of_two_bytes", subscribe(*[b"%02d" % n for n in range(85)]), [b"00", b"84"]),
    ("no_topic", subscribe(), []),
    ("topics_of_every_length_to_21", subscribe(*[b"t" * n for n in range(22)]), [b"", b"t" * 21]),
]:
    for kind in ("subscribe", "unsubscribe"):
        it = case(f"{kind}_{name}", "A4")
        if kind == "subscribe":
            it.send("s", CONNECT, sent)
        else:
            it.send("s", CONNECT, sent, b"\x04", sent[1:], subscribe(b"kept"))
        messages = [publish(topic, b"1"[: 254 - len(topic)]) for topic in held]
        it.send("p", CONNECT, *messages, publish(b"kept", b"2"), publish(b"other", b"3"))
        it.gets("s", *(messages if kind == "subscribe" else [publish(b"kept", b"2")]))

for kind, packet in (("subscribe", 3), ("unsubscribe", 4)):
    bad = {
        **{f"last_cut_by_{n}": frame(packet, topics(b"new", b"last")[:-n]) for n in range(1, 5)},
        "only_entry_cut": frame(packet, b"\x04new"),
        "length_byte_alone": frame(packet, topics(b"new") + b"\x01"),
        "length_255_at_the_end": frame(packet, topics(b"new") + b"\xff"),
        "first_not_utf8": frame(packet, topics(b"\xff", b"new")),
        "middle_not_utf8": frame(packet, topics(b"new", b"\xc0\x80", b"last")),
        "last_not_utf8": frame(packet, topics(b"new", b"old", b"\xed\xa0\x80")),
        "character_across_two_topics": frame(packet, topics(b"new", b"\xc3", b"\xbc")),
    }
    for name, sent in bad.items():
        it = case(f"{kind}_list_{name}_changes_nothing", "A5")
        it.send("s", CONNECT, subscribe(b"old"), sent)
        it.send("p", CONNECT, *[publish(topic, b"1") for topic in (b"new", b"last", b"old")])
        it.gets("s", publish(b"old", b"1"))

for name, script, expected in [
    ("twice_in_one_list", [subscribe(b"a", b"a")], [b"a"]),
    ("twice_in_two_lists", [subscribe(b"a"), subscribe(b"b", b"a")], [b"a", b"b"]),
    ("many_times_and_once_given_up", [subscribe(b"a", b"a")] * 9 + [unsubscribe(b"a")], []),
    ("given_up_twice_in_one_list", [subscribe(b"a", b"b"), unsubscribe(b"a", b"a")], [b"b"]),
    ("given_up_and_taken_again", [subscribe(b"a"), unsubscribe(b"a"), subscribe(b"a")], [b"a"]),
    ("given_up_before_it_is_held", [unsubscribe(b"a"), subscribe(b"a")], [b"a"]),
    ("all_given_up_but_one", [subscribe(b"a", b"b", b""), unsubscribe(b"b", b"")], [b"a"]),
    ("empty_topic_given_up", [subscribe(b"", b"a"), unsubscribe(b"")], [b"a"]),
    ("prefix_given_up", [subscribe(b"a", b"ab"), unsubscribe(b"a")], [b"ab"]),
    ("longer_one_given_up", [subscribe(b"a", b"ab"), unsubscribe(b"ab")], [b"a"]),
    ("unknown_one_given_up", [subscribe(b"a"), unsubscribe(b"zz", b"a ", b"A")], [b"a"]),
    ("empty_lists_between", [subscribe(), subscribe(b"a"), unsubscribe(), subscribe()], [b"a"]),
]:
    it = case(f"set_{name}", "A6" if "given_up_before" not in name else "A11")
    it.send("s", CONNECT, *script)
    it.send("o", CONNECT, subscribe(b"a", b"b", b"ab", b""))
    messages = [publish(topic, b"m") for topic in (b"", b"a", b"ab", b"b")]
    it.send("p", CONNECT, *messages)
    it.gets("o", *messages)
    it.gets("s", *[publish(topic, b"m") for topic in (b"", b"a", b"ab", b"b") if topic in expected])

NOT_UTF8 = {
    "lone_continuation": b"\x80",
    "last_continuation": b"\xbf",
    "overlong_nul": b"\xc0\x80",
    "overlong_slash": b"\xc1\xaf",
    "overlong_of_three": b"\xe0\x9f\xbf",
    "overlong_of_four": b"\xf0\x8f\xbf\xbf",
    "first_surrogate": b"\xed\xa0\x80",
    "last_surrogate": b"\xed\xbf\xbf",
    "surrogate_pair": b"\xed\xa0\xbd\xed\xb8\x80",
    "above_the_last": b"\xf4\x90\x80\x80",
    "five_bytes": b"\xf8\x88\x80\x80\x80",
    "fe": b"\xfe",
    "ff": b"\xff",
    "two_cut": b"ok\xc3",
    "three_cut": b"ok\xe2\x82",
    "four_cut": b"ok\xf0\x9f\x98",
    "latin1": b"m\xfcller",
    "good_then_bad": b"a" * 60 + b"\x80",
    "bad_behind_253_bytes": b"a" * 253 + b"\xc3",
}
for name, topic in NOT_UTF8.items():
    for kind, sent in [
        ("publish", publish(topic, b"d"[: 254 - len(topic)])),
        ("subscribe", subscribe(topic)),
        ("unsubscribe", unsubscribe(topic)),
    ]:
        it = case(f"not_utf8_{name}_in_{kind}", "A7")
        it.send("w", CONNECT, subscribe(b"a", b"ok"))
        # A run of good messages around it does not carry it along.
        it.send("s", CONNECT, publish(b"a", topic[:250]), sent, publish(b"a", b"2"))
        it.gets("w", publish(b"a", topic[:250]), publish(b"a", b"2"))

NASTY = {
    "nul": b"\x00",
    "newline": b"a\nb",
    "carriage_return": b"\r\n",
    "escape": b"\x1b[2J",
    "delete": b"\x7f",
    "c1_control": b"\xc2\x9b",
    "right_to_left": "\u202eabc".encode(),
    "byte_order_mark": "\ufeffa".encode(),
    "combining": "a\u0301".encode(),
    "composed": "\u00e1".encode(),
    "zero_width": "a\u200bb".encode(),
    "not_a_character": "\ufffe".encode(),
    "last_character": "\U0010ffff".encode(),
    "first_of_two": "\u0080".encode(),
    "last_of_two": "\u07ff".encode(),
    "first_of_three": "\u0800".encode(),
    "before_surrogates": "\ud7ff".encode(),
    "behind_surrogates": "\ue000".encode(),
    "first_of_four": "\U00010000".encode(),
    "252_bytes_of_fours": ("\U0001f600" * 63).encode(),
    "wildcards": b"+/#",
    "spaces": b"  ",
    "dollar": b"$SYS/x",
    "quotes": b"\"'\\",
    "looks_like_a_frame": DISCONNECT,
}
for name, topic in NASTY.items():
    it = case(f"nasty_{name}", "A8")
    it.send("s", CONNECT, subscribe(topic))
    it.send("p", CONNECT, publish(topic, b"1"), publish(topic + b"x", b""), publish(topic, b""))
    it.gets("s", publish(topic, b"1"), publish(topic, b""))

for name, one, other in [
    ("composed_and_combining", "\u00e1".encode(), "a\u0301".encode()),
    ("upper_and_lower", b"Topic", b"topic"),
    ("with_and_without_slash", b"a/b", b"a/b/"),
    ("with_and_without_blank", b"a", b"a "),
    ("latin_and_cyrillic", b"a", "\u0430".encode()),
    ("with_and_without_mark", b"a", "\ufeffa".encode()),
    ("with_and_without_nul", b"a", b"a\x00"),
    ("plus_and_level", b"a/+", b"a/b"),
    ("hash_and_level", b"#", b"b"),
]:
    it = case(f"different_{name}", "A9")
    it.send("s", CONNECT, subscribe(one))
    it.send("o", CONNECT, subscribe(other))
    it.send("p", CONNECT, publish(one, b"1"), publish(other, b"2"))
    it.gets("s", publish(one, b"1")).gets("o", publish(other, b"2"))

for name, data in [
    ("empty", b""),
    ("nul", b"\x00"),
    ("not_utf8", b"\xff\xfe\x80"),
    ("a_frame", publish(b"a", b"x")),
    ("disconnect", DISCONNECT),
    ("every_second_byte", bytes(range(0, 250, 2))),
    ("126_bytes", b"d" * 126),
    ("251_bytes", b"\xaa" * 251),
    ("252_bytes", b"\x05" * 252),
    ("as_long_as_can_be", b"\x00" * 253),
]:
    it = case(f"data_{name}", "A18")
    it.send("s", CONNECT, subscribe(b"a"))
    it.send("p", CONNECT, publish(b"a", data), publish(b"a", b"behind"))
    it.gets("s", publish(b"a", data), publish(b"a", b"behind"))

for packet, name in ((1, "connect"), (2, "disconnect")):
    for length in (0, 1, 2, 127, 128, 254, 255):
        it = case(f"{name}_with_{length}_bytes", "A10")
        it.send("w", CONNECT, subscribe(b"a"))
        before = b"" if packet == 1 else CONNECT + publish(b"a", b"1")
        behind = publish(b"a", b"2")
        it.send("s", before, frame(packet, b"p" * length), behind)
        it.gets("w", behind if packet == 1 else publish(b"a", b"1"))
        it.closes("s", "eof" if packet == 1 else "client_disconnect")

# ---- what is discarded, and how often

case = family("budget", "Frames that are discarded: nothing of them is left, and the 64th closes.")

for packet in (0, 6, 7, 16, 22, 71, 127, 128, 129, 254, 255):
    for length in (0, 1, 255):
        it = case(f"unknown_id_{packet}_of_{length}", "A12")
        it.send("w", CONNECT, subscribe(b"a", b""))
        it.send("s", CONNECT, frame(packet, b"\x01a" + b"x" * 253 if length > 1 else b"a"[:length]))
        it.send("s", publish(b"a", b"served"))
        it.gets("w", publish(b"a", b"served"))

DISCARDED = {
    "unknown_id": frame(9, b"x"),
    "empty_publish": frame(5),
    "publish_topic_overrun": frame(5, b"\x02a"),
    "publish_not_utf8": publish(b"\xff", b"x"),
    "subscribe_overrun": frame(3, b"\x02a"),
    "subscribe_not_utf8": subscribe(b"a", b"\xc0\x80"),
    "unsubscribe_overrun": frame(4, b"\x02w"),
    "unsubscribe_not_utf8": unsubscribe(b"w", b"\x80"),
}
EARLY = {
    "subscribe_early": subscribe(b"a"),
    "unsubscribe_early": unsubscribe(b"a"),
    "publish_early": publish(b"w", b"x"),
    "unknown_early": frame(200),
    "malformed_early": frame(5),
}
KINDS = {**DISCARDED, **EARLY}
mixed = b"".join((list(DISCARDED.values()) * 8)[:BUDGET])
for name, bad in KINDS.items():
    greeting = b"" if name in EARLY else CONNECT
    for count in (1, BUDGET - 1, BUDGET, BUDGET + 1):
        it = case(f"{count}_times_{name}", "B1" if name in EARLY else "A12")
        it.send("w", CONNECT, subscribe(b"w"))
        it.send("s", greeting, bad * count, CONNECT, publish(b"w", b"behind"))
        if count < BUDGET:
            it.gets("w", publish(b"w", b"behind"))
        else:
            it.closes("s", "protocol_error_budget")
    it = case(f"63_times_{name}_then_disconnect", "A12")
    it.send("s", greeting, bad * (BUDGET - 1), DISCONNECT, bad).closes("s", "client_disconnect")
    it = case(f"63_times_{name}_then_a_cut_one", "A12")
    it.send("s", greeting, bad * (BUDGET - 1), b"\x09\x05cut").closes("s", "eof_mid_frame")
    it = case(f"63_times_{name}_then_good_ones_then_another", "A12")
    it.send("w", CONNECT, subscribe(b"w"))
    good = [publish(b"w", bytes([n])) for n in range(5)]
    it.send("s", greeting, bad * (BUDGET - 1), CONNECT, *good)
    it.send("s", frame(6), publish(b"w", b"late"))
    it.gets("w", *good).closes("s", "protocol_error_budget")

for count in (BUDGET - 1, BUDGET):
    it = case(f"{count}_of_every_kind_in_turn", "A12")
    it.send("s", CONNECT, b"".join((list(DISCARDED.values()) * 8)[:count]), subscribe(b"a"))
    it.send("p", CONNECT, publish(b"a", b"1"))
    if count < BUDGET:
        it.gets("s", publish(b"a", b"1"))
    else:
        it.closes("s", "protocol_error_budget")
it = case("budgets_of_two_sessions_are_their_own", "A12")
it.send("s", CONNECT, subscribe(b"a"), frame(9) * (BUDGET - 1))
it.send("o", CONNECT, subscribe(b"a"), frame(9) * (BUDGET - 1))
it.send("o", frame(9)).closes("o", "protocol_error_budget")
it.send("p", CONNECT, publish(b"a", b"1")).gets("s", publish(b"a", b"1"))
it = case("connects_are_not_charged", "B3")
it.send("s", CONNECT * 100, frame(9) * (BUDGET - 1), CONNECT * 100, subscribe(b"a"))
it.send("p", CONNECT, publish(b"a", b"1")).gets("s", publish(b"a", b"1"))

for name, hello, reason in [
    ("http", b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n", "eof_mid_frame"),
    ("tls", bytes.fromhex("160301 00c8 010000c4 0303 1122334455667788"), "eof_mid_frame"),
    ("ssh", b"SSH-2.0-OpenSSH_9.6\r\n", "eof_mid_frame"),
    ("mqtt", b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04test", "eof"),
    ("redis", b"PING\r\n", "eof_mid_frame"),
    ("nats", b"CONNECT {}\r\n", "eof_mid_frame"),
    ("websocket", b"\x81\x85\x37\xfa\x21\x3d", "eof_mid_frame"),
    ("json", b'{"topic":"a"}\n', "eof_mid_frame"),
]:
    it = case(f"foreign_{name}", "A15")
    it.send("w", CONNECT, subscribe(b"a", b""))
    it.send("s", hello).closes("s", reason)
    it.send("p", CONNECT, publish(b"a", b"1")).gets("w", publish(b"a", b"1"))

# ---- states

case = family("states", "Each packet in each state of a session, once and twice; what is cut.")

PACKETS = {
    "connect": CONNECT,
    "disconnect": DISCONNECT,
    "subscribe": subscribe(b"t"),
    "unsubscribe": unsubscribe(b"held"),
    "publish": publish(b"w", b"1"),
    "unknown": frame(0, b"?"),
    "malformed": frame(5),
}
for state, greeting in [
    ("wait_connect", b""),
    ("connected", CONNECT + subscribe(b"held")),
    ("closing", CONNECT + subscribe(b"held") + DISCONNECT),
]:
    for name, packet in PACKETS.items():
        for times in (1, 2):
            served = state == "connected"
            it = case(f"{name}_{times}_in_{state}", "B7" if state != "closing" else "B5")
            it.send("w", CONNECT, subscribe(b"w"))
            it.send("s", greeting, packet * times)
            it.send("p", CONNECT, publish(b"t", b"2"), publish(b"held", b"3"))
            is_over = state == "closing" or name == "disconnect"
            it.closes("s", "client_disconnect" if is_over else "eof")
            got = []
            if served and name == "subscribe":
                got.append(publish(b"t", b"2"))
            if served and name not in ("disconnect", "unsubscribe"):
                got.append(publish(b"held", b"3"))
            it.gets("s", *got)
            it.gets("w", *([packet] * times if served and name == "publish" else []))

for name, early in EARLY.items():
    it = case(f"{name}_then_connect_leaves_no_trace", "B1")
    it.send("w", CONNECT, subscribe(b"w"))
    it.send("s", early, CONNECT)
    it.send("p", CONNECT, publish(b"a", b"1"), publish(b"w", b"2")).gets("w", publish(b"w", b"2"))
    it = case(f"{name}_and_again_behind_connect", "B1")
    it.send("w", CONNECT, subscribe(b"w"))
    it.send("s", early, CONNECT, early, subscribe(b"b"))
    it.send("p", CONNECT, publish(b"a", b"1"), publish(b"b", b"2"))
    got = [publish(b"a", b"1")] if name == "subscribe_early" else []
    it.gets("s", *got, publish(b"b", b"2"))
    it.gets("w", *([early] if name == "publish_early" else []))

for name, payload in [
    ("nothing", b""),
    ("text", b"s3cret"),
    ("the_magic", b"\xffH+\x07\x00"),
    ("a_frame", DISCONNECT),
    ("255_bytes", b"x" * 255),
]:
    for times in (1, 30):
        it = case(f"connect_again_{times}_with_{name}", "B3")
        it.send("s", CONNECT, subscribe(b"a"), frame(1, payload) * times, subscribe(b"b"))
        it.send("p", CONNECT, publish(b"a", b"1"), publish(b"b", b"2"))
        it.gets("s", publish(b"a", b"1"), publish(b"b", b"2"))

CUT = {
    "connect": frame(1, b"hello"),
    "disconnect": frame(2, b"bye!!"),
    "subscribe": subscribe(b"a", b"b"),
    "unsubscribe": unsubscribe(b"a", b"w"),
    "publish": publish(b"w", b"data"),
    "unknown": frame(77, b"what?"),
    "longest": publish(b"w", b"x" * 253),
    "only_a_header": b"\x05\xff",
}
for name, whole in CUT.items():
    for cut in sorted({1, 2, 3, len(whole) // 2, len(whole) - 1}):
        if cut > 2 and name == "only_a_header":
            continue
        for place, before in (("first", b""), ("behind_connect", CONNECT)):
            it = case(f"{name}_cut_at_{cut}_{place}", "A1")
            it.send("w", CONNECT, subscribe(b"w", b"a"))
            it.send("s", before, whole[:cut]).closes("s", "eof_mid_frame")
            it.send("p", CONNECT, publish(b"w", b"1")).gets("w", publish(b"w", b"1"))
for name, whole in CUT.items():
    it = case(f"{name}_cut_behind_messages", "A13")
    it.send("w", CONNECT, subscribe(b"w", b"a"))
    messages = [publish(b"w", b"1"), publish(b"a", b"2")]
    it.send("s", CONNECT, *messages, whole[:-1] if name != "only_a_header" else whole)
    it.closes("s", "eof_mid_frame").gets("w", *messages)

# ---- several things at once

case = family("scripts", "Whole scripts in one write, in two, and from several connections.")

C, D, S, U = CONNECT, DISCONNECT, subscribe(b"a"), unsubscribe(b"a")
P, Q = publish(b"a", b"p"), publish(b"b", b"q")
for name, script, got, reason in [
    ("connect_publish_disconnect", [C, P, D], [P], "client_disconnect"),
    ("connect_subscribe_publish_disconnect", [C, S, P, D], [P], "client_disconnect"),
    ("publish_around_a_subscribe", [C, P, S, P], [P, P], "eof"),
    ("publish_around_an_unsubscribe", [C, S, P, U, P], [P, P], "eof"),
    ("publish_behind_disconnect", [C, P, D, P], [P], "client_disconnect"),
    ("publish_before_connect", [P, C, P], [P], "eof"),
    ("disconnect_before_connect", [D, C, P], [], "client_disconnect"),
    ("two_topics_in_turn", [C, P, Q, P, Q], [P, Q, P, Q], "eof"),
    ("a_run_and_another", [C, P * 3, Q * 3], [P * 3, Q * 3], "eof"),
    ("malformed_within_a_run", [C, P, frame(5), P], [P, P], "eof"),
    ("unknown_within_a_run", [C, P, frame(99, P), P], [P, P], "eof"),
    ("connect_within_a_run", [C, P, C, P], [P, P], "eof"),
    ("empty_lists_within_a_run", [C, P, frame(3), P, frame(4), P], [P] * 3, "eof"),
    ("overrun_within_a_run", [C, P, frame(5, b"\x02a"), P], [P, P], "eof"),
    ("same_topic_not_utf8_within_a_run", [C, P, publish(b"\xe1", b"p"), P], [P, P], "eof"),
    ("lengths_in_turn", [C] + [publish(b"a", b"x" * n) for n in (0, 253, 1, 252)], None, "eof"),
    ("growing_data", [C] + [publish(b"a", b"g" * n) for n in range(20)], None, "eof"),
    ("hundred_messages", [C] + [publish(b"a", bytes([n])) for n in range(100)], None, "eof"),
    ("nobody_wants_it", [C, publish(b"c", b"1"), P, publish(b"", b"2")], [P], "eof"),
    ("nothing_at_all", [], [], "eof"),
    ("connect_alone", [C], [], "eof"),
    ("connect_disconnect", [C, D], [], "client_disconnect"),
    ("disconnect_alone", [D], [], "client_disconnect"),
    ("disconnect_twice", [C, D, D], [], "client_disconnect"),
]:
    it = case(f"script_{name}", "B6")
    it.send("w", C, subscribe(b"a", b"b"))
    it.send("s", *script).closes("s", reason)
    it.gets("w", *(script[1:] if got is None else got))

for count in range(6):
    it = case(f"fan_out_to_{count}", "B8")
    for who in "vwxyz"[:count]:
        it.send(who, C, S).gets(who, P, P)
    it.send("p", C, S, P, P)
for count in (2, 3, 5):
    it = case(f"{count}_publish_to_each_other", "B8")
    names = "vwxyz"[:count]
    for who in names:
        it.send(who, C, S)
    messages = {who: publish(b"a", who.encode()) for who in names}
    for who in names:
        it.send(who, messages[who])
    for who in names:
        it.gets(who, *[messages[other] for other in names if other != who])
for name, held in [
    ("one_topic_each", [(b"a",), (b"b",)]),
    ("one_holds_both", [(b"a", b"b"), (b"a",)]),
    ("all_hold_all", [(b"a", b"b"), (b"b", b"a")]),
    ("one_holds_nothing", [(), (b"b",)]),
]:
    it = case(f"audience_{name}", "B8")
    for who, names in zip("xy", held):
        it.send(who, C, subscribe(*names))
        it.gets(who, *[m for topic, m in ((b"a", P), (b"b", Q), (b"a", P)) if topic in names])
    it.send("p", C, P, Q, P)

for name, change, got in [
    ("subscribes_between", S, [Q]),
    ("unsubscribes_between", U, []),
    ("disconnects_between", D, []),
    ("sends_half_a_frame_between", S[:3], []),
    ("sends_something_malformed_between", frame(3, b"\x09a"), []),
]:
    late = publish(b"a", b"late")
    it = case(f"subscriber_{name}", "A11" if "un" in name else "B7")
    held = b"" if change == S else S
    it.send("s", C, held)
    it.send("p", C, P)
    it.send("s", change)
    it.send("p", late)
    keeps = change not in (U, D)
    it.gets("s", *([P] if held else []), *([late] if keeps else []))
    if change == D:
        it.closes("s", "client_disconnect")
    if change == S[:3]:
        it.closes("s", "eof_mid_frame")

for name, leave, reason in [
    ("ends", b"", "eof"),
    ("ends_in_a_frame", b"\x05\x09\x01a", "eof_mid_frame"),
    ("disconnects", D, "client_disconnect"),
    ("is_closed_for_errors", frame(9) * BUDGET, "protocol_error_budget"),
]:
    it = case(f"subscriber_{name}_and_another_stays", "B4" if leave == D else "A13")
    it.send("s", C, S).send("o", C, S).send("p", C, P)
    it.send("s", leave) if leave else None
    it.end("s") if reason.startswith("eof") else None
    it.send("p", P).gets("s", P).gets("o", P, P).closes("s", reason)
    it = case(f"publisher_{name}_behind_its_messages", "B6")
    it.send("o", C, S).send("s", C, P * 20, leave)
    it.end("s") if reason.startswith("eof") else None
    it.send("p", C, P).gets("o", P * 21).closes("s", reason)

for split in (1, 2, 3, 5, 128, 256):
    longest = publish(b"a", bytes(range(253)))
    it = case(f"longest_frame_as_{split}_and_the_rest_with_others_between", "A18")
    it.send("w", C, S).send("s", C, longest[:split])
    it.send("p", C, P).send("s", longest[split:]).send("p", P)
    it.gets("w", P, longest, P)

# ---- time, for those who can let it pass

case = family("time", "Deadlines and the sliding window of the error budget, in simulated time.")

for name, whole in CUT.items():
    cut = whole[:-1] if name != "only_a_header" else whole
    it = case(f"{name}_not_whole_in_time", "A2")
    it.send("s", C, cut).wait(10_000).closes("s", "frame_timeout")
    it = case(f"{name}_whole_in_the_last_moment", "A2")
    it.send("w", C, subscribe(b"w"))
    it.send("s", C, cut).wait(9_999).send("s", whole[len(cut):] or b"\x00" * 255).wait(10_000)
    if name in ("publish", "longest"):
        it.gets("w", whole)
    if name == "only_a_header":
        it.gets("w")
    if name == "disconnect":
        it.closes("s", "client_disconnect")
it = case("a_byte_now_and_then_is_late_all_the_same", "C2")
it.send("s", C, P[:1]).wait(5_000).send("s", P[1:2]).wait(4_000).send("s", P[2:3]).wait(1_000)
it.closes("s", "frame_timeout")
it = case("each_frame_has_its_own_time", "C2")
it.send("w", C, S)
for _ in range(3):
    it.send("s", C, P[:2]).wait(9_000).send("s", P[2:]).gets("w", P, P, P)
for name, sent in [("nothing", None), ("discarded_frames", frame(5) * 3), ("a_subscribe", S)]:
    it = case(f"no_connect_but_{name}", "B2")
    it.send("s", sent or b"").wait(29_999).wait(1).closes("s", "connect_timeout")
it = case("connect_in_the_last_moment", "B2")
it.send("s", b"").wait(29_999).send("s", C, S).wait(100_000).send("p", C, P).gets("s", P)
it = case("a_subscriber_may_be_silent", "C3")
it.send("s", C, S).wait(86_400_000).send("p", C, P).gets("s", P)
for count, quiet, reason in [
    (63, 10_000, "eof"),
    (32, 9_999, "protocol_error_budget"),
    (63, 9_999, "protocol_error_budget"),
]:
    it = case(f"{count}_discards_and_as_many_{quiet}_ms_later", "A12")
    it.send("s", C, frame(9) * count).wait(quiet).send("s", frame(9) * count).closes("s", reason)

# ---- extensions, for who asks

case = family("extensions", "What a client gets that asks for more than the base protocol.")
MAGIC, ACK, ECHO, WILD = b"\xffH+", 1, 2, 4


def hello(want, keepalive=0, *fields):
    return frame(1, MAGIC + bytes([want, keepalive]) + topics(*fields))


def granted(have, status=0):
    return frame(1, MAGIC + bytes([have, status]))


PING = frame(4)


def pong(dropped=0):
    return frame(4, b"\xff" + dropped.to_bytes(4, "big"))


for want in range(256):
    it = case(f"hello_wants_{want}", "J2")
    it.send("s", hello(want)).gets("s", granted(want & 7))
for name, fields in [
    ("a_user", [b"alice"]),
    ("a_user_and_a_secret", [b"alice", b"s3cret"]),
    ("an_empty_user", [b""]),
    ("an_empty_user_and_secret", [b"", b""]),
    ("a_secret_that_is_not_utf8", [b"alice", b"\xff\x00"]),
    ("the_longest_user", [b"u" * 249]),
    ("the_longest_secret", [b"", b"s" * 248]),
]:
    it = case(f"hello_with_{name}", "J2")
    it.send("s", hello(ACK, 30, *fields)).gets("s", granted(ACK))
whole = MAGIC + bytes([ACK, 30]) + topics(b"alice", b"s3cret")
for length in range(len(whole)):
    cut = whole[:length]
    it = case(f"hello_cut_to_{length}", "J2")
    it.send("s", frame(1, cut) + PING)
    if length < 3:
        # An ordinary payload, of a client to whom nothing is ever said.
        continue
    if length in (5, 11):
        it.gets("s", granted(ACK), pong())
    else:
        it.gets("s", granted(0, 2)).closes("s", "hello_malformed")
for name, payload in [
    ("a_byte_too_many", whole + b"\x00"),
    ("a_third_field", whole + topics(b"x")),
    ("a_user_past_the_end", MAGIC + b"\x01\x00\x05abcd"),
    ("a_secret_past_the_end", MAGIC + b"\x01\x00\x01u\xfas"),
    ("a_user_that_is_not_utf8", MAGIC + bytes([ACK, 0]) + topics(b"\xc0\x80")),
]:
    it = case(f"hello_with_{name}", "J2")
    it.send("s", frame(1, payload), PING).gets("s", granted(0, 2))
    it.closes("s", "hello_malformed")
for name, first, second, out in [
    ("again", hello(ACK), hello(ACK | ECHO, 5), [granted(ACK)]),
    ("a_malformed_one_later", hello(ACK), frame(1, MAGIC), [granted(ACK)]),
    ("an_ordinary_one_later", hello(ACK), CONNECT, [granted(ACK)]),
    ("one_behind_an_ordinary_one", CONNECT, hello(ACK), []),
]:
    it = case(f"hello_and_{name}", "B3")
    it.send("s", first, second * 3, PING)
    it.gets("s", *out, *([pong()] if out else []))

for name, sent, out in [
    ("subscribe_one", subscribe(b"a"), frame(3, b"\x00")),
    ("subscribe_several", subscribe(b"a", b"", b"a"), frame(3, bytes(3))),
    ("subscribe_none", subscribe(), frame(3)),
    ("subscribe_255", subscribe(*[b""] * 255), frame(3, bytes(255))),
    ("unsubscribe_what_it_has_not", unsubscribe(b"a", b"b"), frame(4, bytes(2))),
    ("unsubscribe_five", unsubscribe(*[b"a"] * 5), frame(4, bytes(5))),
    ("subscribe_cut", frame(3, b"\x05a"), frame(3, b"\x02")),
    ("unsubscribe_cut", frame(4, b"\x05a"), frame(4, b"\x02")),
    ("subscribe_not_utf8", subscribe(b"a", b"\xff"), frame(3, b"\x02")),
    ("unsubscribe_not_utf8", unsubscribe(b"\xff", b"a"), frame(4, b"\x02")),
    ("a_ping", PING, pong()),
    ("what_is_never_answered", publish(b"a") + frame(5) + frame(9) + CONNECT, b""),
]:
    it = case(f"ack_{name}", "J5")
    it.send("s", hello(ACK), sent * 3, PING).gets("s", granted(ACK), out * 3, pong())
    it = case(f"without_ack_{name}", "J13")
    it.send("s", hello(ECHO & 0), sent * 3, PING).gets("s", granted(0))
it = case("ack_many_requests_at_once", "J5")
requests = [
    (subscribe(b"a", b"b"), frame(3, bytes(2))),
    (frame(3, b"\x09"), frame(3, b"\x02")),
    (PING, pong()),
    (unsubscribe(b"a"), frame(4, bytes(1))),
    (subscribe(), frame(3)),
]
count = [13, 12, 13, 12, 13]
script = [entry for entry, times in zip(requests, count) for _ in range(times)]
it.send("s", hello(ACK), *[sent for sent, _ in script])
it.gets("s", granted(ACK), *[out for _, out in script])
it = case("ack_a_malformed_request_changes_nothing", "J5")
it.send("s", hello(ACK), subscribe(b"old"), frame(3, topics(b"new") + b"\x09"))
it.send("p", CONNECT, publish(b"new", b"1"), publish(b"old", b"2"))
it.gets("s", granted(ACK), frame(3, b"\x00"), frame(3, b"\x02"), publish(b"old", b"2"))
it = case("ack_what_is_subscribed_is_heard_and_what_is_not_is_not", "J5")
it.send("s", hello(ACK), subscribe(b"a")).send("p", CONNECT, publish(b"a", b"1"))
it.send("s", unsubscribe(b"a")).send("p", publish(b"a", b"2")).send("s", PING)
it.gets("s", granted(ACK), frame(3, b"\x00"), publish(b"a", b"1"), frame(4, b"\x00"), pong())
it = case("ack_too_many_errors_are_told", "J14")
it.send("s", hello(ACK), frame(9) * BUDGET, PING)
it.gets("s", granted(ACK), frame(2, b"\x02protocol")).closes("s", "protocol_error_budget")
it = case("without_ack_too_many_errors_are_not", "J13")
it.send("s", hello(0), frame(9) * BUDGET).gets("s", granted(0))
it.closes("s", "protocol_error_budget")
it = case("ack_who_disconnects_is_told_nothing", "J5")
it.send("s", hello(ACK), subscribe(b"a"), DISCONNECT, PING)
it.gets("s", granted(ACK), frame(3, b"\x00")).closes("s", "client_disconnect")

for name, want, own in [("with", ECHO, 1), ("without", 0, 0)]:
    it = case(f"{name}_echo_the_own_message", "J8")
    it.send("w", CONNECT, subscribe(b"a"))
    it.send("s", hello(want), subscribe(b"a", b"a"), publish(b"a", b"1"), publish(b"b"))
    it.gets("s", granted(want), publish(b"a", b"1") * own).gets("w", publish(b"a", b"1"))
it = case("echo_is_of_the_session_that_asked", "J8")
it.send("s", hello(ECHO), subscribe(b"a")).send("p", CONNECT, subscribe(b"a"))
it.send("p", publish(b"a", b"1")).send("s", publish(b"a", b"2"))
it.gets("s", granted(ECHO), publish(b"a", b"1"), publish(b"a", b"2"))
it.gets("p", publish(b"a", b"2"))

for name, filters, matching, others in [
    ("one_level", [b"a/+/c"], [b"a/b/c", b"a//c"], [b"a/b", b"a/b/c/d", b"a/c", b"x/b/c"]),
    ("all_levels", [b"a/#"], [b"a", b"a/", b"a/b/c"], [b"", b"ab", b"b/a"]),
    ("everything", [b"#"], [b"", b"a", b"/", b"$SYS/a"], []),
    ("one_level_alone", [b"+"], [b"", b"a", b"#"], [b"/", b"a/b"]),
    ("several_that_overlap", [b"+/b", b"a/+", b"a/#", b"#", b"a/b"], [b"a/b", b"x"], []),
    ("the_same_twice", [b"a/+", b"a/+"], [b"a/b"], [b"b/b"]),
    ("with_dollar", [b"$SYS/#"], [b"$SYS", b"$SYS/a"], [b"a"]),
]:
    for where, parts in [("together", [filters]), ("apart", [[one] for one in filters])]:
        it = case(f"wild_{name}_{where}", "J9")
        it.send("s", hello(ACK | WILD), *[subscribe(*part) for part in parts])
        messages = [publish(topic, b"1") for topic in matching]
        it.send("p", CONNECT, *[publish(topic, b"0") for topic in others], *messages)
        it.send("s", unsubscribe(*filters)).send("p", *messages)
        answers = [frame(3, bytes(len(part))) for part in parts]
        it.gets("s", granted(ACK | WILD), *answers, *messages, frame(4, bytes(len(filters))))
for name, bad in [
    ("hash_within_a_level", b"a#"),
    ("hash_in_front", b"#/a"),
    ("plus_within_a_level", b"a/+b"),
    ("two_in_a_level", b"+#"),
]:
    it = case(f"wild_bad_filter_{name}", "J9")
    it.send("s", hello(ACK | WILD), subscribe(bad), subscribe(b"a", bad), unsubscribe(bad, b"x"))
    it.send("p", CONNECT, publish(bad, b"1"), publish(b"a", b"2"))
    it.gets("s", granted(ACK | WILD), frame(3, b"\x02"), frame(3, b"\x00\x02"),
            frame(4, b"\x02\x00"), publish(b"a", b"2"))
    it = case(f"wild_bad_filters_{name}_are_charged", "A12")
    it.send("s", hello(WILD), subscribe(bad) * BUDGET, subscribe(b"a"))
    it.gets("s", granted(WILD)).closes("s", "protocol_error_budget")
for name, topic in [("plus", b"a/+"), ("hash", b"#"), ("both", b"+/#")]:
    it = case(f"base_clients_have_{name}_as_an_ordinary_topic", "J10")
    it.send("s", CONNECT, subscribe(topic)).send("w", hello(WILD), subscribe(topic))
    it.send("p", CONNECT, publish(b"a/b", b"1"), publish(topic, b"2"))
    it.gets("s", publish(topic, b"2"))
    it.gets("w", granted(WILD), publish(b"a/b", b"1"), publish(topic, b"2"))
for want, own in [(ACK | WILD | ECHO, 1), (ACK | WILD, 0)]:
    it = case(f"wild_own_message_with_{want}", "J8")
    it.send("s", hello(want), subscribe(b"a/b", b"a/+", b"#"), publish(b"a/b", b"1"))
    it.send("p", CONNECT, publish(b"a/b", b"2"))
    answers = [granted(want), frame(3, bytes(3))]
    it.gets("s", *answers, publish(b"a/b", b"1") * own, publish(b"a/b", b"2"))
it = case("wild_goes_with_its_session", "J9")
it.send("s", hello(WILD), subscribe(b"#"), DISCONNECT).send("p", CONNECT, publish(b"a", b"1"))
it.gets("s", granted(WILD)).closes("s", "client_disconnect")

case = family("time", "")
for name, seconds, steps, closed in [
    ("silence", 1, [1_499, 1], True),
    ("a_byte_each_second", 1, [1_000, "byte", 1_000, "byte", 1_000, "byte", 1_499], False),
    ("silence_later", 2, [2_999, "byte", 2_999, 1], True),
    ("none", 0, [1_000_000], False),
    ("the_longest", 255, [382_499], False),
    ("the_longest_and_silence", 255, [382_499, 1], True),
]:
    it = case(f"keepalive_{name}", "J11")
    it.send("s", hello(ACK, seconds))
    for step in steps:
        it.send("s", b"\x03\x00") if step == "byte" else it.wait(step)
    answers = frame(3) * steps.count("byte")
    it.gets("s", granted(ACK), answers, frame(2, b"\x05keepalive") if closed else b"")
    if closed:
        it.closes("s", "keepalive")


def main():
    directory = pathlib.Path(sys.argv[1])
    for file, content in FILES.items():
        cases = [json.dumps(case.as_json()) for case in content["cases"]]
        about = json.dumps(content["about"])
        lines = ",\n    ".join(cases)
        text = f'{{\n  "about": {about},\n  "cases": [\n    {lines}\n  ]\n}}\n'
        (directory / f"{file}.json").write_text(text, encoding="ascii")
        print(f"{len(cases):4} {file}.json")


if __name__ == "__main__":
    main()
