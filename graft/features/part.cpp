#include "graft/features/part.h"

#include <algorithm>

namespace graft::features {

models::Activations PartOfInputs::batch(const std::string& chain, const std::vector<int64_t>& some) const {
  std::vector<int64_t> mapped;
  mapped.reserve(some.size());
  for (const auto i : some) mapped.push_back(examples_[i]);
  return all_.batch(chain, mapped);
}

std::string PartOfInputs::hash() const {
  if (!hash_.empty()) return hash_;
  std::string text = all_.hash();
  for (const auto i : examples_) text += "," + std::to_string(i);
  return text;
}

CaptureResult capture_in_parts(models::Model& model, const std::string& chain, const std::vector<int64_t>& boundaries,
                               const models::Reads& reads, const Inputs& inputs, const KnownPart& known,
                               const fs::path& folder, const StoreOptions& options,
                               const std::function<void(int64_t, int64_t)>& progress) {
  std::vector<int64_t> others;
  for (int64_t i = 0; i < inputs.size(); ++i)
    if (!std::binary_search(known.examples.begin(), known.examples.end(), i)) others.push_back(i);
  const PartOfInputs part(inputs, known.examples, known.hash), rest(inputs, others);
  auto result = capture(model, chain, boundaries, reads, part, folder, options, progress);
  const auto second = capture(model, chain, boundaries, reads, rest, folder, options, progress);
  for (size_t i = 0; i < boundaries.size(); ++i)
    if (result.stores[i] && second.stores[i])
      result.stores[i] = Store::joined(*result.stores[i], known.examples, *second.stores[i]);
    else result.stores[i].reset();
  for (const auto& note : second.notes)
    if (std::find(result.notes.begin(), result.notes.end(), note) == result.notes.end()) result.notes.push_back(note);
  result.rounding = std::max(result.rounding, second.rounding);
  result.seconds += second.seconds;
  result.computed += second.computed;
  return result;
}

}  // namespace graft::features
