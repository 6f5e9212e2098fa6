#include "graft/train/activation_checkpointing.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "graft/train/stream.h"

namespace graft::train {
namespace {

using models::Activations;
using torch::Tensor;
using Tensors = std::vector<Tensor>;

/// What enters and leaves a block and carries gradient. Slots that pass through unchanged do not take part.
Tensors differentiable(const Activations& x, const std::map<std::string, models::Rows>& but_not = {}) {
  Tensors tensors;
  if (x.hidden.values.defined()) tensors.push_back(x.hidden.values);
  for (const auto& [name, rows] : x.kept)
    if (rows.values.is_floating_point() && !but_not.contains(name)) tensors.push_back(rows.values);
  return tensors;
}

void replace(Activations& x, const Tensors& by, const std::map<std::string, models::Rows>& but_not = {}) {
  size_t next = 0;
  if (x.hidden.values.defined()) x.hidden.values = by[next++];
  for (auto& [name, rows] : x.kept)
    if (rows.values.is_floating_point() && !but_not.contains(name)) rows.values = by[next++];
}

/// A block with what it needs to run twice.
struct Work : torch::CustomClassHolder {
  Activations run(const Tensors& inputs) {
    auto x = entering;
    replace(x, inputs);
    return model->forward(chain, block, block + 1, std::move(x), needed);
  }

  models::Model* model;
  std::string chain;
  int64_t block;
  Activations entering;  // without history; the graph has that
  models::Reads needed;
  Tensor generator;  // the state from which dropout draws
  bool autocast;
  Activations* leaving;
};

// Parameters get their gradients by the inner backward pass itself; `anchor` only makes the outputs need one where
// nothing that enters does (the first trained block).
struct Checkpointed : torch::autograd::Function<Checkpointed> {
  static Tensors forward(torch::autograd::AutogradContext* context, Tensor /*anchor*/, at::TensorList inputs,
                         c10::intrusive_ptr<Work> work) {
    *work->leaving = work->run(inputs.vec());
    const auto outputs = differentiable(*work->leaving, work->entering.kept);
    work->leaving = nullptr;
    context->save_for_backward(inputs.vec());
    context->saved_data["work"] = c10::IValue::make_capsule(std::move(work));
    return outputs;
  }

  static Tensors backward(torch::autograd::AutogradContext* context, Tensors gradients) {
    const auto work = c10::static_intrusive_pointer_cast<Work>(context->saved_data["work"].toCapsule());
    Tensors inputs;
    for (const auto& saved : context->get_saved_variables())
      inputs.push_back(saved.detach().set_requires_grad(saved.requires_grad()));
    auto generator = at::detail::getDefaultCPUGenerator();
    const auto later = generator.get_state();
    generator.set_state(work->generator);
    Tensors outputs;
    {
      const torch::AutoGradMode on(true);
      const Autocast autocast(work->model->device(), work->autocast);
      outputs = differentiable(work->run(inputs), work->entering.kept);
    }
    generator.set_state(later);
    Tensors roots, root_gradients;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!outputs[i].requires_grad() || !gradients[i].defined()) continue;
      roots.push_back(outputs[i]);
      root_gradients.push_back(gradients[i]);
    }
    if (!roots.empty()) torch::autograd::backward(roots, root_gradients);
    Tensors result{Tensor()};
    for (const auto& input : inputs) result.push_back(input.grad());
    result.emplace_back();
    return result;
  }
};

}  // namespace

Activations forward_checkpointed(models::Model& model, const std::string& chain, int64_t block, Activations x,
                                 const models::Reads& needed) {
  const auto inputs = differentiable(x);
  auto work = c10::make_intrusive<Work>();
  work->model = &model;
  work->chain = chain;
  work->block = block;
  work->needed = needed;
  work->generator = at::detail::getDefaultCPUGenerator().get_state();
  work->autocast = nn::under_autocast(model.device());
  work->entering = std::move(x);
  Tensors values;
  for (const auto& input : inputs) values.push_back(input.detach());
  replace(work->entering, values);
  Activations leaving;
  work->leaving = &leaving;
  const auto before = work->entering.kept;
  const auto anchor = torch::empty({0}, torch::requires_grad());
  replace(leaving, Checkpointed::apply(anchor, at::TensorList(inputs), std::move(work)), before);
  leaving.shared.clear();  // computed without gradient here; every block fills it anew
  return leaving;
}

}  // namespace graft::train
