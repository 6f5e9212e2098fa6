// Activations at a boundary for any examples: read from a store where there is one, else computed by the frozen blocks.
#pragma once

#include "graft/features/store.h"

namespace graft::features {

class Feed {
 public:
  Feed(models::Model& model, const Inputs& inputs) : model_(model), inputs_(inputs) {}

  /// Later reads at this boundary come from the store.
  void use(const std::string& chain, int64_t boundary, Store store);
  /// Later means at this boundary come from the store.
  void use_mean(const std::string& chain, int64_t boundary, Store store);
  /// Stores at boundaries of the chain nearer to the head than this one: nothing reads them once that much is unfrozen.
  /// They are forgotten, and their files named.
  std::vector<fs::path> forget_beyond(const std::string& chain, int64_t boundary);

  /// What enters block `boundary` of the chain, without gradient: from its store, from the nearest store before it
  /// and the blocks between, or from the inputs. `view` is for boundary 0, where nothing is frozen.
  models::Activations enter(const std::string& chain, int64_t boundary, const std::vector<int64_t>& examples,
                            const models::Reads& reads, uint64_t view = 0) const;

  /// (B, C): the mean over each example's rows, or over the places of its maps, of what enters block `boundary`.
  torch::Tensor mean(const std::string& chain, int64_t boundary, const std::vector<int64_t>& examples) const;

  /// Rows that an example costs behind the boundary, for batches of like length.
  int64_t rows(const std::string& chain, int64_t boundary, int64_t example) const;
  bool stored(const std::string& chain, int64_t boundary) const { return stores_.contains({chain, boundary}); }
  /// Whether entering there reads a store, this one or one before it, and no inputs.
  bool stored_up_to(const std::string& chain, int64_t boundary) const;
  const Inputs& inputs() const { return inputs_; }

 private:
  models::Model& model_;
  const Inputs& inputs_;
  std::map<std::pair<std::string, int64_t>, Store> stores_, means_;
};

}  // namespace graft::features
