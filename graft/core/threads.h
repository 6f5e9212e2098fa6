// How many cores this process really has: the affinity mask and the container's quota, not the machine's count.
#pragma once

#include <cstdint>

namespace graft {

int64_t available_cores();

}  // namespace graft
