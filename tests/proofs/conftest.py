"""Writes docs/proofs.md: what each proof promised, how many cases ran, the worst difference."""

import ast
import platform
import re
from collections import defaultdict
from pathlib import Path

_CASES = defaultdict(list)
_HEAD = """# Proofs

Each promise of the library is a test that can fail. This page is written by

<!-- not run: it takes half an hour; this is the slow suite -->
```bash
pytest tests/proofs --runslow --write-proofs=docs/proofs.md
```

which replaces the rows of the files that ran.

"Worst difference" is the largest max|a − b| / max|b| over all leaves and cases that were compared;
a dash stands where the comparison is of bits, counts or texts.

| promise | test | cases | passed | worst difference |
|---|---|---|---|---|
"""


def _listed(target):
    """The rows of an earlier run; those of the files that run now are replaced."""
    if target.exists():
        for line in target.read_text(encoding="utf-8").splitlines(keepends=True):
            if found := re.search(r"`(tests/proofs/test_\w+\.py)` \|", line):
                yield found[1], line


def pytest_runtest_logreport(report):
    if report.when == "call":
        path = report.nodeid.partition("::")[0]
        worst = dict(report.user_properties).get("worst")
        _CASES[path].append((report.outcome, worst))


def pytest_sessionfinish(session):
    target = session.config.getoption("--write-proofs")
    if not target or hasattr(session.config, "workerinput"):
        return
    root = Path(str(session.config.rootpath))
    rows = dict(_listed(Path(target)))
    for path, cases in _CASES.items():
        promise = ast.get_docstring(ast.parse((root / path).read_text())).splitlines()[0]
        passed = sum(outcome == "passed" for outcome, _ in cases)
        worst = max((w for _, w in cases if w is not None), default=None)
        shown = "–" if worst is None else f"{worst:.1e}"
        rows[path] = f"| {promise} | `{path}` | {len(cases)} | {passed} | {shown} |\n"
    import jax

    text = _HEAD + "".join(row for _, row in sorted(rows.items()))
    text += (
        f"\nMeasured with JAX {jax.__version__}, Python {platform.python_version()}, on "
        f"{len(jax.devices())} CPU devices ({platform.machine()}).\n"
    )
    Path(target).write_text(text, encoding="utf-8")
