"""Makes docs/pictures/terminal.svg: what a terminal of 80 columns shows at the end of a real run.

python docs/make_terminal.py                        # the default configuration: about 90 s
python docs/make_terminal.py train --config=debug   # another command line of jaxmnist
"""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).with_name("pictures") / "terminal.svg"
COLUMNS, ROWS = 80, 50
# What a terminal acts on: line ends, moves of the cursor, erasing a line. Colours stay in the text.
_CONTROL = re.compile(r"\r\n|\r|\n|\x1b\[\d*A|\x1b\[2K|\x1b\[\?\d+[hl]")


def run(arguments: list[str]) -> str:
    """What a command of jaxmnist writes to a terminal, in an empty directory.

    Raises:
      RuntimeError: it failed.
    """
    keyboard, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "jaxmnist", *arguments]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    environment = inherited | {"TERM": "xterm-256color", "PYTHONPATH": path}
    written = b""
    with tempfile.TemporaryDirectory() as empty:
        ends = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
        with subprocess.Popen(command, cwd=empty, env=environment, **ends) as process:
            os.close(terminal)
            try:
                while chunk := os.read(keyboard, 65536):
                    written += chunk
            except OSError:  # Linux's way to say that the other end is closed
                pass
    os.close(keyboard)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}: {written.decode()}")
    return written.decode()


def screen(written: str) -> list[str]:
    """The lines that are left when all was written: a live bar is drawn over and over again."""
    lines, row, place = [""], 0, 0
    for control in [*_CONTROL.finditer(written), None]:
        lines[row] += written[place : control.start() if control else None]
        if control is None:
            break
        place, code = control.end(), control[0]
        if code.endswith("\n"):
            row += 1
            lines += [""] * (row == len(lines))
        elif code.endswith("A"):
            row -= int(code[2:-1] or 1)
        elif code == "\x1b[2K":
            lines[row] = ""
    return lines


def picture(arguments: list[str]) -> str:
    """The command line and what it left on the screen, as an SVG that loads nothing."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    title = " ".join(["jaxmnist", *arguments])
    console.print(Text.assemble(("$ ", "bold green"), title))
    for line in screen(run(arguments)):
        console.print(Text.from_ansi(line), soft_wrap=True)
    svg = console.export_svg(title=title, unique_id="terminal")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def main() -> None:
    """Makes the picture."""
    PICTURE.write_text(picture(sys.argv[1:] or ["train"]), "utf-8")


if __name__ == "__main__":
    main()
