"""Two hosts on one machine: network namespaces, each with its name and address, and a cable.

Run by test_two_hosts.py inside namespaces of its own, in which it may do as it likes:
two_hosts.py FAULT LOGS OUTPUT TRAINING_COMMAND…
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

INSIDE = (
    "unshare --user --map-root-user --net --mount --pid --fork --kill-child --mount-proc".split()
)
NOT_ALLOWED = 77  # exit status: this machine does not let us set the hosts up
ADDRESSES = {"host1": "10.77.0.1", "host2": "10.77.0.2"}
KILL_AFTER = 3  # lines of the log of losses
SECONDS = 400  # after which it has failed; a tenth is enough on a machine with nothing else to do


class Host:
    """One that runs a command at a time."""

    def __init__(self, name: str, logs: Path):
        self.name = name
        self.log = logs / f"{name}.log"
        self.process: subprocess.Popen | None = None

    def start(self, command: list[str]) -> None:
        named = ["unshare", "--uts", "sh", "-c", f'hostname {self.name}; exec "$@"', "sh"]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *named, *command],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self) -> None:
        """Everything that runs on it, at once."""
        pids = subprocess.check_output(["ip", "netns", "pids", self.name], text=True)
        for pid in map(int, pids.split()):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def plug(self, state: str) -> None:
        subprocess.check_call(["ip", "-n", self.name, "link", "set", "eth0", state])

    def wait(self) -> int:
        return self.process.wait(SECONDS)


def set_up(logs: Path) -> list[Host]:
    """The hosts, which know each other's names."""
    run = subprocess.check_call
    run(["mount", "-t", "tmpfs", "none", "/run"])
    Path("/run/netns").mkdir()
    lines = ["127.0.0.1 localhost", *(f"{ip} {name}" for name, ip in ADDRESSES.items())]
    Path("/run/hosts").write_text("\n".join(lines) + "\n")
    run(["mount", "--bind", "/run/hosts", "/etc/hosts"])
    for name in ADDRESSES:
        run(["ip", "netns", "add", name])
    ends = "netns host1 type veth peer name eth0 netns host2"
    run(["ip", "link", "add", "eth0", *ends.split()])
    for name, address in ADDRESSES.items():
        run(["ip", "-n", name, "address", "add", f"{address}/24", "dev", "eth0"])
        for device in ("eth0", "lo"):
            run(["ip", "-n", name, "link", "set", device, "up"])
    return [Host(name, logs) for name in ADDRESSES]


def wait_for_steps(output: Path) -> None:
    end = time.monotonic() + SECONDS
    log = output / "metrics.json"
    while not log.is_file() or log.read_text().count("total_loss") < KILL_AFTER:
        if time.monotonic() > end:
            raise TimeoutError(f"no {KILL_AFTER} steps within {SECONDS} s")
        time.sleep(0.05)


def main(fault: str, logs: Path, output: Path, command: list[str]) -> int:
    try:
        first, second = set_up(logs)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error}\n")
        return NOT_ALLOWED
    for host in (first, second):
        host.start(command)
    wait_for_steps(output)
    if fault == "the second host is killed":
        second.kill()
        second.start(command)
    elif fault == "the second host is unplugged":  # nobody tells the first that it is gone
        second.plug("down")
        second.kill()
        second.plug("up")
        second.start(command)
    elif fault == "the first host is killed":  # and with it the meeting place of the others
        first.kill()
        second.wait()
        for host in (first, second):
            config = command.index("--config-file")
            host.start([*command[:config], "--resume", *command[config:]])
    return max(first.wait(), second.wait())


if __name__ == "__main__":
    if shutil.which("ip") is None:
        sys.exit(NOT_ALLOWED)
    fault, logs, output, *command = sys.argv[1:]
    sys.exit(main(fault, Path(logs), Path(output), command))
