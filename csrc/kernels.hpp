// Every kernel's signature, with shapes, units and preconditions. Plain C++: no Python, no exceptions, no allocation.
// Bindings (bind_*.cpp) check dtype, shape, contiguity and id range before they call; kernels do not check again.
#pragma once

#include <cstddef>
#include <cstdint>
