"""Documents whose commands a test types into a real shell, comparing what they print with what the document shows.

A ```console block is a transcript. `$ ` begins a command, `> ` continues it, and the other lines are exactly what it prints (stdout and
stderr together, as on a terminal). A command without such lines prints nothing. In these lines
  * a time (2026-11-24T02:12:03Z) stands for any time, `…` for anything within a line, and a line of `…` alone for any number of lines;
  * any number of blanks is one, so a table may be narrower than the real one;
  * `# exit code 6` after a command is its exit code; without it, the exit code is 0.
A ```sh block is a script: each of its commands must succeed, and its output is not compared.
A word after the language changes how a block is typed. `one`: only its first line is a command, however the others begin. `later`: its only
command is repeated until it prints what is shown, since cron or a worker needs a moment. `stays`: its last command goes on in another
terminal until the document ends, and then gets Ctrl-C.
`<!-- not run: REASON -->` before a block: a test can't run it. The test that reads the document decides which reasons it accepts.
"""

import contextlib
import difflib
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from tests.support.said import as_text

LATER_TRIES = 200  # each starts a process, so this is far longer than a worker or a minute of cron needs
SHELL_LANGUAGES = ("console", "sh")
OTHER_LANGUAGES = ("crontab", "yaml", "json", "sql", "python", "text")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_EXIT_CODE = re.compile(r"\s+# exit code (\d+)$")
_NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")


class WrongDocument(AssertionError):
    """The document does not show what happens."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block. `line`: the number of its first line in the file; `not_run`: why a test can't run it."""

    language: str
    words: tuple[str, ...]
    lines: tuple[str, ...]
    line: int
    not_run: str | None


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, what it must print (None: anything), and the exit code that it must have."""

    text: str
    shown: tuple[str, ...] | None
    exit_code: int
    line: int


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a Markdown text. Raises WrongDocument for one without a known language."""
    found: list[Block] = []
    lines = text.splitlines()
    number, reason = 0, None
    while number < len(lines):
        line = lines[number]
        if match := _NOT_RUN.fullmatch(line.strip()):
            reason = match[1]
        elif line.startswith("```"):
            language, *words = line[3:].split() or [""]
            if language not in SHELL_LANGUAGES + OTHER_LANGUAGES:
                raise WrongDocument(f"line {number + 1}: a block of the language {language!r}")
            end = lines.index("```", number + 1)
            body = tuple(lines[number + 1 : end])
            found.append(Block(language=language, words=tuple(words), lines=body, line=number + 2, not_run=reason))
            number, reason = end, None
        elif line.strip() and reason is not None:
            raise WrongDocument(f"line {number + 1}: `not run` must stand right before a block")
        number += 1
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a shell block: each one of a transcript, or the whole script."""
    if block.language == "sh":
        return [Command(text="\n".join(block.lines), shown=None, exit_code=0, line=block.line)]
    if "one" in block.words:
        return [_command([block.lines[0].removeprefix("$ ")], block.lines[1:], block.line)]
    found: list[Command] = []
    typed: list[str] = []
    shown: list[str] = []
    start = block.line

    def done() -> None:
        if typed:
            found.append(_command(typed, shown, start))

    for number, line in enumerate(block.lines, block.line):
        if line.startswith("$ "):
            done()
            typed, shown, start = [line[2:]], [], number
        elif not typed:
            raise WrongDocument(f"line {number}: a transcript begins with a command")
        elif line.startswith("> ") and not shown:
            typed.append(line[2:])
        else:
            shown.append(line)
    done()
    return found


def _command(typed: Sequence[str], shown: Sequence[str], line: int) -> Command:
    code = _EXIT_CODE.search(typed[0])
    first = typed[0][: code.start()] if code else typed[0]
    return Command(
        text="\n".join([first, *typed[1:]]), shown=tuple(shown), exit_code=int(code[1]) if code else 0, line=line
    )


def difference(shown: Sequence[str], printed: str) -> str:
    """The difference between what is shown and what was printed; empty when there is none."""
    wanted, got = _plain(shown), _plain(as_text(printed).splitlines())
    pattern = "".join("(?:[^\n]*\n)*?" if line == "…" else f"{_pattern(line)}\n" for line in wanted)
    if re.fullmatch(pattern, "".join(f"{line}\n" for line in got)):
        return ""
    return "\n".join(difflib.unified_diff(wanted, got, "shown", "printed", lineterm=""))


def _plain(lines: Sequence[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines if line.strip()]


def _pattern(line: str) -> str:
    parts = [re.escape(part) for part in _TIME.sub("\0", line).split("…")]
    return "[^\n]+?".join(parts).replace("\0", _TIME.pattern)


@dataclass(kw_only=True)
class Staying:
    """A command that goes on in another terminal until the document ends."""

    command: Command
    lines: list[str]
    reader: Thread
    pid: int


@dataclass(kw_only=True)
class Shell:
    """One bash for a whole document: exported variables and the current folder stay from block to block.

    `stands_for`: a name in the document, such as a host that does not exist → what the test has instead. Output is translated back.
    """

    folder: Path
    environment: Mapping[str, str]
    stands_for: Mapping[str, str] = field(default_factory=dict)
    typed: list[str] = field(default_factory=list)
    _staying: list[Staying] = field(default_factory=list)
    _number: int = 0

    def __enter__(self) -> "Shell":
        (self.folder / ".shell").mkdir()
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self.folder,
            env=dict(self.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # for the messages of job control
            text=True,
            start_new_session=True,
        )
        self._send("set -m")  # as on a terminal: each background command has its own process group, which takes Ctrl-C
        return self

    def __exit__(self, *_: object) -> None:
        self._send("for p in $(jobs -p); do kill -TERM -- -$p; done; wait; echo gone")
        assert self._bash.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._bash.stdout.readline()
        self._bash.communicate()
        for one in self._staying:
            one.reader.join()

    def run(self, block: Block) -> None:
        """Type the block. Raises WrongDocument."""
        todo = commands(block)
        if "later" in block.words:
            self._later(*todo)
            return
        last = todo.pop() if "stays" in block.words else None
        for command in todo:
            self._check(command, *self._type(command))
        if last is not None:
            self._stay(last)

    def close_terminals(self) -> None:
        """Type Ctrl-C into the other terminals, newest first. Raises WrongDocument when a command ends with another exit code."""
        while self._staying:
            one = self._staying.pop()
            self._send(f"kill -INT -- -{one.pid}; wait {one.pid}; echo $?")
            code = int(self._read())
            one.reader.join()
            if code != one.command.exit_code:
                raise WrongDocument(f"line {one.command.line}: {one.command.text} ended {code} after Ctrl-C")

    def _later(self, command: Command) -> None:
        for _ in range(LATER_TRIES):
            code, printed = self._type(command)
            if code == command.exit_code and not difference(command.shown or (), printed):
                return
        self._check(command, code, printed)

    def _type(self, command: Command) -> tuple[int, str]:
        """Type it; gives its exit code and what it printed."""
        self._number += 1
        script, output = self._files(command)
        self._send(f". {script} > {output} 2>&1 < /dev/null; code=$?; trap - ERR; echo $code")
        code = int(self._read())
        return code, self._translated_back(output.read_text("utf-8", "replace"))

    def _check(self, command: Command, code: int, printed: str) -> None:
        where = f"line {command.line}: {command.text}"
        if code != command.exit_code:
            raise WrongDocument(f"{where}\nexit code {code}, not {command.exit_code}; it printed:\n{printed}")
        if command.shown is not None and (found := difference(command.shown, printed)):
            raise WrongDocument(f"{where}\n{found}")

    def _stay(self, command: Command) -> None:
        """Start it, and return once it has printed everything that is shown."""
        self._number += 1
        script, output = self._files(command)
        os.mkfifo(output)
        self._send(f". {script} > {output} 2>&1 < /dev/null &")
        lines: list[str] = []
        stream = output.open(encoding="utf-8")
        wanted = command.shown or ()
        while difference([*wanted, "…"], "".join(lines)):
            line = stream.readline()
            if not line:
                stream.close()
                raise WrongDocument(f"line {command.line}: {command.text} ended; it printed:\n{''.join(lines)}")
            lines.append(self._translated_back(line))

        def drain() -> None:
            with stream:
                lines.extend(stream)

        reader = Thread(target=drain)
        reader.start()
        self._send("echo $!")
        self._staying.append(Staying(command=command, lines=lines, reader=reader, pid=int(self._read())))

    def _files(self, command: Command) -> tuple[Path, Path]:
        text = command.text
        for name, real in self.stands_for.items():
            text = text.replace(name, real)
        self.typed.append(command.text)
        script = self.folder / ".shell" / f"{self._number}.sh"
        # A failing command in the middle of a script ends the script, as `set -e` would.
        careful = "trap 'return $?' ERR\n" if command.shown is None else ""
        script.write_text(f"{careful}{text}\n", "utf-8")
        return script, self.folder / ".shell" / f"{self._number}.out"

    def _translated_back(self, text: str) -> str:
        for name, real in self.stands_for.items():
            text = text.replace(real, name)
        return text

    def _send(self, line: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(line + "\n")
        self._bash.stdin.flush()

    def _read(self) -> str:
        assert self._bash.stdout is not None
        line = self._bash.stdout.readline()
        if not line:
            raise WrongDocument(f"the shell ended at: {self.typed[-1]}")
        return line
