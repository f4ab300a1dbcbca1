"""A shell on a terminal, as an administrator sits at one; what it shows is the record of an installation."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from pathlib import Path

WIDTH = 110
PROMPT = "controller# "
# Invisible on a terminal (a title), so that the prompt is known from a line that looks like it, with the exit status.
_MARK = re.compile(r"\x1b\]0;(\d+)\x07")
_QUESTION = "[y/N]: "


class Terminal:
    """Bash on a terminal of its own."""

    def __init__(self) -> None:
        self.shown = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            env = {
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root",
                "LANG": "C.UTF-8",
                "TERM": "dumb",
                "SYSTEMD_PAGER": "",
                "PROMPT_COMMAND": r"""printf '\033]0;%d\007' $?""",
                "PS1": PROMPT,
                # The package index of a machine without a network: the wheels of the image, and the one made here.
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": "/opt/wheels",
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "PIP_QUIET": "1",
            }
            os.chdir("/root")
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], env)
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
        self._until_prompt(60)

    def close(self) -> None:
        """Hang up."""
        os.close(self._fd)
        os.kill(self._pid, signal.SIGHUP)
        os.waitpid(self._pid, 0)

    def type(self, command: str, seconds: float = 300) -> tuple[int, str]:
        """Type a command, and "y" where it asks; its exit status and what was shown after it."""
        before = len(self.shown)
        os.write(self._fd, command.encode() + b"\n")
        code = self._until_prompt(seconds)
        text = self.shown[before:].removesuffix(PROMPT)
        return code, text.removeprefix(command).lstrip("\n")

    def _until_prompt(self, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        new, answered = "", 0
        while True:
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no end after {seconds:.0f} s:\n{self.shown}{new}")
            new += os.read(self._fd, 65536).decode(errors="replace").replace("\r\n", "\n")
            found = list(_MARK.finditer(new))
            if found and new.endswith(PROMPT):
                self.shown += _MARK.sub("", new)
                return int(found[-1][1])
            if new.endswith(_QUESTION) and new.count(_QUESTION) > answered:
                answered += 1
                os.write(self._fd, b"y\n")


class Book:
    """A page of docs/: its commands, typed as they stand there and in that order."""

    def __init__(self, page: Path, terminal: Terminal) -> None:
        self._terminal = terminal
        blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
        self.left = [line for line in lines if line]

    def follow(self, command: str, code: int = 0) -> str:
        """Type the next command of the page, which must be this one; what was shown."""
        assert self.left and self.left[0] == command, f"the page says: {self.left[:1]}"
        del self.left[0]
        got, shown = self._terminal.type(command)
        assert got == code, f"{command}: exit status {got}\n{shown}"
        return shown
