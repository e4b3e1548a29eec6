#!/usr/bin/env python3
"""Runs the interop scripts against a broker that is already listening.

    run.py ADDRESS [NAME...]      ADDRESS is host:port, [v6]:port or unix:/path

Every script below is one claim about the broker, made with `hvlp_client` over its own connections
and on topics of its own, so that they could run beside other clients. A base client cannot see when
its SUBSCRIBE took effect, so `ready` publishes to it until something arrives; that nothing arrives
is shown by a later message of the same publisher that does. Nothing sleeps.
"""

import sys
import time
import traceback

from hvlp_client import (
    Client,
    connect_frame,
    disconnect_frame,
    publish_frame,
    subscribe_frame,
    unsubscribe_frame,
)

DEADLINE_SECONDS = 15


def connected(address, *topics):
    """A client in a session, subscribed to `topics`."""
    client = Client(address)
    client.connect()
    if topics:
        client.subscribe(*topics)
    return client


def ready(subscriber, publisher, topic):
    """Returns once `subscriber` gets what `publisher` sends to `topic`, and has read all of it."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    sent = 0
    while time.monotonic() < deadline:
        sent += 1
        publisher.publish(topic, *sent.to_bytes(4, "big"))
        message = subscriber.receive(timeout=0.05)
        while message is not None:
            expect(message[0], topic)
            if message[1] == sent.to_bytes(4, "big"):
                return
            message = subscriber.receive(timeout=0.05)
    raise AssertionError("not subscribed to %r after %d s" % (topic, DEADLINE_SECONDS))


def expect(actual, expected):
    if actual != expected:
        raise AssertionError("got %r instead of %r" % (actual, expected))


def expect_numbers(subscriber, topic, count):
    """The messages 0..count, complete and in order, and none beside them."""
    for number in range(count):
        expect(subscriber.receive(), (topic, number.to_bytes(2, "big")))


def numbered(topic, count):
    return b"".join(publish_frame(topic, *n.to_bytes(2, "big")) for n in range(count))


# --- How clients begin --------------------------------------------------------------------------


def connect_and_subscribe_in_one_segment(address):
    with Client(address) as subscriber, connected(address) as publisher:
        subscriber.send_raw(connect_frame() + subscribe_frame("one/segment"))
        ready(subscriber, publisher, "one/segment")


def a_whole_session_in_one_segment(address):
    with connected(address, "whole/session") as subscriber, connected(address) as helper:
        ready(subscriber, helper, "whole/session")
        with Client(address) as publisher:
            publisher.send_raw(
                connect_frame()
                + subscribe_frame("whole/session")
                + publish_frame("whole/session", 1)
                + unsubscribe_frame("whole/session")
                + publish_frame("whole/session", 2)
                + disconnect_frame()
            )
            publisher.wait_for_close()
        expect(subscriber.receive(), ("whole/session", b"\x01"))
        expect(subscriber.receive(), ("whole/session", b"\x02"))


def one_byte_at_a_time(address):
    with Client(address) as subscriber, connected(address, "bytes/back") as publisher:
        for byte in connect_frame() + subscribe_frame("bytes"):
            subscriber.send(byte)
        ready(subscriber, publisher, "bytes")
        for byte in publish_frame("bytes/back", *range(200)):
            subscriber.send(byte)
        expect(publisher.receive(), ("bytes/back", bytes(range(200))))


def connect_with_a_payload(address):
    for number, payload in enumerate(["s3cret", "x" * 255, b"\xff\x00\xff", b"\x01\x00\x03\x00"]):
        topic = "payload/%d" % number
        with Client(address) as subscriber, connected(address) as publisher:
            subscriber.connect(payload)
            subscriber.subscribe(topic)
            ready(subscriber, publisher, topic)


def a_second_connect_changes_nothing(address):
    with connected(address, "twice") as subscriber, connected(address) as publisher:
        ready(subscriber, publisher, "twice")
        subscriber.connect()
        subscriber.connect("again")
        subscriber.subscribe("twice/more")
        ready(subscriber, publisher, "twice/more")
        publisher.publish("twice", 7)
        expect(subscriber.receive(), ("twice", b"\x07"))


def nothing_before_connect_has_an_effect(address):
    with connected(address, "early/out") as other, connected(address) as helper:
        ready(other, helper, "early/out")
        with Client(address) as early:
            early.subscribe("early")
            early.publish("early/out", 1)
            early.connect()
            early.subscribe("late")
            ready(early, other, "late")
            early.publish("early/out", 2)
            expect(other.receive(), ("early/out", b"\x02"))
            other.publish("early", 1)
            other.publish("late", 2)
            expect(early.receive(), ("late", b"\x02"))


# --- Messages -----------------------------------------------------------------------------------


def every_byte_and_every_size_comes_through(address):
    topic = "sizes"
    with connected(address, topic) as subscriber, connected(address) as publisher:
        ready(subscriber, publisher, topic)
        for size in range(0, 255 - len(topic)):
            publisher.publish(topic, *((size + at) % 256 for at in range(size)))
        for size in range(0, 255 - len(topic)):
            expected = bytes((size + at) % 256 for at in range(size))
            expect(subscriber.receive(), (topic, expected))


def topics_at_the_limits(address):
    for topic in ["", "t" * 254, "\N{GRINNING FACE}" * 63 + "\u00e9", "a\0b\n\x1b[2J", "#", "a/+"]:
        with connected(address, topic) as subscriber, connected(address) as publisher:
            subscriber.subscribe("limits")
            ready(subscriber, publisher, "limits")
            publisher.publish(topic)
            expect(subscriber.receive(), (topic, b""))


def plus_and_hash_are_ordinary_bytes(address):
    with connected(address, "plain/+", "plain/#") as subscriber, connected(address) as publisher:
        ready(subscriber, publisher, "plain/#")
        publisher.publish("plain/x", 1)
        publisher.publish("plain", 2)
        publisher.publish("plain/+", 3)
        expect(subscriber.receive(), ("plain/+", b"\x03"))


def topics_are_compared_byte_by_byte(address):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    with connected(address, composed) as subscriber, connected(address) as publisher:
        ready(subscriber, publisher, composed)
        publisher.publish(decomposed, 1)
        publisher.publish("CAF\u00e9", 2)
        publisher.publish(composed, 3)
        expect(subscriber.receive(), (composed, b"\x03"))


def order_is_kept_across_topics(address):
    topics = ["order/%d" % number for number in range(10)]
    with connected(address, *topics) as subscriber, connected(address) as publisher:
        ready(subscriber, publisher, topics[-1])
        publisher.send_raw(
            b"".join(publish_frame(topics[n % 10], n // 256, n % 256) for n in range(2000))
        )
        for number in range(2000):
            expect(subscriber.receive(), (topics[number % 10], number.to_bytes(2, "big")))


def a_publisher_does_not_hear_itself(address):
    with connected(address, "self") as first, connected(address, "self") as second:
        ready(first, second, "self")
        ready(second, first, "self")
        first.publish("self", 1)
        expect(second.receive(), ("self", b"\x01"))
        second.publish("self", 2)
        expect(first.receive(), ("self", b"\x02"))
        first.publish("self", 3)
        expect(second.receive(), ("self", b"\x03"))


def ten_clients_all_to_all(address):
    clients = [connected(address, "ten") for _ in range(10)]
    try:
        for subscriber in clients:
            private = "ten/%d" % clients.index(subscriber)
            subscriber.subscribe(private)
            ready(subscriber, clients[clients.index(subscriber) - 1], private)
        for number in range(20):
            for source, publisher in enumerate(clients):
                publisher.publish("ten", source, number)
        for own, subscriber in enumerate(clients):
            following = {source: 0 for source in range(10) if source != own}
            for _ in range(9 * 20):
                topic, (source, number) = subscriber.receive()
                expect((topic, number), ("ten", following[source]))
                following[source] += 1
            expect(set(following.values()), {20})
    finally:
        for client in clients:
            client.close()


# --- Subscriptions ------------------------------------------------------------------------------


def a_subscription_is_a_set(address):
    with connected(address, "set", "set", "set") as subscriber, connected(address) as publisher:
        subscriber.subscribe("set", "set/end")
        subscriber.subscribe("set")
        ready(subscriber, publisher, "set")
        publisher.publish("set", 1)
        publisher.publish("set/end", 2)
        expect(subscriber.receive(), ("set", b"\x01"))
        expect(subscriber.receive(), ("set/end", b"\x02"))
        subscriber.unsubscribe("set")
        subscriber.subscribe("set/again")
        ready(subscriber, publisher, "set/again")
        publisher.publish("set", 3)
        publisher.publish("set/end", 4)
        expect(subscriber.receive(), ("set/end", b"\x04"))


def unsubscribing_takes_only_what_was_named(address):
    with connected(address, "keep", "drop") as subscriber, connected(address) as publisher:
        with connected(address, "drop", "other") as other:
            ready(other, publisher, "other")
            subscriber.unsubscribe("drop", "never/held", "")
            subscriber.subscribe("fence")
            ready(subscriber, publisher, "fence")
            publisher.publish("drop", 1)
            publisher.publish("keep", 2)
            expect(subscriber.receive(), ("keep", b"\x02"))
            expect(other.receive(), ("drop", b"\x01"))


def empty_lists_change_nothing(address):
    with connected(address, "stay") as subscriber, connected(address) as publisher:
        subscriber.subscribe()
        subscriber.unsubscribe()
        ready(subscriber, publisher, "stay")


# --- Faults -------------------------------------------------------------------------------------


def malformed_frames_are_ignored(address):
    malformed = [
        "0500",  # PUBLISH without a topic
        "050105",  # a topic that is cut off
        "0502ff61",
        "0503 01 ff 00",  # a topic that is no UTF-8
        "0503 02 c3 28",
        "0302 01 ff",
        "0303 02 c0 80",
        "0301 07",
        "0401 01",
        "0404 03 eda080",
        "0000",  # ids that nobody knows
        "0603 010203",
        "ff00",
    ]
    with connected(address, "sane", "sane/back") as subscriber, connected(address) as publisher:
        ready(subscriber, publisher, "sane")
        for number, text in enumerate(malformed):
            publisher.send_raw(bytes.fromhex(text) + publish_frame("sane", number))
        for number in range(len(malformed)):
            expect(subscriber.receive(), ("sane", bytes([number])))


def a_malformed_list_is_ignored_whole(address):
    with connected(address, "held") as subscriber, connected(address) as publisher:
        subscriber.send_raw(bytes.fromhex("0306 0470617274 09"))  # "part", then a cut entry
        subscriber.send_raw(bytes.fromhex("0407 0468656c64 01ff"))  # "held", then no UTF-8
        ready(subscriber, publisher, "held")
        publisher.publish("part", 1)
        publisher.publish("held", 2)
        expect(subscriber.receive(), ("held", b"\x02"))


def sixty_four_malformed_frames_close_the_session(address):
    with connected(address, "budget") as bad, connected(address) as publisher:
        ready(bad, publisher, "budget")
        bad.send_raw(bytes.fromhex("0500") * 63)
        bad.subscribe("budget/63")
        ready(bad, publisher, "budget/63")
        bad.send_raw(bytes.fromhex("0500"))
        bad.wait_for_close()


# --- Ends ---------------------------------------------------------------------------------------


def thousand_then(address, topic, end):
    """1000 messages and the publisher's end at once; all of them arrive."""
    with connected(address, topic) as subscriber, connected(address) as helper:
        ready(subscriber, helper, topic)
        with Client(address) as publisher:
            publisher.send_raw(connect_frame())
            end(publisher, numbered(topic, 1000))
            expect_numbers(subscriber, topic, 1000)
        helper.publish(topic, 255)
        expect(subscriber.receive(), (topic, b"\xff"))


def thousand_messages_then_fin(address):
    def end(publisher, messages):
        publisher.send_raw(messages)
        publisher.close()

    thousand_then(address, "fin", end)


def thousand_messages_then_disconnect_and_fin(address):
    def end(publisher, messages):
        publisher.send_raw(messages + disconnect_frame())
        publisher.close()

    thousand_then(address, "disconnect/fin", end)


def thousand_messages_then_half_close(address):
    def end(publisher, messages):
        publisher.send_raw(messages)
        publisher.finish()
        publisher.wait_for_close()

    thousand_then(address, "half/close", end)


def what_follows_a_disconnect_is_not_executed(address):
    with connected(address, "after") as subscriber, connected(address) as publisher:
        ready(subscriber, publisher, "after")
        with connected(address) as leaving:
            leaving.send_raw(
                publish_frame("after", 1) + disconnect_frame() + publish_frame("after", 2)
            )
            leaving.wait_for_close()
        expect(subscriber.receive(), ("after", b"\x01"))
        publisher.publish("after", 3)
        expect(subscriber.receive(), ("after", b"\x03"))


def a_disconnect_without_a_connect_closes(address):
    with Client(address) as client:
        client.disconnect()
        client.wait_for_close()


def a_cut_frame_at_the_end_is_not_executed(address):
    with connected(address, "cut") as subscriber, connected(address) as publisher:
        ready(subscriber, publisher, "cut")
        with connected(address) as leaving:
            leaving.send_raw(publish_frame("cut", 1) + publish_frame("cut", 2)[:-1])
            leaving.finish()
            leaving.wait_for_close()
        expect(subscriber.receive(), ("cut", b"\x01"))
        publisher.publish("cut", 3)
        expect(subscriber.receive(), ("cut", b"\x03"))


SCRIPTS = [
    connect_and_subscribe_in_one_segment,
    a_whole_session_in_one_segment,
    one_byte_at_a_time,
    connect_with_a_payload,
    a_second_connect_changes_nothing,
    nothing_before_connect_has_an_effect,
    every_byte_and_every_size_comes_through,
    topics_at_the_limits,
    plus_and_hash_are_ordinary_bytes,
    topics_are_compared_byte_by_byte,
    order_is_kept_across_topics,
    a_publisher_does_not_hear_itself,
    ten_clients_all_to_all,
    a_subscription_is_a_set,
    unsubscribing_takes_only_what_was_named,
    empty_lists_change_nothing,
    malformed_frames_are_ignored,
    a_malformed_list_is_ignored_whole,
    sixty_four_malformed_frames_close_the_session,
    thousand_messages_then_fin,
    thousand_messages_then_disconnect_and_fin,
    thousand_messages_then_half_close,
    what_follows_a_disconnect_is_not_executed,
    a_disconnect_without_a_connect_closes,
    a_cut_frame_at_the_end_is_not_executed,
]


def main(arguments):
    if not arguments or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    address, names = arguments[0], arguments[1:]
    scripts = [script for script in SCRIPTS if not names or script.__name__ in names]
    failed = 0
    for script in scripts:
        try:
            script(address)
            print("ok    ", script.__name__)
        except Exception:  # any failure of a script is its result, and the others still run
            failed += 1
            print("FAILED", script.__name__)
            traceback.print_exc(file=sys.stdout)
    print("%d of %d scripts passed against %s" % (len(scripts) - failed, len(scripts), address))
    return 1 if failed or not scripts else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
