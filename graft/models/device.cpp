#include "graft/models/device.h"

#include <ATen/Context.h>
#include <ATen/DeviceAccelerator.h>
#include <dlfcn.h>
#include <torch/cuda.h>

#include <cstdlib>
#include <filesystem>

#include "graft/core/error.h"
#include "graft/models/model.h"

namespace graft::models {
namespace {

torch::Device chosen = torch::kCPU;

/// Empty when CUDA can be used, else what is missing. Kernels register themselves when the library is opened, which must
/// come before the first question that libtorch asks of CUDA.
std::string missing_for_cuda() {
  static const std::string missing = []() -> std::string {
    if (!dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL))
      return "no NVIDIA driver is installed (libcuda.so.1 is not found)";
    Dl_info engine;
    std::string beside;
    if (dladdr(reinterpret_cast<const void*>(&at::globalContext), &engine) && engine.dli_fname)
      beside = (std::filesystem::path(engine.dli_fname).parent_path() / "libtorch_cuda.so").string();
    if (!dlopen(beside.c_str(), RTLD_NOW | RTLD_GLOBAL) && !dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL)) {
      const auto* why = dlerror();
      return fmt::format(
          "libtorch's CUDA library cannot be opened ({}); install the torch wheel with its nvidia "
          "packages and give its torch/lib folder in LD_LIBRARY_PATH",
          why ? why : beside);
    }
    if (torch::cuda::device_count() == 0) return "the driver finds no GPU";
    return {};
  }();
  return missing;
}

/// libtorch takes cuBLAS's sums for deterministic when this is set, and asks once, in the first product. While it is set, it
/// parses it by a regular expression in every product: a fifth of the time of a BERT's step.
void settle_cublas(torch::Device device) {
  constexpr auto kSetting = "CUBLAS_WORKSPACE_CONFIG";
  static const bool given = ::getenv(kSetting) != nullptr;
  if (given) return;
  ::setenv(kSetting, ":4096:8", 1);
  const auto square = torch::ones({8, 8}, torch::device(device));
  square.mm(square);
  ::unsetenv(kSetting);
}

}  // namespace

torch::Device compute_on(const std::string& wanted) {
  chosen = torch::kCPU;
  if (wanted == "cpu") return chosen;
  const auto missing = missing_for_cuda();
  if (!missing.empty()) {
    GRAFT_CHECK(usage, wanted == "auto", "train.device is {}, but {}. Or set train.device to cpu.", wanted, missing);
    return chosen;
  }
  const auto device = torch::Device(wanted == "auto" ? "cuda:0" : wanted == "cuda" ? "cuda:0" : wanted);
  const auto count = static_cast<int>(torch::cuda::device_count());
  GRAFT_CHECK(usage, device.index() < count, "train.device is {}, but only {} GPUs are found; they are counted from 0.",
              wanted, count);
  at::accelerator::setDeviceIndex(device.index());
  at::globalContext().setAllowTF32CuDNN(false);
  at::globalContext().setAllowTF32CuBLAS(false);
  // A kernel without a deterministic form (max pooling's gradient) warns instead of stopping.
  at::globalContext().setDeterministicAlgorithms(at::globalContext().deterministicAlgorithms(), /*warn_only=*/true);
  settle_cublas(device);
  return chosen = device;
}

torch::Device compute_device() { return chosen; }

std::string device_name() { return chosen.str(); }

int64_t device_room() {
  GRAFT_ASSERT(chosen.is_cuda());
  return static_cast<int64_t>(at::accelerator::getMemoryInfo(chosen.index()).first);
}

void wait_for_device() {
  if (chosen.is_cuda()) at::accelerator::synchronizeDevice(chosen.index());
}

Tensor placed(const Tensor& tensor, torch::Device device) {
  if (tensor.device() == device) return tensor;
  if (!tensor.device().is_cpu()) return tensor.to(device);
  return (tensor.is_pinned() ? tensor : tensor.pin_memory()).to(device, /*non_blocking=*/true);
}

Tensor empty_for(torch::Device device, c10::IntArrayRef shape, torch::Dtype type) {
  return torch::empty(shape, torch::TensorOptions().dtype(type).pinned_memory(device.is_cuda()));
}

void put_on_device(Model& model) {
  const torch::NoGradGuard no_grad;
  for (auto items : {model.parameters_by_key(), model.buffers_by_key()})
    for (auto& item : items)
      if (item.value().device() != chosen) item.value().set_data(item.value().to(chosen));
}

namespace {

constexpr int64_t kSmallHead = 1 << 22;  // weights

void move_to(Head& head, torch::Device device) {
  const torch::NoGradGuard no_grad;
  for (auto items : {head.named_parameters(), head.named_buffers()})
    for (auto& item : items) {
      item.value().mutable_grad() = Tensor();
      item.value().set_data(item.value().to(device));
    }
}

}  // namespace

torch::Device head_device(const Model& model) {
  const auto own = model.head ? model.head->parameters() : std::vector<Tensor>();
  return own.empty() ? model.device() : own.front().device();
}

HeadOnCpu::HeadOnCpu(Model& model) : back_(model.device()) {
  int64_t weights = 0;
  for (const auto& parameter : model.head->parameters()) weights += parameter.numel();
  if (back_.is_cpu() || !model.head->uses().empty() || weights > kSmallHead) return;
  head_ = model.head;
  move_to(*head_, torch::kCPU);
}

HeadOnCpu::~HeadOnCpu() {
  if (head_) move_to(*head_, back_);
}

}  // namespace graft::models
