#include "graft/retain/own_labels.h"

#include <cmath>

#include <numbers>
#include <numeric>

#include "graft/core/error.h"
#include "graft/core/random.h"

namespace graft::retain {

using models::Tensor;

std::map<std::string, train::Activations> OwnLabels::enter(const std::vector<int64_t>& examples, uint64_t epoch) const {
  auto entering = inputs_.enter(examples, epoch);
  for (auto& item : entering) item.second.kept.erase("labels");  // a causal head then gives its logits
  return entering;
}

Tensor OwnLabels::loss_sum(const train::Outputs& outputs, const std::vector<int64_t>& examples, uint64_t epoch) const {
  const auto found = outputs.find("logits");
  auto scores = found != outputs.end()              ? found->second
                : outputs.contains("pooler_output") ? outputs.at("pooler_output")
                                                    : outputs.at("last_hidden_state");
  if (scores.size(0) == 0) return scores.sum();                       // nothing of these examples is masked
  scores = scores.to(torch::kFloat32).reshape({scores.size(0), -1});  // (R, K)
  const auto R = scores.size(0), K = scores.size(1), B = static_cast<int64_t>(examples.size());
  std::vector<int64_t> lengths(B, R / B);
  if (const auto reads = inputs_.reads(examples, epoch); reads && reads->where == models::Reads::Where::listed) {
    lengths = reads->lengths;
  } else if (R != B) {
    std::vector<int64_t> own;
    for (const auto example : examples) own.push_back(inputs_.rows(example));
    if (std::accumulate(own.begin(), own.end(), int64_t{0}) == R) lengths = std::move(own);
  }
  GRAFT_ASSERT(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) == R);

  const bool classes = task_ == "classification" || task_ == "tokens" || task_ == "masked_lm" || task_ == "causal_lm";
  const auto draws = classes ? 1 : K;
  auto uniform = torch::empty({R, draws});
  auto* at = uniform.data_ptr<float>();
  for (int64_t n = 0; n < B; ++n) {
    Random random(seed_of(seed_, {"fisher", "labels"}, {static_cast<uint64_t>(examples[n])}));
    for (int64_t i = 0; i < lengths[n] * draws; ++i) {
      if (classes || task_ == "multilabel") *at++ = static_cast<float>(random.uniform());
      else  // Box and Muller 1958
        *at++ = static_cast<float>(std::sqrt(-2 * std::log(1 - random.uniform())) *
                                   std::cos(2 * std::numbers::pi * random.uniform()));
    }
  }
  uniform = uniform.to(scores.device());
  const auto fixed = scores.detach();
  if (classes) {
    const auto label = fixed.softmax(1).cumsum(1).lt(uniform).sum(1, /*keepdim=*/true).clamp_max(K - 1);
    return -scores.log_softmax(1).gather(1, label).sum();
  }
  if (task_ == "multilabel")
    return torch::binary_cross_entropy_with_logits(scores, uniform.lt(fixed.sigmoid()).to(torch::kFloat32), {}, {},
                                                   at::Reduction::Sum);
  return 0.5 * (scores - (fixed + uniform)).square().sum();
}

}  // namespace graft::retain
