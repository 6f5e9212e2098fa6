#include "graft/adapt/masked_lm.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/core/random.h"
#include "graft/models/device.h"

namespace graft::adapt {

MaskRules::MaskRules(const data::Tokenizer& tokenizer, int64_t vocab_size, const AdaptOptions& options)
    : vocab_size(vocab_size), probability(options.mask_probability), whole_words(options.whole_words) {
  const auto found = tokenizer.special_id("mask_token");
  GRAFT_CHECK(model, found && *found < vocab_size,
              "the tokenizer has no mask token for which the model has a row, so masked language modelling cannot be "
              "trained with it; choose a source whose tokenizer has one.");
  mask_id = *found;
  special.assign(vocab_size, false);
  continues.assign(vocab_size, false);
  for (const auto* role : {"cls_token", "sep_token", "mask_token", "pad_token", "unk_token", "bos_token", "eos_token"})
    if (const auto id = tokenizer.special_id(role); id && *id < vocab_size) special[*id] = true;
  const bool word_piece = tokenizer.id_of("##s").has_value() || tokenizer.id_of("##a").has_value();
  for (int64_t id = 0; id < std::min(vocab_size, tokenizer.vocab_size()); ++id) {
    const auto token = tokenizer.token_of(static_cast<int32_t>(id));
    // WordPiece marks what goes on ("##ing"); byte-level BPE and SentencePiece mark what begins ("Ġthe", "▁the").
    continues[id] =
        word_piece ? token.starts_with("##") : !(token.starts_with("\u0120") || token.starts_with("\u2581"));
  }
}

Masked mask(std::span<const int32_t> ids, const MaskRules& rules, uint64_t seed) {
  Random random(seed);
  Masked masked{.ids = {ids.begin(), ids.end()}};
  bool chosen = false;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (rules.special[ids[i]]) {
      chosen = false;
      continue;
    }
    const bool goes_on = rules.whole_words && i > 0 && rules.continues[ids[i]] && !rules.special[ids[i - 1]];
    if (!goes_on) chosen = random.uniform() < rules.probability;
    if (!chosen) continue;
    masked.positions.push_back(static_cast<int32_t>(i));
    masked.labels.push_back(ids[i]);
    const double fate = random.uniform();
    if (fate < 0.8) masked.ids[i] = rules.mask_id;
    else if (fate < 0.9) do
        masked.ids[i] = static_cast<int32_t>(random.below(rules.vocab_size));
      while (rules.special[masked.ids[i]]);
  }
  return masked;
}

MaskedLm::MaskedLm(models::Model& model, const features::TextInputs& sequences, const MaskRules& rules, uint64_t seed)
    : model_(model), sequences_(sequences), rules_(rules), seed_(seed) {}

std::vector<const Masked*> MaskedLm::masked(const std::vector<int64_t>& examples, uint64_t epoch) const {
  const auto known = [&](int64_t example) { return drawn_.contains(example); };
  if (epoch != drawn_epoch_ || !std::all_of(examples.begin(), examples.end(), known)) {
    drawn_.clear();
    drawn_epoch_ = epoch;
    for (const auto example : examples)
      if (!known(example))
        drawn_[example] = mask(sequences_.ids(example), rules_,
                               seed_of(seed_, {"adapt", "mask"}, {epoch, static_cast<uint64_t>(example)}));
  }
  std::vector<const Masked*> all;
  for (const auto example : examples) all.push_back(&drawn_.at(example));
  return all;
}

std::map<std::string, train::Activations> MaskedLm::enter(const std::vector<int64_t>& examples, uint64_t epoch) const {
  const auto all = masked(examples, epoch);
  std::vector<std::span<const int32_t>> ids, types;
  std::vector<std::vector<int32_t>> zeros;
  for (const auto* one : all) zeros.emplace_back(one->ids.size(), 0);
  for (size_t i = 0; i < all.size(); ++i) {
    ids.push_back(all[i]->ids);
    types.push_back(zeros[i]);
  }
  auto x = features::text_batch(model_, ids, types);
  const auto& chain = model_.chains.front().name;
  const auto masked_rows = *reads(examples, epoch);
  if (const auto boundary = model_.boundary(chain); boundary > 0) {
    // Masked inputs change every epoch, so what frozen blocks make of them is computed and not stored.
    const torch::NoGradGuard no_grad;
    x = model_.forward(chain, 0, boundary, std::move(x), masked_rows);
  }
  std::vector<int64_t> labels;
  for (const auto* one : all) labels.insert(labels.end(), one->labels.begin(), one->labels.end());
  x.kept["labels"] = {models::placed(torch::tensor(labels, torch::kInt64), model_.device()), masked_rows.lengths};
  return {{chain, std::move(x)}};
}

std::optional<train::Reads> MaskedLm::reads(const std::vector<int64_t>& examples, uint64_t epoch) const {
  std::vector<int64_t> index;
  train::Reads reads{models::Reads::Where::listed};
  int64_t start = 0;
  for (const auto* one : masked(examples, epoch)) {
    for (const auto position : one->positions) index.push_back(start + position);
    reads.lengths.push_back(static_cast<int64_t>(one->positions.size()));
    start += static_cast<int64_t>(one->ids.size());
  }
  reads.index = torch::tensor(index, torch::kInt64);
  return reads;
}

double MaskedLm::weight(const std::vector<int64_t>& examples, uint64_t epoch) const {
  double count = 0;
  for (const auto* one : masked(examples, epoch)) count += static_cast<double>(one->positions.size());
  return count;
}

train::Tensor MaskedLm::loss_sum(const train::Outputs& outputs, const std::vector<int64_t>&, uint64_t) const {
  return outputs.at("loss");  // of the rows that reads() lists, by the labels that enter() brought
}

train::Predictions MaskedLm::predictions() const { return {.task = "masked_lm"}; }

void pack(const data::Tokenizer& tokenizer, const std::vector<std::string_view>& documents, int64_t max_length,
          features::TextInputs& into) {
  data::Tokenizer::Options options;
  options.details = true;
  std::vector<int32_t> open, begin, end;
  const auto close = [&] {
    if (open.empty()) return;
    std::vector<int32_t> sequence = begin;
    sequence.insert(sequence.end(), open.begin(), open.end());
    sequence.insert(sequence.end(), end.begin(), end.end());
    into.add(sequence, std::vector<int32_t>(sequence.size(), 0));
    open.clear();
  };
  for (const auto& encoding : tokenizer.encode_batch(documents, {}, options)) {
    size_t first = 0, last = encoding.ids.size();
    while (first < last && encoding.special[first]) ++first;
    while (last > first && encoding.special[last - 1]) --last;
    begin.assign(encoding.ids.begin(), encoding.ids.begin() + first);
    end.assign(encoding.ids.begin() + last, encoding.ids.end());
    const auto room = static_cast<size_t>(max_length) - begin.size() - end.size();
    for (size_t i = first; i < last;) {
      if (!open.empty() && open.size() + 1 < room)
        open.insert(open.end(), end.begin(), end.end());  // between documents
      else close();
      const auto take = std::min(room - open.size(), last - i);
      open.insert(open.end(), encoding.ids.begin() + i, encoding.ids.begin() + i + take);
      i += take;
      if (open.size() >= room) close();
    }
  }
  close();
}

}  // namespace graft::adapt
