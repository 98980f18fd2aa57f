#!/usr/bin/env python3
"""Waits until a service is ready. An open port is not enough: the service must answer a request.

usage: ready.py kafka|registry PORT PID SECONDS     SECONDS 0: one attempt

exit: 0 ready, 1 the process has ended, 3 not ready within SECONDS
"""
import http.client
import socket
import struct
import sys
import time


class Reply:
    """Reads a Kafka response from beginning to end."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        (value,) = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(">" + form)
        return value

    def skip_string(self):
        length = self.take("h")  # -1: null
        self.at += max(length, 0)

    def skip_ints(self):
        count = self.take("i")
        self.at += 4 * count


def receive(conn, size):
    data = b""
    while len(data) < size:
        part = conn.recv(size - len(data))
        if not part:
            raise ConnectionError("the broker closed the connection")
        data += part
    return data


def kafka(port):
    """Sends Metadata v4 for all topics. Returns whether the broker is registered and every partition has a leader."""
    with socket.create_connection(("127.0.0.1", port), 2) as conn:
        request = struct.pack(">hhih5sib", 3, 4, 1, 5, b"ready", -1, 0)
        conn.sendall(struct.pack(">i", len(request)) + request)
        reply = Reply(receive(conn, struct.unpack(">i", receive(conn, 4))[0]))
    reply.take("i")  # correlation id
    reply.take("i")  # throttle time
    ours = False
    for _ in range(reply.take("i")):
        reply.take("i")
        reply.skip_string()
        ours |= reply.take("i") == port
        reply.skip_string()
    reply.skip_string()  # cluster id
    reply.take("i")  # controller
    led = True
    for _ in range(reply.take("i")):
        led &= reply.take("h") == 0
        reply.skip_string()
        reply.take("b")
        for _ in range(reply.take("i")):
            led &= reply.take("h") == 0
            reply.take("i")
            led &= reply.take("i") >= 0
            reply.skip_ints()
            reply.skip_ints()
    return ours and led


def registry(port):
    """Lists the subjects, which reads the storage. http.client ignores proxies of the environment; urllib does not."""
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        conn.request("GET", "/apis/ccompat/v7/subjects")
        return conn.getresponse().status == 200
    finally:
        conn.close()


def alive(pid):
    """Returns whether the process exists and is not a zombie."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read(1) != b""  # the command line of a zombie is empty
    except OSError:
        return False


def main():
    check = {"kafka": kafka, "registry": registry}[sys.argv[1]]
    port, pid, seconds = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    deadline = time.monotonic() + seconds
    while True:
        if not alive(pid):
            return 1
        try:
            if check(port):
                return 0
        except (OSError, struct.error, http.client.HTTPException):
            pass
        if time.monotonic() >= deadline:
            return 3
        time.sleep(0.1)


sys.exit(main())
