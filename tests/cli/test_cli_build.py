"""``grip-edge build`` where there is nothing to build. Builds themselves: tests/export/test_engines*.py."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "A bundle for cpu runs without engines; they are built for: rtx, tensorrt-11"),
        (("--target", "rtx"), "--target is rtx, the bundle was exported for cpu; export it for rtx."),
    ],
)
def test_a_bundle_that_needs_no_engines(run: Run, options: tuple[str, ...], message: str) -> None:
    """Said before a GPU or a package is asked for."""
    outcome = run("build", "grip-bundle", *options)
    assert outcome.exit_code == 2
    assert message in " ".join(outcome.stderr.split())
