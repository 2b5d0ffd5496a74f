"""Marks for tests."""

import pytest

sqlite_only = pytest.mark.parametrize("new_database", ["sqlite"], indirect=True)
"""A mark for tests of the service that do not depend on the kind of database.

They are about requests that never reach it, about pages and headers, or replace the database by a failing one.
"""
