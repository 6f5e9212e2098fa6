#include "graft/features/text_inputs.h"

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/models/device.h"

namespace graft::features {
namespace {

constexpr int64_t kTexts = 4096;  // texts tokenized at a time

/// Character (not byte) at which each word of a text begins; words stand between single blanks.
std::vector<int32_t> word_starts(std::string_view text) {
  std::vector<int32_t> starts{0};
  int32_t character = 0;
  for (const unsigned char byte : text) {
    if ((byte & 0xC0) == 0x80) continue;  // inside a character
    ++character;
    if (byte == ' ') starts.push_back(character);
  }
  return starts;
}

/// Per word the place of its first token; -1 where it was cut off or has none.
std::vector<int32_t> first_token_of_words(std::string_view text, const data::Encoding& encoding) {
  const auto starts = word_starts(text);
  std::vector<int32_t> first(starts.size(), -1);
  for (size_t t = 0; t < encoding.ids.size(); ++t) {
    const auto [begin, end] = encoding.offsets[t];
    if (encoding.special[t] || end <= begin) continue;
    // By its last character: a byte-level token may begin with the blank before its word.
    const auto word = std::upper_bound(starts.begin(), starts.end(), end - 1) - starts.begin() - 1;
    if (first[word] < 0) first[word] = static_cast<int32_t>(t);
  }
  return first;
}

}  // namespace

TextInputs::TextInputs(const models::Model& model, int64_t max_length) : model_(model), max_length_(max_length) {}

void TextInputs::add(const data::Tokenizer& tokenizer, const data::Ragged<char>& texts,
                     const data::Ragged<char>& pairs) {
  data::Tokenizer::Options options;
  options.max_length = max_length_;
  options.details = keep_words;
  for (int64_t start = 0; start < texts.size(); start += kTexts) {
    std::vector<std::string_view> some_texts, some_pairs;
    for (int64_t i = start; i < std::min(start + kTexts, texts.size()); ++i) {
      some_texts.push_back(texts.text(i));
      if (!pairs.empty()) some_pairs.push_back(pairs.text(i));
    }
    for (const auto& encoding : tokenizer.encode_batch(some_texts, some_pairs, options)) {
      ids_.push_back(encoding.ids);
      type_ids_.push_back(encoding.type_ids);
      truncated += static_cast<int64_t>(encoding.ids.size()) == max_length_;
      if (!keep_words) continue;
      first_tokens_.push_back(first_token_of_words(texts.text(first_tokens_.size()), encoding));
    }
  }
}

void TextInputs::add(std::span<const int32_t> ids, std::span<const int32_t> type_ids) {
  ids_.push_back(ids);
  type_ids_.push_back(type_ids);
}

models::Activations TextInputs::batch(const std::string&, const std::vector<int64_t>& examples) const {
  std::vector<std::span<const int32_t>> ids, type_ids;
  for (const auto example : examples) {
    ids.push_back(ids_[example]);
    type_ids.push_back(type_ids_[example]);
  }
  return text_batch(model_, ids, type_ids);
}

std::string TextInputs::hash() const {
  Sha256 hash;
  for (int64_t i = 0; i < size(); ++i) {
    const int64_t length = ids_.length(i);
    hash.update(&length, sizeof length);
    hash.update(ids_[i].data(), ids_[i].size_bytes());
    hash.update(type_ids_[i].data(), type_ids_[i].size_bytes());
  }
  return hash.hex();
}

models::Activations text_batch(const models::Model& model, const std::vector<std::span<const int32_t>>& ids,
                               const std::vector<std::span<const int32_t>>& type_ids) {
  std::vector<int64_t> lengths;
  int64_t total = 0;
  for (const auto& row : ids) {
    lengths.push_back(static_cast<int64_t>(row.size()));
    total += lengths.back();
  }
  const auto device = model.device();
  const auto numbers = [&] { return models::empty_for(device, {total}, torch::kInt64); };
  const auto id = numbers(), type = numbers(), position = numbers();
  int64_t start = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    std::copy(ids[i].begin(), ids[i].end(), id.data_ptr<int64_t>() + start);
    std::copy(type_ids[i].begin(), type_ids[i].end(), type.data_ptr<int64_t>() + start);
    model.positions(id.data_ptr<int64_t>() + start, lengths[i], position.data_ptr<int64_t>() + start);
    start += lengths[i];
  }
  models::Activations batch;
  batch.kept["input_ids"] = {models::placed(id, device), lengths};
  batch.kept["token_type_ids"] = {models::placed(type, device), lengths};
  batch.kept["position_ids"] = {models::placed(position, device), lengths};
  return batch;
}

}  // namespace graft::features
