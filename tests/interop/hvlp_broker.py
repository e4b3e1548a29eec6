#!/usr/bin/env python3
"""A base broker as small as can be, for clients to be tested with: a thread per session.

It knows nothing of this project but the protocol. It says `listening on HOST:PORT` on standard
output and ends with its standard input, so that it never outlives the test that started it.
"""

import os
import socket
import sys
import threading

from hvlp_client import CONNECT, DISCONNECT, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, first_frame, frame


class Register:
    """Topic to sessions. One lock for all makes every publish one step."""

    def __init__(self):
        self.lock = threading.Lock()
        self.subscribers = {}

    def subscribe(self, topics, session):
        with self.lock:
            for topic in topics:
                self.subscribers.setdefault(topic, set()).add(session)

    def unsubscribe(self, topics, session):
        with self.lock:
            for topic in topics:
                self.subscribers.get(topic, set()).discard(session)

    def remove(self, session):
        with self.lock:
            for sessions in self.subscribers.values():
                sessions.discard(session)

    def publish(self, topic, message, publisher):
        with self.lock:
            for session in self.subscribers.get(topic, ()):
                if session is not publisher:
                    session.sendall(message)


def split_string(payload):
    """The first protocol string of a payload, and what follows it."""
    if not payload or 1 + payload[0] > len(payload):
        raise ValueError("a string is cut")
    end = 1 + payload[0]
    return payload[1:end].decode("utf-8"), payload[end:]


def split_list(payload):
    topics = []
    while payload:
        topic, payload = split_string(payload)
        topics.append(topic)
    return topics


def serve(session, register):
    stream, connected = b"", False
    while True:
        received = session.recv(65536)
        if not received:
            return
        stream += received
        while True:
            whole = first_frame(stream)
            if whole is None:
                break
            packet_id, payload, stream = whole
            try:
                if packet_id == CONNECT:
                    connected = True
                elif packet_id == DISCONNECT:
                    return
                elif not connected:
                    continue
                elif packet_id == SUBSCRIBE:
                    register.subscribe(split_list(payload), session)
                elif packet_id == UNSUBSCRIBE:
                    register.unsubscribe(split_list(payload), session)
                elif packet_id == PUBLISH:
                    topic, _ = split_string(payload)
                    register.publish(topic, frame(PUBLISH, payload), session)
            except ValueError:
                continue  # malformed: discarded whole


def session_thread(session, register):
    try:
        serve(session, register)
    except OSError:
        pass  # the peer is gone
    finally:
        register.remove(session)
        session.close()


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    print("listening on %s:%d" % listener.getsockname(), flush=True)
    register = Register()

    def accept():
        while True:
            session, _ = listener.accept()
            session.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=session_thread, args=(session, register), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
