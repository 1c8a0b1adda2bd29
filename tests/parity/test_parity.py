"""One test per parity case; a case without a handler is an expected failure that says so."""

from __future__ import annotations

import pytest

from tests.parity.cases import case_folders, handler_of


@pytest.mark.parity
@pytest.mark.parametrize("folder", [pytest.param(path, id=path.name) for path in case_folders()])
def test_parity(folder, kit):
    handler = handler_of(folder)
    if handler is None:
        pytest.xfail(f"{folder.name}: this part is not built yet")
    handler(folder, kit)
