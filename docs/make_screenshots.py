"""Makes docs/pictures: a report and a comparison of three runs, as headless Chromium shows them.

python docs/make_screenshots.py                     # trains three runs first: about 3 minutes
python docs/make_screenshots.py --runs ONE TWO THREE
"""

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).resolve().with_name("pictures")
# Of a window on a desk and of a phone, in pixels.
WIDTHS = (1280, 390)
# What each of the three runs changes of the default.
RUNS = {
    "baseline": [],
    "mlp": ["model.name=mlp"],
    "mlp-shifted": ["model.name=mlp", "augment.shift=2"],
}
_FRAMES = """<!DOCTYPE html>{frames}<script>
addEventListener("load", () => {{
  const frames = [...document.querySelectorAll("iframe")];
  const roots = frames.map(frame => frame.contentDocument.documentElement);
  document.title = "sizes " + roots.map(root => `${{root.scrollWidth}} ${{root.scrollHeight}}`);
}});
</script>"""


def chromium(page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Opens a page in headless Chromium, with a profile of its own and without a network.

    Raises:
      FileNotFoundError: there is no Chromium.
    """
    program = shutil.which("chromium")
    if program is None:
        repair = "install it with `apt-get install chromium`"
        raise FileNotFoundError(f"chromium, which shows the pages, is not there: {repair}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"]
        command += ["--enable-logging=stderr", *flags, page.resolve().as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def measure(pages: Sequence[Path], width: int, *flags: str) -> tuple[list[tuple[int, int]], str]:
    """Opens pages in windows of one width, in one browser.

    Args:
      pages: files.
      width: in pixels.
      *flags: for Chromium.

    Returns:
      Width and height in pixels that each page takes, and what Chromium wrote on its console.
    """
    frame = '<iframe src="{}" style="width: {}px; border: 0"></iframe>'
    frames = "".join(frame.format(page.resolve().as_uri(), width) for page in pages)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "frames.html"
        file.write_text(_FRAMES.format(frames=frames), encoding="utf-8")
        files = ("--dump-dom", "--allow-file-access-from-files", "--virtual-time-budget=5000")
        done = chromium(file, *files, *flags)
    if (found := re.search(r"<title>sizes ([\d ,]+)</title>", done.stdout)) is None:
        raise RuntimeError(f"Chromium did not say how large {', '.join(map(str, pages))} are")
    sizes = [size.split(" ") for size in found[1].split(",")]
    return [(int(w), int(h)) for w, h in sizes], done.stderr


def take(page: Path, picture: Path, *, size: tuple[int, int], scheme: str) -> None:
    """Takes a picture of a page in a window of a size, "light" or "dark", in 256 colours."""
    flags = [f"--window-size={size[0]},{size[1]}", f"--screenshot={picture.resolve()}"]
    chromium(page, *flags, f"--blink-settings=preferredColorScheme={int(scheme == 'light')}")
    with Image.open(picture) as image:
        # The method that keeps the few pixels of a thin line in their colour.
        method = Image.Quantize.MAXCOVERAGE
        small = image.convert("RGB").quantize(256, method, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)


def train() -> list[Path]:
    """Trains the three runs under runs/ of the current directory, as their commands say."""
    for name, changes in RUNS.items():
        flags = [f"--config.{change}" for change in changes]
        command = [sys.executable, "-m", "jaxmnist", "train", *flags, f"--workdir=runs/{name}"]
        subprocess.run(command, check=True)
    return [Path("runs") / name for name in RUNS]


def main() -> None:
    """Makes all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", nargs="+", type=Path, help="work directories to show instead")
    runs = parser.parse_args().runs
    from jaxmnist.report import report

    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        # From within, so that the pages show the runs' paths as a user's would be.
        with contextlib.chdir("." if runs else scratch):
            first, *others = runs or train()
            pages = {
                name: report(first, compare=compare, out=Path(scratch) / f"{name}.html")
                for name, compare in (("report", []), ("comparison", others))
            }
        for width in WIDTHS:
            sizes, _ = measure([*pages.values()], width)
            for (name, page), (_, height) in zip(pages.items(), sizes, strict=True):
                for scheme in ("light", "dark"):
                    picture = PICTURES / f"{name}-{width}-{scheme}.png"
                    take(page, picture, size=(width, height), scheme=scheme)


if __name__ == "__main__":
    main()
