#include "graft/train/task_stream.h"

#include "graft/core/error.h"

namespace graft::train {

std::unique_ptr<Stream> task_stream(models::Model& model, const features::Feed& feed, const std::string& task,
                                    const std::vector<std::string>& label_names, const data::Examples& examples,
                                    const Alignment& alignment) {
  if (task == "causal_lm") {
    GRAFT_ASSERT(alignment.next_tokens);
    return std::make_unique<CausalText>(model, feed, *alignment.next_tokens);
  }
  return std::make_unique<Supervised>(model, feed, task, label_names, examples, alignment.first_tokens);
}

std::string default_metric_of(models::Model& model, const features::Feed& feed, const std::string& task,
                              const std::vector<std::string>& label_names, const data::Examples& examples) {
  if (task == "causal_lm") return default_metric({.task = task});
  return default_metric(Supervised(model, feed, task, label_names, examples).targets());
}

}  // namespace graft::train
