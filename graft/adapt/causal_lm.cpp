#include "graft/adapt/causal_lm.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/models/device.h"

namespace graft::adapt {

PackedSequences::PackedSequences(int64_t max_length) : max_length_(max_length) {
  GRAFT_CHECK(usage, max_length >= 2, "a packed sequence of {} tokens has nothing to predict; give at least 2.",
              max_length);
}

void PackedSequences::add(std::span<const int32_t> ids, std::span<const char> learned, bool whole) {
  const std::vector<char> all(learned.empty() ? ids.size() : 0, 1);
  if (learned.empty()) learned = all;
  GRAFT_ASSERT(learned.size() == ids.size());
  for (size_t first = 0; first + 1 < ids.size();) {
    const auto room = first_piece_.empty() ? 0 : max_length_ - tokens_.back();
    const auto left = static_cast<int64_t>(ids.size() - first);
    if (room < 2 || (whole && room < left && left <= max_length_)) {
      first_piece_.push_back(ids_.size());
      tokens_.push_back(0);
      predicted_.push_back(0);
    }
    const auto take = std::min(static_cast<size_t>(max_length_ - tokens_.back()), ids.size() - first);
    const auto piece = learned.subspan(first, take);
    ids_.push_back(ids.subspan(first, take));
    learned_.push_back(piece);
    tokens_.back() += static_cast<int64_t>(take);
    predicted_.back() += std::count_if(piece.begin() + 1, piece.end(), [](char c) { return c != 0; });
    first += take - 1;
  }
}

std::vector<PackedSequences::Piece> PackedSequences::pieces(int64_t sequence) const {
  const auto end = sequence + 1 < size() ? first_piece_[sequence + 1] : ids_.size();
  std::vector<Piece> pieces;
  for (auto i = first_piece_[sequence]; i < end; ++i) pieces.push_back({ids_[i], learned_[i]});
  return pieces;
}

int32_t end_token(const data::Tokenizer& tokenizer) {
  const auto end = tokenizer.special_id("eos_token");
  GRAFT_CHECK(model, end.has_value(),
              "the tokenizer has no end token, so documents cannot be told apart; name one as eos_token in "
              "tokenizer_config.json.");
  return *end;
}

void pack_documents(const data::Tokenizer& tokenizer, const std::vector<std::string_view>& documents,
                    PackedSequences& into, const data::FillInTheMiddle* middle, uint64_t first) {
  const auto end = end_token(tokenizer);
  const auto apart = [&](size_t i) { return middle && middle->applies(first + i); };
  std::vector<std::string_view> whole;
  for (size_t i = 0; i < documents.size(); ++i)
    if (!apart(i)) whole.push_back(documents[i]);
  auto encodings = whole.empty() ? std::vector<data::Encoding>() : tokenizer.encode_batch(whole, {}, {});
  size_t next = 0;
  for (size_t i = 0; i < documents.size(); ++i) {
    if (apart(i)) {
      for (const auto part : middle->parts(documents[i], into.max_length()))
        into.add(middle->ids(part, first + i), {}, true);
      continue;
    }
    auto& ids = encodings[next++].ids;
    if (ids.empty() || ids.back() != end) ids.push_back(end);
    into.add(ids);
  }
}

CausalLm::CausalLm(models::Model& model, const PackedSequences& sequences) : model_(model), sequences_(sequences) {}

std::map<std::string, train::Activations> CausalLm::enter(const std::vector<int64_t>& examples, uint64_t) const {
  std::vector<std::span<const int32_t>> ids;
  std::vector<int64_t> labels;
  for (const auto example : examples)
    for (const auto& piece : sequences_.pieces(example)) {
      ids.push_back(piece.ids);
      for (size_t t = 1; t < piece.ids.size(); ++t) labels.push_back(piece.learned[t] ? piece.ids[t] : -100);
      labels.push_back(-100);
    }
  auto x = features::text_batch(model_, ids, ids);  // decoders have no token types, so any will do
  x.kept["labels"] = {models::placed(torch::tensor(labels, torch::kInt64), model_.device()),
                      x.kept.at("input_ids").lengths};
  const auto& chain = model_.chains.front().name;
  if (const auto boundary = model_.boundary(chain); boundary > 0) {
    const torch::NoGradGuard no_grad;
    x = model_.forward(chain, 0, boundary, std::move(x), {});
  }
  return {{chain, std::move(x)}};
}

double CausalLm::weight(const std::vector<int64_t>& examples, uint64_t) const {
  int64_t count = 0;
  for (const auto example : examples) count += sequences_.predicted(example);
  return static_cast<double>(count);
}

train::Tensor CausalLm::loss_sum(const train::Outputs& outputs, const std::vector<int64_t>&, uint64_t) const {
  return outputs.at("loss");
}

train::Predictions CausalLm::predictions() const { return {.task = "causal_lm"}; }

}  // namespace graft::adapt
