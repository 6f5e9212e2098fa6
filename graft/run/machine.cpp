#include "graft/run/machine.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "graft/core/process.h"
#include "graft/core/threads.h"
#include "graft/models/device.h"

namespace graft::run {

void use_machine(int64_t threads, const std::string& device) {
  keep_freed_memory();
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : available_cores()));
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  models::compute_on(device);
}

}  // namespace graft::run
