"""The options that all programs have, in the same words."""

import argparse
from pathlib import Path

RECORDS = Path(__file__).parents[1] / "records"


def plain_parser(about: str) -> argparse.ArgumentParser:
    """A parser with --records.

    Args:
      about: the program's docstring.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--records",
        type=Path,
        default=RECORDS,
        help="directory whose <program>.jsonl the record is appended to (default: those of the "
        "repository); use another one for a trial",
    )
    return parser


def base_parser(about: str, *, rounds: int = 5, seconds: float = 1.0) -> argparse.ArgumentParser:
    """A parser with --rounds, --seconds and --records.

    Args:
      about: the program's docstring.
      rounds: default number of rounds.
      seconds: default length of one measurement.
    """
    parser = plain_parser(about)
    parser.add_argument(
        "--rounds",
        type=positive,
        default=rounds,
        help=f"how often each candidate is measured, in turn with the others (default {rounds})",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=seconds,
        help=f"about how long one measurement lasts (default {seconds:g})",
    )
    return parser


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def numbers(text: str) -> list[int]:
    """The whole numbers of a list such as 64,256,1024."""
    return [positive(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    """The words of a list such as xla,winograd."""
    return [part.strip() for part in text.split(",")]
