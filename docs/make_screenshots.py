"""Makes docs/pictures: a report and a comparison of three runs, as headless Chromium shows them.

python docs/make_screenshots.py                     # trains three runs first: about 5 minutes
python docs/make_screenshots.py --runs ONE TWO THREE
"""

import argparse
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).resolve().with_name("pictures")
# Width in pixels and colour scheme of the pictures that are made of each page.
VIEWS = ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark"))
# What each of the three runs changes of the default.
RUNS = {
    "baseline": [],
    "shifted-images": ["augment.shift=2"],
    "sgd-cosine": [
        "optimizer.name=sgd",
        "optimizer.learning_rate=0.05",
        "optimizer.kwargs.momentum=0.9",
        "schedule.name=cosine",
    ],
}
_MEASURE = """<!DOCTYPE html><iframe src="{page}" style="width: {width}px; border: 0"
onload="const root = this.contentDocument.documentElement;
document.title = `size ${{root.scrollWidth}} ${{root.scrollHeight}}`"></iframe>"""


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


def measure(page: Path, width: int) -> tuple[int, int]:
    """Width and height, in pixels, that a page takes in a window of that width."""
    with tempfile.TemporaryDirectory() as directory:
        frame = Path(directory) / "frame.html"
        frame.write_text(_MEASURE.format(page=page.resolve().as_uri(), width=width))
        flags = ("--dump-dom", "--allow-file-access-from-files", "--virtual-time-budget=5000")
        found = re.search(r"size (\d+) (\d+)", chromium(frame, *flags).stdout)
    if found is None:
        raise RuntimeError(f"Chromium did not say how large {page} is")
    return int(found[1]), int(found[2])


def take(page: Path, picture: Path, *, width: int, scheme: str) -> None:
    """Takes a picture of a whole page, "light" or "dark", in 256 colours."""
    _, height = measure(page, width)
    flags = [f"--window-size={width},{height}", f"--screenshot={picture.resolve()}"]
    chromium(page, *flags, f"--blink-settings=preferredColorScheme={int(scheme == 'light')}")
    with Image.open(picture) as image:
        # The method that keeps the few pixels of a thin line in their colour.
        method = Image.Quantize.MAXCOVERAGE
        small = image.convert("RGB").quantize(256, method, dither=Image.Dither.NONE)
    small.save(picture, optimize=True)


def train() -> list[Path]:
    """Trains the three runs under runs/ of the current directory, as their commands say."""
    for name, changes in RUNS.items():
        flags = [f"--config.{change}" for change in ("eval.every=0.5 epochs", *changes)]
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
        for name, page in pages.items():
            for width, scheme in VIEWS:
                picture = PICTURES / f"{name}-{width}-{scheme}.png"
                take(page, picture, width=width, scheme=scheme)


if __name__ == "__main__":
    main()
