#include "graft/finetune/closed_form.h"

#include <torch/types.h>

#include "graft/core/error.h"
#include "graft/train/ridge.h"
#include "graft/train/supervised.h"

namespace graft::finetune {
namespace {

using models::Tensor;

constexpr int64_t kMost = 20000;

/// The head's last layer while it passes on what enters it.
class PassingOn {
 public:
  PassingOn(Tensor weight, Tensor bias) : weight_(std::move(weight)), bias_(std::move(bias)) {
    kept_ = {weight_.detach().clone(), bias_.defined() ? bias_.detach().clone() : Tensor()};
    const auto width = weight_.size(1);
    weight_.set_data(torch::eye(width, weight_.options().requires_grad(false)));
    if (bias_.defined()) bias_.set_data(torch::zeros({width}, bias_.options().requires_grad(false)));
  }
  ~PassingOn() {
    weight_.set_data(kept_[0]);
    if (bias_.defined()) bias_.set_data(kept_[1]);
  }
  PassingOn(const PassingOn&) = delete;
  PassingOn& operator=(const PassingOn&) = delete;

 private:
  Tensor weight_, bias_;
  std::vector<Tensor> kept_;
};

/// The weight of the head's last layer with as many rows as there are outputs, and its bias; undefined when there is none.
std::pair<Tensor, Tensor> last_layer(const models::Model& model, int64_t outputs) {
  Tensor weight, bias;
  for (const auto& item : model.parameters_by_key()) {
    if (model.group_of(item.key()) != "head" || item.value().size(0) != outputs) continue;
    if (item.value().dim() == 2) weight = item.value(), bias = Tensor();
    else if (item.value().dim() == 1 && weight.defined()) bias = item.value();
  }
  return {weight, bias};
}

/// Regression targets [n, k] of each example, float64.
Tensor wanted(const train::Predictions& predictions, int64_t outputs) {
  if (predictions.task == "classification") return torch::one_hot(predictions.targets, outputs).to(torch::kFloat64);
  const auto targets = predictions.targets.to(torch::kFloat64);
  return targets.dim() == 1 ? targets.unsqueeze(1) : targets;
}

double loss(const std::string& task, const Tensor& logits, const Tensor& y) {
  if (task == "classification") return at::cross_entropy_loss(logits, y.argmax(1)).item<double>();
  if (task == "multilabel") return at::binary_cross_entropy_with_logits(logits, y).item<double>();
  return at::mse_loss(logits, y).item<double>();
}

}  // namespace

bool closed_form_start(models::Model& model, const train::Stream& stream, int64_t batch_rows, bool bf16,
                       uint64_t seed) {
  const auto predictions = stream.predictions();
  const auto& task = predictions.task;
  if (task != "classification" && task != "multilabel" && task != "regression") return false;
  const torch::NoGradGuard no_grad;
  const auto outputs = predictions.scores.size(1);
  auto [weight, bias] = last_layer(model, outputs);
  if (!weight.defined()) return false;
  const bool training = model.is_training();
  model.eval();
  const auto examples = train::sample(stream.size(), kMost, seed);
  std::vector<Tensor> entering;
  {
    const PassingOn passing(weight, bias);
    std::vector<int64_t> batch;
    int64_t rows = 0;
    const auto read = [&] {
      const train::Autocast autocast(model.device(), bf16);
      entering.push_back(
          train::forward_behind(model, stream.enter(batch, train::kEvaluation), std::nullopt).at("logits").cpu());
      batch.clear();
      rows = 0;
    };
    for (const auto example : examples) {
      if (!batch.empty() && rows + stream.rows(example) > batch_rows) read();
      batch.push_back(example);
      rows += stream.rows(example);
    }
    read();
  }
  model.train(training);
  const auto x = torch::cat(entering).to(torch::kFloat64);
  if (x.dim() != 2 || x.size(1) != weight.size(1)) return false;  // something else stands behind that layer
  const auto y = wanted(predictions, outputs).index_select(0, torch::tensor(examples, torch::kInt64));
  const auto fit = train::ridge(x, y, [&](const Tensor& given) { return -(given - y).square().mean().item<double>(); });
  // Regression says where the classes part, not how sure it is. The point between no and yes becomes 0.
  const double middle = task == "classification" ? 1.0 / static_cast<double>(outputs) : task == "multilabel" ? 0.5 : 0;
  double scale = 1;
  if (task != "regression") {
    double least = std::numeric_limits<double>::infinity();
    for (double candidate = 1; candidate <= 256; candidate *= 2) {
      const double value = loss(task, candidate * (fit.left_out - middle), y);
      if (value < least) least = value, scale = candidate;
    }
  }
  weight.copy_(scale * fit.weight);
  if (bias.defined()) bias.copy_(scale * (fit.bias - middle));
  return true;
}

}  // namespace graft::finetune
