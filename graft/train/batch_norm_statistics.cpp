#include "graft/train/batch_norm_statistics.h"

#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/features/store.h"
#include "graft/nn/convolution.h"

namespace graft::train {

namespace {

std::vector<std::shared_ptr<nn::BatchNormImpl>> batch_norms(const models::Model& model) {
  std::vector<std::shared_ptr<nn::BatchNormImpl>> norms;
  for (const auto& module : model.modules(/*include_self=*/false))
    if (auto norm = std::dynamic_pointer_cast<nn::BatchNormImpl>(module)) norms.push_back(std::move(norm));
  return norms;
}

}  // namespace

int64_t estimate_batch_norm(models::Model& model, const features::Inputs& inputs, int64_t batch_rows,
                            const std::function<void(int64_t, int64_t)>& progress) {
  const auto norms = batch_norms(model);
  if (norms.empty()) return 0;
  GRAFT_CHECK(data, inputs.size() > 1, "statistics of batch norms want at least two examples; there is {}.",
              inputs.size());
  auto batches = features::batches_by_length(inputs, batch_rows);
  if (batches.size() > 1 && batches.back().size() == 1) {  // one example has no variance
    batches[batches.size() - 2].push_back(batches.back().front());
    batches.pop_back();
  }
  const torch::NoGradGuard no_grad;
  const bool was_training = model.is_training();
  std::vector<double> momenta;
  model.eval();
  for (auto& norm : norms) {
    momenta.push_back(norm->momentum);
    norm->num_batches_tracked.zero_();
    norm->train();
  }
  double seen = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    stop_if_interrupted();
    seen += static_cast<double>(batches[i].size());
    for (auto& norm : norms) norm->momentum = static_cast<double>(batches[i].size()) / seen;  // 1 at first: the average
    for (const auto& chain : model.chains)
      model.forward(chain.name, 0, static_cast<int64_t>(chain.blocks.size()), inputs.batch(chain.name, batches[i]), {});
    if (progress) progress(static_cast<int64_t>(i) + 1, static_cast<int64_t>(batches.size()));
  }
  for (size_t i = 0; i < norms.size(); ++i) norms[i]->momentum = momenta[i], norms[i]->eval();
  model.train(was_training);
  return static_cast<int64_t>(norms.size());
}

bool has_batch_norm(const models::Model& model) { return !batch_norms(model).empty(); }

int64_t hold_batch_norm(models::Model& model) {
  const auto norms = batch_norms(model);
  for (const auto& norm : norms) {
    norm->held = true;
    norm->eval();
  }
  return static_cast<int64_t>(norms.size());
}

}  // namespace graft::train
