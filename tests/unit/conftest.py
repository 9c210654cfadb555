"""What unit tests share; few imports, the sanitizers' runs start here."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from beingh0_edge import _kernels

# No test fails because the machine is busy.
settings.register_profile("untimed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(params=_kernels.available_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of this machine in turn, for what is built meanwhile and for rotations."""
    before = _kernels.isa()
    _kernels.use_isa(request.param)
    yield request.param
    _kernels.use_isa(before)
