#include "graft/retain/answers.h"

#include <numeric>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/interrupt.h"
#include "graft/io/safetensors.h"
#include "graft/models/loading.h"

namespace graft::retain {
namespace {

namespace fs = std::filesystem;

Answers ask(models::Model& source, const features::Feed& feed, const models::Reads& reads, bool logits, int64_t rows) {
  const torch::NoGradGuard no_grad;
  source.eval();
  const auto& inputs = feed.inputs();
  Answers answers{.starts = {0}, .logits = logits};
  std::vector<Tensor> parts;
  for (int64_t i = 0; i < inputs.size();) {
    stop_if_interrupted();
    std::vector<int64_t> batch;
    for (int64_t sum = 0; i < inputs.size() && (batch.empty() || sum + inputs.length(i) <= rows); ++i) {
      batch.push_back(i);
      sum += inputs.length(i);
    }
    train::Ends ends;
    for (const auto& chain : source.chains)
      ends[chain.name] = feed.enter(chain.name, static_cast<int64_t>(chain.blocks.size()), batch, reads);
    const auto B = static_cast<int64_t>(batch.size());
    auto part = logits ? source.head->forward(ends).at("logits").to(torch::kFloat32) : mean_features(ends);
    const auto& lengths = ends.at(source.chains.back().name).hidden.lengths;
    const bool one_each = part.size(0) == B;
    GRAFT_ASSERT(one_each || part.size(0) == std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
    for (int64_t n = 0; n < B; ++n) answers.starts.push_back(answers.starts.back() + (one_each ? 1 : lengths[n]));
    parts.push_back(part.reshape({part.size(0), -1}).cpu());
  }
  answers.rows = torch::cat(parts);
  return answers;
}

void write(const fs::path& file, const Answers& answers, const std::string& source) {
  const auto n = static_cast<int64_t>(answers.starts.size()) - 1;
  const auto rows = answers.rows.contiguous();
  const auto* bytes = static_cast<const char*>(rows.const_data_ptr());
  const auto row_bytes = rows.size(1) * static_cast<int64_t>(rows.element_size());
  auto checks = torch::empty({n}, torch::kInt64);
  for (int64_t i = 0; i < n; ++i)
    checks.data_ptr<int64_t>()[i] = static_cast<int64_t>(
        features::checksum({bytes + answers.starts[i] * row_bytes,
                            static_cast<size_t>((answers.starts[i + 1] - answers.starts[i]) * row_bytes)}));
  const std::map<std::string, Tensor> tensors{
      {"hidden", rows}, {"hidden.starts", torch::tensor(answers.starts, torch::kInt64)}, {"hidden.checks", checks}};
  io::make_folder(file.parent_path());
  io::write_safetensors(file, models::to_views(tensors),
                        {{"chain", "head"},
                         {"boundary", "0"},
                         {"block", answers.logits ? "answers" : "features"},
                         {"blocks", "0"},
                         {"source", source},
                         {"precision", "float32"},
                         {"examples", std::to_string(n)}});
}

/// nullopt for none and for a damaged one, which is removed.
std::optional<Answers> read(const fs::path& file, bool logits, int64_t examples) {
  if (!fs::exists(file)) return std::nullopt;
  try {
    const features::StoreFile store(file);
    if (!store.damage() && store.examples() == examples) {
      features::mark_used(file);
      const auto& part = store.parts.at("hidden");
      return Answers{models::to_tensor("hidden", *part.view).clone(), part.starts, logits};
    }
  } catch (const Error&) {
  }
  io::remove_all(file);
  return std::nullopt;
}

}  // namespace

Tensor Answers::of(const std::vector<int64_t>& examples) const {
  std::vector<int64_t> index;
  for (const auto example : examples)
    for (auto row = starts[example]; row < starts[example + 1]; ++row) index.push_back(row);
  return rows.index_select(0, torch::tensor(index, torch::kInt64));
}

std::vector<int64_t> Answers::lengths(const std::vector<int64_t>& examples) const {
  std::vector<int64_t> lengths;
  for (const auto example : examples) lengths.push_back(starts[example + 1] - starts[example]);
  return lengths;
}

Tensor mean_features(const train::Ends& ends) {
  std::vector<Tensor> parts;
  for (const auto& item : ends) parts.push_back(models::mean_of(item.second.hidden));
  return torch::cat(parts, 1);
}

bool answers_with_logits(const std::string& task, const models::Reads& head, const models::Reads& reads) {
  return (task == "classification" || task == "multilabel" || task == "regression" || task == "tokens") &&
         head.where == reads.where;
}

fs::path answers_file(const models::Model& source, const features::Inputs& inputs, const models::Reads& reads,
                      bool logits, const fs::path& folder, const features::StoreOptions& options) {
  const features::PrefixHashes prefix(source, inputs, options);
  Sha256 hash;
  hash.update(logits ? "answers" : "features");
  for (const auto& chain : source.chains)
    hash.update(prefix.key(chain.name, static_cast<int64_t>(chain.blocks.size()), reads));
  if (logits)
    for (const auto& items : {source.head->named_parameters(), source.head->named_buffers()})
      for (const auto& item : items) {
        const auto bytes = item.value().detach().cpu().contiguous();
        hash.update(item.key()).update(bytes.const_data_ptr(), bytes.nbytes());
      }
  return folder / (hash.hex().substr(0, 32) + ".safetensors");
}

Answers answers(models::Model& source, const features::Feed& feed, const models::Reads& reads, bool logits,
                const fs::path& file, int64_t rows) {
  if (!file.empty())
    if (auto found = read(file, logits, feed.inputs().size())) return std::move(*found);
  auto asked = ask(source, feed, reads, logits, rows);
  if (!file.empty()) write(file, asked, source.name);
  return asked;
}

}  // namespace graft::retain
