#include "graft/models/decoder_model.h"

#include "graft/core/error.h"
#include "graft/models/device.h"

namespace graft::models {
namespace {

/// One number or list of a rope section; null and absent are the same.
template <class T>
std::optional<T> value_of(const Json& section, const std::string& key) {
  if (!section.contains(key) || section[key].is_null()) return std::nullopt;
  T value{};
  std::vector<std::string> mistakes;
  io::read_value(section[key], value, "rope " + key, mistakes);
  GRAFT_CHECK(model, mistakes.empty(), "config.json: {}. Correct the file, or download the model again.",
              listed(mistakes));
  return value;
}

const Json& section_of(const Json& config) {
  static const Json kNone = Json::object();
  for (const auto* key : {"rope_parameters", "rope_scaling"})
    if (config.contains(key) && config[key].is_object()) return config[key];
  return kNone;
}

}  // namespace

DecoderModel::DecoderModel(const DecoderShape& shape, const Task& task)
    : shape_(shape),
      skips_padding_(shape.pad_token_id && task.kind != "features" && task.kind != "tokens" &&
                     task.kind != "causal_lm") {
  Chain text{.name = "text", .inputs = {"input_ids", "position_ids"}};
  groups.push_back({"embeddings", shape.embedding_keys});
  text.blocks.push_back({.name = "embeddings", .groups = {"embeddings"}, .reads = {"input_ids", "position_ids"}});
  for (int64_t i = 0; i < shape.num_layers; ++i) {
    const auto name = "layer " + std::to_string(i);
    groups.push_back({name, {shape.layer_keys + std::to_string(i) + "."}});
    text.blocks.push_back({.name = name, .groups = {name}, .reads = {"position_ids"}});
  }
  if (skips_padding_) text.blocks.back().reads.push_back("input_ids");
  chains = {text};
}

void DecoderModel::fill_shared(const Chain&, Activations& x) {
  const auto positions = x.kept.find("position_ids");
  if (!rotary() || positions == x.kept.end()) return;
  const auto rotation = rotary()->at(positions->second.values, positions->second.lengths);
  x.shared["rotary.cos"] = rotation.cos;
  x.shared["rotary.sin"] = rotation.sin;
}

/// transformers' rule: a score is read at the last token whose id is not the padding's, also where the text itself ends
/// in that id; at the first token when all are.
ReadIndex DecoderModel::before_padding(const Rows& ids, const ReadIndex& needed) const {
  const auto id = ids.values.cpu(), index = needed.index.cpu().clone();
  const auto* all = id.const_data_ptr<int64_t>();
  auto* rows = index.data_ptr<int64_t>();
  int64_t start = 0, at = 0;
  for (size_t e = 0; e < ids.lengths.size(); ++e) {
    const auto end = start + ids.lengths[e];
    for (int64_t k = 0; k < needed.lengths[e]; ++k, ++at) {
      if (rows[at] != end - 1) continue;
      auto row = end - 1;
      while (row > start && all[row] == *shape_.pad_token_id) --row;
      rows[at] = all[row] == *shape_.pad_token_id ? start : row;
    }
    start = end;
  }
  return {index.to(needed.index.device()), needed.lengths};
}

Activations DecoderModel::forward_block(const Chain&, int64_t index, Activations x, const ReadIndex* needed) {
  if (index == 0) {
    const auto& ids = x.kept.at("input_ids");
    x.hidden = {embed(ids.values, x.kept.at("position_ids").values), ids.lengths};
    x.kept.erase("token_type_ids");
    if (!skips_padding_) x.kept.erase("input_ids");
    return x;
  }
  ReadIndex read;
  if (needed)
    read = skips_padding_ && needed->index.defined() ? before_padding(x.kept.at("input_ids"), *needed) : *needed;
  auto& hidden = x.hidden;
  const auto lengths = hidden.lengths;
  const nn::CausalRows rows{lengths, needed ? read.lengths : lengths, read.index, cache_, index - 1};
  const nn::Rotation rotation =
      rotary() ? nn::Rotation{x.shared.at("rotary.cos"), x.shared.at("rotary.sin")} : nn::Rotation{};
  hidden.values = layer(index - 1, hidden.values, rows, rotation);
  if (needed) hidden.lengths = read.lengths;
  return x;
}

Tensor DecoderModel::extend(const std::vector<std::vector<int32_t>>& tokens, nn::KeyValueCache& cache) {
  std::vector<int64_t> lengths, ids, positions;
  for (size_t b = 0; b < tokens.size(); ++b) {
    lengths.push_back(static_cast<int64_t>(tokens[b].size()));
    for (int64_t t = 0; t < lengths[b]; ++t) {
      ids.push_back(tokens[b][t]);
      positions.push_back(cache.lengths[b] + t);
    }
  }
  const auto rows = [&](const std::vector<int64_t>& values) {
    return Rows{placed(torch::tensor(values, torch::kInt64), device()), lengths};
  };
  Activations x;
  x.kept = {{"input_ids", rows(ids)}, {"position_ids", rows(positions)}};
  struct Attached {
    Attached(DecoderModel& model, nn::KeyValueCache* cache) : model(model) { model.cache_ = cache; }
    ~Attached() { model.cache_ = nullptr; }
    DecoderModel& model;
  } attached(*this, &cache);
  std::map<std::string, Activations> ends;
  ends["text"] =
      forward("text", 0, static_cast<int64_t>(chains.front().blocks.size()), std::move(x), {Reads::Where::last});
  for (size_t b = 0; b < tokens.size(); ++b) cache.lengths[b] += lengths[b];
  return head->forward(ends).at("logits");
}

std::optional<int64_t> real_pad(std::optional<int64_t> pad, int64_t vocab_size) {
  return pad && *pad >= 0 && *pad < vocab_size ? pad : std::nullopt;
}

nn::RotaryOptions rotary_options(const Json& config, int64_t head_width, double default_theta, int64_t max_positions) {
  const auto& section = section_of(config);
  nn::RotaryOptions o;
  o.type =
      value_of<std::string>(section, "rope_type").value_or(value_of<std::string>(section, "type").value_or("default"));
  if (o.type == "su") o.type = "longrope";  // its name of 2024
  o.width = head_width;
  o.theta =
      value_of<double>(section, "rope_theta").value_or(value_of<double>(config, "rope_theta").value_or(default_theta));
  o.max_positions = max_positions;
  o.original_max_positions =
      value_of<int64_t>(section, "original_max_position_embeddings")
          .value_or(value_of<int64_t>(config, "original_max_position_embeddings").value_or(max_positions));
  const auto factor = value_of<double>(section, "factor");
  const bool derives = o.type == "yarn" || o.type == "longrope";
  GRAFT_CHECK(model, factor || (o.type != "linear" && o.type != "dynamic" && o.type != "llama3"),
              "config.json: rope type {} wants a factor; give it in rope_scaling.", o.type);
  o.factor = factor.value_or(derives ? static_cast<double>(max_positions) / o.original_max_positions : 1.0);
  GRAFT_CHECK(model, o.factor > 0 && o.theta > 0 && o.original_max_positions > 0,
              "config.json: rope factor {}, theta {} and original_max_position_embeddings {} must be above 0.",
              o.factor, o.theta, o.original_max_positions);
  o.low_frequency_factor = value_of<double>(section, "low_freq_factor").value_or(1);
  o.high_frequency_factor = value_of<double>(section, "high_freq_factor").value_or(4);
  o.beta_fast = value_of<double>(section, "beta_fast").value_or(32);
  o.beta_slow = value_of<double>(section, "beta_slow").value_or(1);
  o.truncate = value_of<bool>(section, "truncate").value_or(true);
  o.mscale = value_of<double>(section, "mscale");
  o.mscale_all_dim = value_of<double>(section, "mscale_all_dim");
  o.attention_factor = value_of<double>(section, "attention_factor");
  o.short_factor = value_of<std::vector<double>>(section, "short_factor").value_or(std::vector<double>{});
  o.long_factor = value_of<std::vector<double>>(section, "long_factor").value_or(std::vector<double>{});
  o.turned_part = value_of<double>(section, "partial_rotary_factor").value_or(1);
  GRAFT_CHECK(model, o.turned_part == 1 || o.type == "proportional",
              "config.json: partial_rotary_factor {} is not computed by graft for rope type {}; only 1 is.",
              o.turned_part, o.type);
  return o;
}

int64_t context_of(const nn::RotaryOptions& o) {
  return o.type == "dynamic" ? static_cast<int64_t>(o.factor * static_cast<double>(o.max_positions)) : o.max_positions;
}

void check_heads(int64_t hidden_size, int64_t heads, int64_t key_value_heads, bool head_dim_given) {
  GRAFT_CHECK(model, heads > 0 && (head_dim_given || hidden_size % heads == 0),
              "config.json: hidden_size {} is not a multiple of num_attention_heads {}.", hidden_size, heads);
  GRAFT_CHECK(model, key_value_heads > 0 && heads % key_value_heads == 0,
              "config.json: num_attention_heads {} is not a multiple of num_key_value_heads {}.", heads,
              key_value_heads);
}

}  // namespace graft::models
