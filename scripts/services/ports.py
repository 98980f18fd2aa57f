#!/usr/bin/env python3
"""Free ports on loopback.

ports.py free PORT...             exit 1, naming them, if any is still taken after a moment
ports.py pick COUNT OWNER CLAIMS  prints the first of COUNT consecutive free ports, and claims them for OWNER

Picked ports lie below the kernel's range for outgoing connections: a client that retries a stopped service on a
port within it can be given that very port as its own, connect to itself, and block the restart. As a service binds
only seconds after the pick, claims (lines "PORT OWNER" in one file) keep two starts at once apart; a claim ends when
its owner's folder is gone.
"""
import fcntl
import os
import random
import socket
import sys
import time


def free(port):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def pick(count, owner, claims):
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        outgoing = int(file.read().split()[0])
    below = (20000, outgoing - count)
    low, high = below if below[1] - below[0] > 1000 else (20000, 60000)
    with open(os.open(claims, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        kept = [line.rstrip("\n").split(" ", 1) for line in file]
        kept = [(int(port), who) for port, who in kept if who != owner and os.path.isdir(who)]
        claimed = {port for port, _ in kept}
        for _ in range(10000):
            first = random.randint(low, high)
            ports = range(first, first + count)
            if claimed.isdisjoint(ports) and all(map(free, ports)):
                break
        else:
            sys.exit("no free ports")
        kept += [(port, owner) for port in ports]
        file.seek(0)
        file.truncate()
        file.writelines(f"{port} {who}\n" for port, who in kept)
    print(first)


if sys.argv[1] == "free":
    taken = sys.argv[2:]
    for _ in range(20):  # a process that was just killed holds its ports a little longer
        taken = [port for port in taken if not free(int(port))]
        if not taken:
            break
        time.sleep(0.1)
    else:
        sys.exit("taken by another process: port " + ", ".join(taken))
else:
    pick(int(sys.argv[2]), sys.argv[3], sys.argv[4])
