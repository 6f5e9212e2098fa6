#include "graft/run/machine.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <cstdlib>

#include "graft/core/threads.h"
#include "graft/models/device.h"

namespace graft::run {
namespace {

/// oneDNN keeps the kernels that it made for a shape, a megabyte or two each, of the last 1,024 shapes. Ragged batches repeat
/// shapes from block to block, hardly ever from step to step, so 16 are as fast; so they are for networks of images.
void keep_few_kernels() {
  constexpr auto kSetting = "ONEDNN_PRIMITIVE_CACHE_CAPACITY";  // read at the first product
  if (!::getenv("DNNL_PRIMITIVE_CACHE_CAPACITY")) ::setenv(kSetting, "16", /*overwrite=*/0);
}

}  // namespace

void use_machine(int64_t threads, const std::string& device) {
  keep_few_kernels();
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : available_cores()));
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  models::compute_on(device);
}

}  // namespace graft::run
