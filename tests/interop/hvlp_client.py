"""A second HVLP client, written from the protocol's description alone. Standard library only.

It shares no code with the Rust implementation and is no library for use: its purpose is to disagree
where one of the two has misread the protocol. Its calls look like those of the client in HVLP's
manual: `connect('s3cret')` sends text, `publish('a', 1, 2)` takes data as numbers 0 to 255.
"""

import socket
import time

CONNECT, DISCONNECT, SUBSCRIBE, UNSUBSCRIBE, PUBLISH = 1, 2, 3, 4, 5


def string(text):
    """A protocol string: one length byte, and as many bytes of UTF-8."""
    encoded = text.encode("utf-8")
    if len(encoded) > 254:
        raise ValueError("a topic is at most 254 bytes, this one is %d" % len(encoded))
    return bytes([len(encoded)]) + encoded


def frame(packet_id, payload=b""):
    """Id, length, payload."""
    if len(payload) > 255:
        raise ValueError("a payload is at most 255 bytes, this one is %d" % len(payload))
    return bytes([packet_id, len(payload)]) + payload


def connect_frame(payload=""):
    return frame(CONNECT, payload.encode("utf-8") if isinstance(payload, str) else payload)


def disconnect_frame():
    return frame(DISCONNECT)


def subscribe_frame(*topics):
    return frame(SUBSCRIBE, b"".join(map(string, topics)))


def unsubscribe_frame(*topics):
    return frame(UNSUBSCRIBE, b"".join(map(string, topics)))


def publish_frame(topic, *data):
    return frame(PUBLISH, string(topic) + bytes(data))


def first_frame(stream):
    """The first whole frame of `stream` as (id, payload, rest); None until it is whole."""
    if len(stream) < 2 or len(stream) < 2 + stream[1]:
        return None
    end = 2 + stream[1]
    return stream[0], stream[2:end], stream[end:]


class Closed(Exception):
    """The broker has closed the connection."""


class Client:
    """One connection to a broker at `host:port`, `[v6]:port` or `unix:/path`."""

    def __init__(self, address):
        self.stream_in = b""
        if address.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(10)
            self.socket.connect(address[len("unix:"):])
        else:
            host, port = address.rsplit(":", 1)
            self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def connect(self, payload=""):
        self.send_raw(connect_frame(payload))

    def disconnect(self):
        self.send_raw(disconnect_frame())

    def subscribe(self, *topics):
        self.send_raw(subscribe_frame(*topics))

    def unsubscribe(self, *topics):
        self.send_raw(unsubscribe_frame(*topics))

    def publish(self, topic, *data):
        self.send_raw(publish_frame(topic, *data))

    def send(self, *numbers):
        """Any bytes, as numbers."""
        self.send_raw(bytes(numbers))

    def send_raw(self, data):
        self.socket.settimeout(10)
        self.socket.sendall(data)

    def finish(self):
        """Half-close: nothing more will be sent, but everything is still read."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.socket.close()

    def receive(self, timeout=10.0):
        """The next message as (topic, data); None if there is none within `timeout` seconds.

        Whatever is no PUBLISH is an error: a base client is never sent anything else.
        """
        deadline = time.monotonic() + timeout
        while True:
            whole = first_frame(self.stream_in)
            if whole is not None:
                packet_id, payload, self.stream_in = whole
                if packet_id != PUBLISH:
                    raise AssertionError("the broker sent a packet of id %d" % packet_id)
                topic_end = 1 + payload[0]
                return payload[1:topic_end].decode("utf-8"), payload[topic_end:]
            if not self._read(deadline):
                return None

    def wait_for_close(self, timeout=10.0):
        """Returns once the broker has closed; a message that comes instead is an error."""
        try:
            message = self.receive(timeout)
        except Closed:
            return
        raise AssertionError("not closed within %g s, got %r" % (timeout, message))

    def _read(self, deadline):
        """Reads once; False if there was nothing until `deadline`."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return False
        self.socket.settimeout(remaining)
        try:
            received = self.socket.recv(65536)
        except socket.timeout:
            return False
        if not received:
            raise Closed("the broker has closed, %d bytes of a frame are left" % len(self.stream_in))
        self.stream_in += received
        return True
