"""Fixtures of the kernels' tests; few imports, the sanitizers' runs start here."""

from collections.abc import Iterator

import pytest

from beingh0_edge import _kernels


@pytest.fixture(params=_kernels.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of this machine in turn, for what is built meanwhile and for rotations."""
    before = _kernels.isa()
    _kernels.use_isa(request.param)
    yield request.param
    _kernels.use_isa(before)
