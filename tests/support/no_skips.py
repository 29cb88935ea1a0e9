"""REQUIRE_ALL=1: a test that skips fails, with its reason. For machines that are to run every test."""

from __future__ import annotations

import os

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport():
    return _demanded((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report():
    return _demanded((yield))


def _demanded(report):
    # A test that is expected to fail, and does, is a skip to pytest.
    is_skip = report.skipped and not hasattr(report, "wasxfail")
    if is_skip and os.environ.get("REQUIRE_ALL") == "1":
        _, _, reason = report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (REQUIRE_ALL=1 allows no skip)"
    return report
