// Some examples of a split as inputs of their own, and stores of a split of which a part was captured before: only the
// rest is computed, and what is read is both.
#pragma once

#include "graft/features/store.h"

namespace graft::features {

class PartOfInputs final : public Inputs {
 public:
  /// `all` must outlive this. `hash`: what inputs of these examples alone have; "" where nothing else is known by it.
  PartOfInputs(const Inputs& all, std::vector<int64_t> examples, std::string hash = {})
      : all_(all), examples_(std::move(examples)), hash_(std::move(hash)) {}
  int64_t size() const override { return static_cast<int64_t>(examples_.size()); }
  int64_t length(int64_t i) const override { return all_.length(examples_[i]); }
  int64_t rows(const std::string& chain, int64_t i) const override { return all_.rows(chain, examples_[i]); }
  models::Activations batch(const std::string& chain, const std::vector<int64_t>& some) const override;
  std::string hash() const override;

 private:
  const Inputs& all_;
  std::vector<int64_t> examples_;
  std::string hash_;
};

/// Examples that were captured as inputs of their own.
struct KnownPart {
  std::vector<int64_t> examples;  // ascending
  std::string hash;               // of those inputs
};

/// As capture(), the known part in batches of its own, the others in theirs: what is stored of the part is not computed
/// again, and what is lost of it is computed as it was, so the values do not hang on which of the two happened.
CaptureResult capture_in_parts(models::Model& model, const std::string& chain, const std::vector<int64_t>& boundaries,
                               const models::Reads& reads, const Inputs& inputs, const KnownPart& known,
                               const fs::path& folder, const StoreOptions& options,
                               const std::function<void(int64_t, int64_t)>& progress = {});

}  // namespace graft::features
