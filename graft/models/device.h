// Where models compute: the CPU, or a CUDA device where libtorch's CUDA library and a GPU are found.
#pragma once

#include <memory>
#include <string>

#include "graft/models/activations.h"

namespace graft::models {

/// Opens what a recipe's train.device names: "cpu"; "cuda" or "cuda:1"; "auto" is the first CUDA device where
/// libtorch_cuda.so can be opened and a GPU answers, else the CPU. From then on load() and random_copy() place models there:
/// like the number of threads, the device is one for the process. Float32 stays float32 on it (no TF32).
/// Throws Kind::usage: CUDA is asked for and cannot be had; the sentence says what is missing.
torch::Device compute_on(const std::string& wanted);

/// What compute_on() chose; the CPU before.
torch::Device compute_device();

/// "cpu" or "cuda:0".
std::string device_name();

/// Bytes that are free on the CUDA device.
int64_t device_room();

/// Returns when all that was asked of the device is computed: before a clock is read.
void wait_for_device();

/// A tensor of the CPU on `device`. CUDA gets it from pinned memory and nobody waits for it.
Tensor placed(const Tensor& tensor, torch::Device device);

/// An empty tensor of the CPU whose bytes go to `device` soonest: pinned for CUDA.
Tensor empty_for(torch::Device device, c10::IntArrayRef shape, torch::Dtype type);

struct Model;
struct Head;

/// Moves all parameters and buffers of a model to compute_device(), tied ones together.
void put_on_device(Model& model);

/// Where the head computes: the model's device, but for a HeadOnCpu.
torch::Device head_device(const Model& model);

/// While it lives, a small head of a model on a GPU computes on the CPU. The steps of a head phase that reads stored features
/// are so small that a GPU would be launched at for longer than it computes. A head that uses weights of the blocks, or is
/// large, stays.
class HeadOnCpu {
 public:
  explicit HeadOnCpu(Model& model);
  ~HeadOnCpu();
  HeadOnCpu(const HeadOnCpu&) = delete;
  HeadOnCpu& operator=(const HeadOnCpu&) = delete;

 private:
  std::shared_ptr<Head> head_;  // null: it stayed
  torch::Device back_;
};

}  // namespace graft::models
