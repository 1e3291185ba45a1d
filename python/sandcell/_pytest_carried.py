"""What is noted of a test elsewhere than in its reports: it travels with them, or would be lost with the test's process."""

from __future__ import annotations

from typing import Any

import pytest
from _pytest.junitxml import xml_key

try:
    from _pytest.subtests import failed_subtests_key
except ImportError:  # before pytest 9
    failed_subtests_key = None

_KEY = "$sandcell"


class Carried:
    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        #: How many properties the junit file had, of all tests together, before this one.
        self.known = 0

    def _properties(self) -> list[tuple[str, str]]:
        xml = self.config.stash.get(xml_key, None)
        return xml.global_properties if xml else []

    def _failed_subtests(self) -> dict[Any, int]:
        """By test. pytest fails a test that has passed by this when the report is looked at: in the first process."""
        return self.config.stash.get(failed_subtests_key, {}) if failed_subtests_key else {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self) -> Any:
        self.known = len(self._properties())
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_to_serializable(self, report: Any) -> Any:
        data = yield
        properties = self._properties()[self.known :]
        self.known += len(properties)
        # No default: it would be an entry of its own.
        failed = self._failed_subtests().get(getattr(report, "id", None), 0)
        if data is not None and (properties or failed):
            data[_KEY] = [properties, failed]
        return data

    @pytest.hookimpl(wrapper=True)
    def pytest_report_from_serializable(self, data: dict[str, Any]) -> Any:
        properties, failed = data.pop(_KEY, ((), 0))
        report = yield
        self._properties().extend(tuple(pair) for pair in properties)
        if failed:
            self._failed_subtests()[report.id] = failed
        return report
