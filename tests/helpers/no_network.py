"""A command without a network, and every attempt to use one: `python no_network.py LOG COMMAND...`.

To be run in a network namespace of its own (`unshare --map-root-user --net`), in which nothing but loopback exists.
LOG gets a line for each attempt that a Python process makes (by its audit, PEP 578), and one for the packets that any
code, in whatever language, wanted to send and found no route for.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

HOOK = """
import os, socket, sys

def hook(event, arguments):
    if event == "socket.connect" or event == "socket.sendto":
        address = arguments[1]
        if arguments[0].family == socket.AF_UNIX or not isinstance(address, tuple):
            return
        where = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        where = arguments[0]
    else:
        return
    # Loopback: the ranks of a training, the local services of trackers and of Ray.
    if where in (None, "", "localhost", "::1", "0.0.0.0", socket.gethostname()) or str(where).startswith("127."):
        return
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{event} {where} by {' '.join(sys.argv)[:100]}\\n".encode())
    os.close(log)

sys.addaudithook(hook)
"""
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def hooked_environment(folder: Path, log: Path) -> dict[str, str]:
    """The environment in which each Python process logs its attempts; `folder` gets the hook."""
    (folder / "sitecustomize.py").write_text(f"LOG = {str(log)!r}\n{HOOK}")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def unrouted_packets() -> int:
    """Packets of this namespace, of IP versions 4 and 6, that found no route."""
    names, values = (line.split()[1:] for line in Path("/proc/net/snmp").read_text().splitlines()[:2])
    count = int(dict(zip(names, values, strict=True))["OutNoRoutes"])
    version6 = Path("/proc/net/snmp6")
    lines = version6.read_text().splitlines() if version6.exists() else []
    return count + sum(int(line.split()[1]) for line in lines if line.startswith("Ip6OutNoRoutes"))


def main(log: str, *command: str) -> int:
    with socket.socket() as opened:
        fcntl.ioctl(opened, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    status = subprocess.run(command).returncode
    if packets := unrouted_packets():
        with open(log, "a") as file:
            file.write(f"{packets} packets without a route\n")
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
