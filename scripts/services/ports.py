#!/usr/bin/env python3
"""Finds free ports on 127.0.0.1.

ports.py free PORT...             exits with 1 and prints the ports that are in use after 2 s
ports.py pick COUNT OWNER CLAIMS  prints the first of COUNT consecutive free ports, and claims them for OWNER

`pick` selects ports below the kernel's range for outgoing connections. Within that range, a client that retries a
stopped service could get the service's port as its own source port, connect to itself, and block the restart.

A service binds its port seconds after `pick`. So that a concurrent start does not select the same port, `pick` writes
claims to the file CLAIMS, one line "PORT OWNER" each. OWNER is a folder; a claim ends when the folder does not exist
any more.
"""
import fcntl
import os
import random
import socket
import sys
import time


def free(port):
    """Returns whether the port can be bound."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not block the port
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def pick(count, owner, claims):
    """Prints the first of `count` consecutive free ports and claims them for `owner` in the file `claims`."""
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
            sys.exit("ports.py: found no free ports")
        kept += [(port, owner) for port in ports]
        file.seek(0)
        file.truncate()
        file.writelines(f"{port} {who}\n" for port, who in kept)
    print(first)


if sys.argv[1] == "free":
    taken = sys.argv[2:]
    for _ in range(20):  # a process that was just killed keeps its ports for a moment
        taken = [port for port in taken if not free(int(port))]
        if not taken:
            break
        time.sleep(0.1)
    else:
        sys.exit("ports.py: in use by another process: port " + ", ".join(taken))
else:
    pick(int(sys.argv[2]), sys.argv[3], sys.argv[4])
