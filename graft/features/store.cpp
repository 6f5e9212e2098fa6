#include "graft/features/store.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/interrupt.h"
#include "graft/io/safetensors.h"
#include "graft/models/device.h"
#include "graft/models/loading.h"
#include "graft/nn/autocast.h"

namespace graft::features {
namespace {

using models::Activations;
using models::Rows;
using torch::Tensor;

torch::Dtype stored_type(const StoreOptions& options) {
  if (options.precision == "bfloat16") return torch::kBFloat16;
  if (options.precision == "float16") return torch::kFloat16;
  GRAFT_CHECK(usage, options.precision == "float32",
              "features.precision: expected float32, bfloat16 or float16, found {}.", options.precision);
  return torch::kFloat32;
}

bool in_half(const Tensor& computed) { return computed.scalar_type() == torch::kBFloat16; }

/// What is computed in bfloat16 is stored so, whatever `type` is asked for: it loses nothing.
torch::Dtype column_type(const Tensor& computed, torch::Dtype type) {
  return computed.is_floating_point() && !in_half(computed) ? type : computed.scalar_type();
}

/// The parts of the activations by the names that the file gives them.
std::map<std::string, const Rows*> parts_of(const Activations& x, const std::vector<std::string>& slots) {
  std::map<std::string, const Rows*> parts;
  if (x.hidden.values.defined()) parts["hidden"] = &x.hidden;
  for (const auto& slot : slots) parts["kept." + slot] = &x.kept.at(slot);
  return parts;
}

/// Rows of a part for an example: its share of a probe says whether they follow the length or are constant.
struct Column {
  std::vector<int64_t> shape;  // of one row
  torch::Dtype type;
  std::vector<uint64_t> starts;  // first row of each example, in the file's order
  std::vector<uint64_t> checks;  // of each example's bytes
  uint64_t offset = 0;           // of the values in the file
  uint64_t index_offset = 0;     // of starts and checks
  uint64_t row_bytes = 0;
};

}  // namespace

Store::Store(const fs::path& file) : path_(file), file_(std::make_shared<StoreFile>(file)) {}

Store Store::joined(const Store& part, const std::vector<int64_t>& of_part, const Store& rest) {
  GRAFT_ASSERT(!part.rest_ && !rest.rest_ && part.size() == static_cast<int64_t>(of_part.size()));
  auto store = part;
  store.rest_ = rest.file_;
  store.rest_path_ = rest.path_;
  store.places_.reserve(static_cast<size_t>(part.size() + rest.size()));
  for (int64_t in_part = 0, in_rest = 0; in_part + in_rest < part.size() + rest.size();) {
    const bool of_rest = in_part == part.size() || of_part[in_part] != in_part + in_rest;
    store.places_.emplace_back(of_rest, of_rest ? in_rest : in_part);
    (of_rest ? in_rest : in_part) += 1;
  }
  return store;
}

std::vector<fs::path> Store::paths() const {
  return rest_ ? std::vector<fs::path>{path_, rest_path_} : std::vector<fs::path>{path_};
}

std::pair<const StoreFile*, int64_t> Store::place(int64_t example) const {
  if (!rest_) return {file_.get(), example};
  const auto [of_rest, row] = places_[example];
  return {of_rest ? rest_.get() : file_.get(), row};
}

int64_t Store::size() const { return rest_ ? static_cast<int64_t>(places_.size()) : file_->examples(); }

int64_t Store::length(int64_t example) const {
  const auto [file, row] = place(example);
  const auto& starts = file->parts.at("hidden").starts;
  return starts[row + 1] - starts[row];
}

Activations Store::read(const std::vector<int64_t>& examples, torch::Device device) const {
  Activations x;
  for (const auto& [name, first] : file_->parts) {
    const auto& view = *first.view;
    Rows rows;
    int64_t total = 0;
    for (const auto example : examples) {
      const auto [file, row] = place(example);
      const auto& starts = file->parts.at(name).starts;
      rows.lengths.push_back(starts[row + 1] - starts[row]);
      total += rows.lengths.back();
    }
    auto shape = view.shape;
    shape[0] = total;
    auto values = models::empty_for(device, shape, models::scalar_type(view.dtype));
    auto* out = static_cast<char*>(values.data_ptr());
    for (const auto example : examples) {
      const auto [file, row] = place(example);
      const auto bytes = file->parts.at(name).rows(row);
      out = std::copy(bytes.begin(), bytes.end(), out);
    }
    rows.values = models::placed(values, device);
    const bool as_computed = nn::under_autocast(device) && file_->computed_in_half(name);
    if (values.is_floating_point() && !as_computed) rows.values = rows.values.to(torch::kFloat32);
    if (name == "hidden") x.hidden = std::move(rows);
    else x.kept[name.substr(5)] = std::move(rows);
  }
  return x;
}

std::vector<std::vector<int64_t>> batches_by_length(const Inputs& inputs, int64_t tokens) {
  std::vector<int64_t> order(inputs.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return inputs.length(a) < inputs.length(b); });
  std::vector<std::vector<int64_t>> batches;
  int64_t rows = 0;
  for (const auto example : order) {
    if (batches.empty() || rows + inputs.length(example) > tokens) {
      batches.emplace_back();
      rows = 0;
    }
    batches.back().push_back(example);
    rows += inputs.length(example);
  }
  return batches;
}

namespace {

/// Chains whose output the blocks before the boundary read; they are frozen where those blocks are.
std::vector<std::string> upstream_read(const models::Model& model, const std::string& chain, int64_t boundary) {
  const auto& c = model.chain(chain);
  std::vector<std::string> read;
  for (const auto& up : c.upstream)
    if (std::any_of(c.blocks.begin(), c.blocks.begin() + boundary, [&](const auto& block) {
          return std::find(block.reads.begin(), block.reads.end(), up) != block.reads.end();
        }))
      read.push_back(up);
  return read;
}

/// What enters block 0, with the outputs of upstream chains that the blocks before the boundary read.
Activations chain_inputs(models::Model& model, const std::string& chain, int64_t boundary, const Inputs& inputs,
                         const std::vector<int64_t>& examples) {
  auto x = inputs.batch(chain, examples);
  for (const auto& up : upstream_read(model, chain, boundary)) {
    const auto end = static_cast<int64_t>(model.chain(up).blocks.size());
    x.kept[up] = model.forward(up, 0, end, chain_inputs(model, up, end, inputs, examples), {}).hidden;
  }
  return x;
}

}  // namespace

PrefixHashes::PrefixHashes(const models::Model& model, const Inputs& inputs, const StoreOptions& options)
    : model_(model),
      plan_(fmt::format("{} {} {} {} {}{}", model.configuration, inputs.hash(), options.precision,
                        options.capture_tokens,
                        model.device().is_cpu() ? std::to_string(at::get_num_threads()) : model.device().str(),
                        options.bf16 ? " autocast" : "")) {
  std::map<std::string, Sha256> hashes;
  for (const auto& items : {model.parameters_by_key(), model.buffers_by_key()})
    for (const auto& item : items) {
      const auto bytes = item.value().detach().cpu().contiguous();
      hashes[model.group_of(item.key())].update(item.key()).update(bytes.const_data_ptr(), bytes.nbytes());
    }
  for (auto& [group, hash] : hashes) groups_[group] = hash.hex();
}

std::string PrefixHashes::key(const std::string& chain, int64_t boundary, const models::Reads& reads, bool mean) const {
  const auto& c = model_.chain(chain);
  std::set<std::string> groups;
  for (int64_t i = 0; i < boundary; ++i) {
    groups.insert(c.blocks[i].groups.begin(), c.blocks[i].groups.end());
    groups.insert(c.blocks[i].uses.begin(), c.blocks[i].uses.end());
  }
  const bool at_end = boundary == static_cast<int64_t>(c.blocks.size());
  Sha256 hash;
  hash.update(fmt::format("{} {} {} {}", plan_, chain, boundary, at_end ? static_cast<int>(reads.where) : -1));
  for (const auto& up : upstream_read(model_, chain, boundary))
    hash.update(key(up, static_cast<int64_t>(model_.chain(up).blocks.size()), {}));
  if (mean) hash.update("mean");
  else
    for (const auto& slot : model_.slots_across(chain, boundary)) hash.update(slot + ",");
  for (const auto& group : groups)
    if (const auto found = groups_.find(group); found != groups_.end()) hash.update(group).update(found->second);
  return hash.hex().substr(0, 32);
}

namespace {

/// One store in the making. Row counts are known before the pass, so the file is laid out first and filled in any order.
class Writer {
 public:
  Writer(const fs::path& target, int64_t examples, const std::map<std::string, const Rows*>& probe,
         const std::map<std::string, std::vector<int64_t>>& starts, torch::Dtype type, const Json& metadata)
      : file_(target) {
    Json header{{"__metadata__", metadata}};
    for (const auto& [name, rows] : probe)
      if (in_half(rows->values)) header["__metadata__"][name + ".computed"] = "BF16";
    uint64_t offset = 0;
    for (const auto& [name, rows] : probe) {
      Column column;
      column.shape = rows->values.sizes().slice(1).vec();
      column.type = column_type(rows->values, type);
      column.row_bytes = torch::elementSize(column.type);
      for (const auto n : column.shape) column.row_bytes *= n;
      column.starts.assign(starts.at(name).begin(), starts.at(name).end());
      column.checks.resize(examples);
      auto shape = column.shape;
      shape.insert(shape.begin(), static_cast<int64_t>(column.starts.back()));
      column.offset = offset;
      offset += column.starts.back() * column.row_bytes;
      header[name] = {{"dtype", io::dtype_name(models::file_type(column.type))},
                      {"shape", shape},
                      {"data_offsets", {column.offset, offset}}};
      columns_[name] = std::move(column);
    }
    for (auto& [name, column] : columns_) {
      column.index_offset = offset;
      header[name + ".starts"] = {
          {"dtype", "I64"}, {"shape", {examples + 1}}, {"data_offsets", {offset, offset + 8 * (examples + 1)}}};
      offset += 8 * (examples + 1);
      header[name + ".checks"] = {
          {"dtype", "I64"}, {"shape", {examples}}, {"data_offsets", {offset, offset + 8 * examples}}};
      offset += 8 * examples;
    }
    auto text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const uint64_t size = text.size();
    file_.write({reinterpret_cast<const char*>(&size), 8});
    file_.write(text);
    base_ = 8 + size;
    file_.reserve(base_ + offset);
  }

  void put(const std::vector<int64_t>& examples, const std::map<std::string, const Rows*>& parts) {
    for (const auto& [name, rows] : parts) {
      auto& column = columns_.at(name);
      const auto values = rows->values.detach().to(torch::kCPU, column.type).contiguous();
      measure_rounding(rows->values, values);
      const auto* bytes = static_cast<const char*>(values.const_data_ptr());
      for (size_t i = 0; i < examples.size(); ++i) {
        GRAFT_ASSERT(
            rows->lengths[i] == static_cast<int64_t>(column.starts[examples[i] + 1] - column.starts[examples[i]]),
            "{}: example {} has {} rows", name, examples[i], rows->lengths[i]);
        const std::string_view all{bytes, rows->lengths[i] * column.row_bytes};
        file_.write_at(base_ + column.offset + column.starts[examples[i]] * column.row_bytes, all);
        column.checks[examples[i]] = checksum(all);
        bytes += all.size();
      }
    }
  }

  void commit() {
    const auto write = [&](uint64_t offset, const std::vector<uint64_t>& numbers) {
      file_.write_at(base_ + offset, {reinterpret_cast<const char*>(numbers.data()), numbers.size() * 8});
    };
    for (const auto& [name, column] : columns_) {
      write(column.index_offset, column.starts);
      write(column.index_offset + column.starts.size() * 8, column.checks);
    }
    file_.commit();
  }

  /// Largest difference between what was computed and what is stored, relative to the largest value; 0 for float32.
  double rounding() const { return largest_ > 0 ? difference_ / largest_ : 0; }

 private:
  void measure_rounding(const Tensor& computed, const Tensor& stored) {
    if (computed.scalar_type() == stored.scalar_type() || computed.numel() == 0) return;
    const auto exact = computed.detach().to(torch::kCPU, torch::kFloat32);
    largest_ = std::max(largest_, exact.abs().max().item<double>());
    difference_ = std::max(difference_, (exact - stored.to(torch::kFloat32)).abs().max().item<double>());
  }

  io::FileWriter file_;
  std::map<std::string, Column> columns_;
  uint64_t base_ = 0;
  double largest_ = 0, difference_ = 0;
};

/// Runs frozen blocks as they are when stored: evaluation mode, no gradient, in the precision of training.
struct FrozenPass {
  FrozenPass(models::Model& model, bool bf16)
      : model(model), was_training(model.is_training()), autocast(model.device(), bf16) {
    model.eval();
  }
  ~FrozenPass() { model.train(was_training); }
  models::Model& model;
  bool was_training;
  nn::Autocast autocast;
  torch::NoGradGuard no_grad;
};

/// First row of each example for each part. Parts whose rows follow the length of the input (hidden states before the
/// end of the chain) are told by a probe of two examples; others have the probe's own count for every example.
std::map<std::string, std::vector<int64_t>> row_starts(const std::string& chain, const Inputs& inputs,
                                                       const std::map<std::string, const Rows*>& probe,
                                                       const std::vector<int64_t>& probed) {
  std::map<std::string, std::vector<int64_t>> starts;
  for (const auto& [name, rows] : probe) {
    bool follows = true;
    for (size_t i = 0; i < probed.size(); ++i) follows = follows && rows->lengths[i] == inputs.rows(chain, probed[i]);
    auto& s = starts[name];
    s.assign(inputs.size() + 1, 0);
    for (int64_t i = 0; i < inputs.size(); ++i) s[i + 1] = s[i] + (follows ? inputs.rows(chain, i) : rows->lengths[0]);
  }
  return starts;
}

/// Two examples of unequal length where there are such, so that "as long as the input" and "so many rows" can be told
/// apart; where all are equally long it does not matter, but for a length of 1 at the end of a chain.
std::vector<int64_t> telling_examples(const std::string& chain, const Inputs& inputs) {
  for (int64_t i = 1; i < inputs.size(); ++i)
    if (inputs.rows(chain, i) != inputs.rows(chain, 0)) return {0, i};
  return {0};
}

struct Plan {
  int64_t boundary;
  bool mean = false;
  fs::path file;
  std::map<std::string, std::vector<int64_t>> starts;
  Activations probe;
  uint64_t bytes = 0;
};

/// What crosses the boundary, or its mean alone.
Activations stored_of(const Activations& x, bool mean) {
  if (!mean) return x;
  return {.hidden = {models::mean_of(x.hidden), std::vector<int64_t>(x.hidden.lengths.size(), 1)}};
}

std::vector<std::string> slots_of(const models::Model& model, const std::string& chain, const Plan& plan) {
  return plan.mean ? std::vector<std::string>{} : model.slots_across(chain, plan.boundary);
}

Plan plan_store(models::Model& model, const std::string& chain, int64_t boundary, bool mean, const models::Reads& reads,
                const Inputs& inputs, const StoreOptions& options) {
  const auto examples = telling_examples(chain, inputs);
  Plan plan{.boundary = boundary, .mean = mean};
  const FrozenPass pass(model, options.bf16);
  plan.probe =
      stored_of(model.forward(chain, 0, boundary, chain_inputs(model, chain, boundary, inputs, examples), reads), mean);
  const auto parts = parts_of(plan.probe, slots_of(model, chain, plan));
  plan.starts = row_starts(chain, inputs, parts, examples);
  for (const auto& [name, rows] : parts) {
    uint64_t row = torch::elementSize(column_type(rows->values, stored_type(options)));
    for (const auto n : rows->values.sizes().slice(1)) row *= n;
    plan.bytes += plan.starts.at(name).back() * row + 8 * (2 * inputs.size() + 1);
  }
  return plan;
}

}  // namespace

namespace {

/// A store that is there already, with every byte checked once a process; a damaged one is as good as none.
std::optional<Store> intact(const fs::path& file, std::vector<std::string>& notes) {
  if (!fs::exists(file)) return std::nullopt;
  std::string damage;
  try {
    const auto found = StoreFile(file).damage();
    if (!found) {
      mark_used(file);
      return Store(file);
    }
    damage = *found + " is not what was written";
  } catch (const Error& error) {
    damage = error.what();
  }
  notes.push_back(fmt::format("{}: {}; it is computed anew", file.string(), damage));
  io::remove_all(file);
  return std::nullopt;
}

/// Of the stores in a folder.
uint64_t bytes_in(const fs::path& folder) {
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    std::error_code gone;  // another process may remove one meanwhile
    if (entry.path().extension() == ".safetensors")
      if (const auto size = fs::file_size(entry.path(), gone); !gone) bytes += size;
  }
  return bytes;
}

/// What `graft cache` tells of a store. safetensors allows strings only.
Json description(const models::Model& model, const std::string& chain, const Plan& plan, const Inputs& inputs,
                 const StoreOptions& options) {
  const auto boundary = plan.boundary;
  const auto& blocks = model.chain(chain).blocks;
  return {{"chain", chain},
          {"boundary", std::to_string(boundary)},
          {"block", (boundary == static_cast<int64_t>(blocks.size()) ? "end" : blocks[boundary].name) +
                        (plan.mean ? ", mean" : "")},
          {"blocks", std::to_string(blocks.size())},
          {"source", model.name},
          {"precision", options.precision + (options.bf16 ? ", under autocast" : "")},
          {"examples", std::to_string(inputs.size())}};
}

}  // namespace

uint64_t store_bytes(models::Model& model, const std::string& chain, int64_t boundary, const Inputs& inputs,
                     const StoreOptions& options) {
  return plan_store(model, chain, boundary, false, model.head->reads(), inputs, options).bytes;
}

CaptureResult capture(models::Model& model, const std::string& chain, const std::vector<int64_t>& boundaries,
                      const models::Reads& reads, const Inputs& inputs, const fs::path& folder,
                      const StoreOptions& options, const std::function<void(int64_t, int64_t)>& progress,
                      const std::vector<int64_t>& means) {
  CaptureResult result;
  result.stores.resize(boundaries.size());
  result.means.resize(means.size());
  if (!options.enabled || inputs.size() == 0) return result;
  io::make_folder(folder);
  io::sweep_temporaries(folder);
  const auto type = stored_type(options);
  const auto started = std::chrono::steady_clock::now();
  const PrefixHashes hashes(model, inputs, options);

  // The nearest boundary to the head is asked for most often, so the budget is spent from there. All stores of the
  // folder count, whatever split, chain or run they are of.
  struct Wanted {
    int64_t boundary;
    bool mean;
    std::optional<Store>* store;
  };
  std::vector<Wanted> by_worth;
  for (size_t i = 0; i < means.size(); ++i) by_worth.push_back({means[i], true, &result.means[i]});
  for (size_t i = 0; i < boundaries.size(); ++i) by_worth.push_back({boundaries[i], false, &result.stores[i]});
  std::stable_sort(by_worth.begin(), by_worth.end(),
                   [](const auto& a, const auto& b) { return a.boundary > b.boundary; });
  uint64_t spent = bytes_in(folder);
  std::vector<std::pair<std::optional<Store>*, Plan>> missing;
  for (const auto& [boundary, mean, store] : by_worth) {
    GRAFT_ASSERT(!mean || boundary < static_cast<int64_t>(model.chain(chain).blocks.size()));
    const auto file = folder / (hashes.key(chain, boundary, reads, mean) + ".safetensors");
    *store = intact(file, result.notes);
    if (*store) continue;
    auto plan = plan_store(model, chain, boundary, mean, reads, inputs, options);
    plan.file = file;
    if (static_cast<double>(spent + plan.bytes) > options.budget_gb * 1e9) {
      result.notes.push_back(
          fmt::format("boundary {} of {} would take {:.1f} GB of the {:.1f} GB that features.budget_gb allows{}; it is "
                      "recomputed in each epoch",
                      boundary, chain, plan.bytes / 1e9, options.budget_gb,
                      spent > 0 ? fmt::format(", where {:.1f} GB are taken", spent / 1e9) : ""));
      continue;
    }
    spent += plan.bytes;
    missing.push_back({store, std::move(plan)});
  }
  if (missing.empty()) return result;

  uint64_t needed = 0;
  for (const auto& item : missing) needed += item.second.bytes;
  io::require_space(folder, needed, "stored activations");
  std::sort(missing.begin(), missing.end(),
            [](const auto& a, const auto& b) { return a.second.boundary < b.second.boundary; });
  std::vector<std::unique_ptr<Writer>> writers;
  for (const auto& [store, plan] : missing)
    writers.push_back(std::make_unique<Writer>(plan.file, inputs.size(),
                                               parts_of(plan.probe, slots_of(model, chain, plan)), plan.starts, type,
                                               description(model, chain, plan, inputs, options)));

  const FrozenPass pass(model, options.bf16);
  int64_t done = 0;
  const auto batches = batches_by_length(inputs, options.capture_tokens);
  for (size_t b = 0; b < batches.size(); ++b) {
    const auto& examples = batches[b];
    if (b + 1 < batches.size()) inputs.expect(batches[b + 1], 0);
    auto x = chain_inputs(model, chain, missing.back().second.boundary, inputs, examples);
    int64_t at = 0;
    for (size_t m = 0; m < missing.size(); ++m) {
      const auto& plan = missing[m].second;
      x = model.forward(chain, at, plan.boundary, std::move(x), reads);
      at = plan.boundary;
      const auto stored = stored_of(x, plan.mean);
      writers[m]->put(examples, parts_of(stored, slots_of(model, chain, plan)));
    }
    done += static_cast<int64_t>(examples.size());
    stop_if_interrupted();
    if (progress) progress(done, inputs.size());
  }
  for (size_t m = 0; m < missing.size(); ++m) {
    writers[m]->commit();
    result.rounding = std::max(result.rounding, writers[m]->rounding());
    *missing[m].first = Store(missing[m].second.file);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  result.computed = inputs.size();
  return result;
}

}  // namespace graft::features
