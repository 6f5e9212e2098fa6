#include "graft/models/forward.h"

#include "graft/core/error.h"
#include "graft/models/device.h"

namespace graft::models {
namespace {

using Named = std::map<std::string, Tensor>;

/// Outputs of one row an example, also where the head reads every token.
const std::set<std::string> kPerExample{"pooler_output", "cls_projected_embedding"};

Tensor optional_like(const Named& inputs, const std::string& name, const Tensor& ids, int64_t fill) {
  const auto found = inputs.find(name);
  if (found == inputs.end()) return torch::full_like(ids, fill);
  GRAFT_CHECK(data, found->second.sizes() == ids.sizes(), "{}: has the shape {}, input_ids has {}; give both alike.",
              name, io::shape_text(found->second.sizes().vec()), io::shape_text(ids.sizes().vec()));
  return found->second.to(torch::kInt64);
}

void check_range(const std::string& name, const Tensor& values, int64_t rows, const std::string& table) {
  if (values.numel() == 0) return;
  const auto low = values.min().item<int64_t>(), high = values.max().item<int64_t>();
  GRAFT_CHECK(data, low >= 0 && high < rows, "{}: holds {}, but {} has {} rows; give ids of this model's tokenizer.",
              name, low < 0 ? low : high, table, rows);
}

/// The unpadded batch, and where its tokens stand in (B, T).
struct Unpadded {
  Activations batch;
  Tensor places;  // (N) into B * T
};

Unpadded unpad(Model& model, const Named& inputs) {
  GRAFT_CHECK(data, inputs.contains("input_ids"), "input_ids is missing among the inputs; give it as int64 [B, T].");
  const auto ids = inputs.at("input_ids").to(torch::kInt64).contiguous();
  GRAFT_CHECK(data, ids.dim() == 2, "input_ids: has the shape {}, expected [B, T].", io::shape_text(ids.sizes().vec()));
  const auto mask = optional_like(inputs, "attention_mask", ids, 1),
             types = optional_like(inputs, "token_type_ids", ids, 0);
  const auto B = ids.size(0), T = ids.size(1);
  GRAFT_CHECK(data, T <= model.max_tokens(), "input_ids: {} tokens a text, the model takes at most {}.", T,
              model.max_tokens());
  auto positions = torch::empty_like(ids);
  for (int64_t b = 0; b < B; ++b)
    model.positions(ids.const_data_ptr<int64_t>() + b * T, T, positions.data_ptr<int64_t>() + b * T);
  if (inputs.contains("position_ids")) positions = optional_like(inputs, "position_ids", ids, 0);
  for (const auto& [key, name, values] :
       {std::tuple{"word_embeddings", "input_ids", ids}, std::tuple{"token_type_embeddings", "token_type_ids", types},
        std::tuple{"position_embeddings", "position_ids", positions}, std::tuple{"embed_tokens", "input_ids", ids},
        std::tuple{"wte", "input_ids", ids}, std::tuple{"wpe", "position_ids", positions}})
    for (const auto& item : model.parameters_by_key())
      if (item.key().ends_with(std::string(key) + ".weight")) check_range(name, values, item.value().size(0), key);

  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < B; ++b) lengths.push_back(mask[b].ne(0).sum().item<int64_t>());
  for (size_t b = 0; b < lengths.size(); ++b)
    GRAFT_CHECK(data, lengths[b] > 0, "attention_mask: row {} masks every token; remove the row.", b);
  Unpadded result;
  result.places = mask.flatten().nonzero().flatten();
  const auto rows = [&](const Tensor& x) {
    return Rows{placed(x.flatten().index_select(0, result.places), compute_device()), lengths};
  };
  result.batch.kept = {{"input_ids", rows(ids)}, {"token_type_ids", rows(types)}, {"position_ids", rows(positions)}};
  result.places = placed(result.places, compute_device());
  return result;
}

/// A batch of images: pixel_values, or x as timm and torchvision call it.
Activations images(const Named& inputs) {
  const auto found = inputs.contains("pixel_values") ? inputs.find("pixel_values") : inputs.find("x");
  GRAFT_CHECK(data, found != inputs.end(),
              "pixel_values is missing among the inputs; give it as float32 [B, channels, height, width].");
  const auto& pixels = found->second;
  GRAFT_CHECK(data, pixels.dim() == 4 && pixels.size(0) > 0 && pixels.is_floating_point(),
              "{}: has the shape {}, expected float32 [B, channels, height, width].", found->first,
              io::shape_text(pixels.sizes().vec()));
  Activations batch;
  const std::vector<int64_t> lengths(pixels.size(0), 1);
  batch.kept["pixel_values"] = {placed(pixels, compute_device()), lengths};
  if (inputs.contains("noise")) batch.kept["noise"] = {placed(inputs.at("noise"), compute_device()), lengths};
  return batch;
}

/// (N, C) of B images -> (B, T, C); maps as they are.
Tensor by_image(const Rows& rows) {
  const auto B = static_cast<int64_t>(rows.lengths.size());
  return rows.values.dim() == 2 ? rows.values.view({B, rows.values.size(0) / B, -1}) : rows.values;
}

/// Runs the chain block by block; the states between are outputs too, as the reference names them.
Activations through_blocks(Model& model, Activations x, std::map<std::string, Tensor>& states) {
  const auto& chain = model.chains.front();
  for (size_t i = 0; i < chain.blocks.size(); ++i) {
    x = model.forward(chain.name, i, i + 1, std::move(x), {});
    if (chain.blocks[i].name != "norm")
      states["hidden_states." + std::to_string(i)] = by_image(x.hidden).detach().cpu();
  }
  states["forward_features"] = by_image(x.hidden).detach().cpu();
  const auto index = resolve(model.head->reads(), x.hidden.lengths, model.device());
  if (index.index.defined()) x.hidden = {x.hidden.values.index_select(0, index.index), index.lengths};
  return x;
}

}  // namespace

Computed compute(const Source& source, const Named& inputs, bool with_gradients) {
  const auto loaded = load(source, task_of(source.config, *source.architecture), 0);
  auto& model = *loaded.model;
  if (with_gradients) model.unfreeze_only(model.all_groups());
  model.eval();
  const torch::AutoGradMode mode(with_gradients);

  const auto& chain = model.chains.front();
  const bool of_images = chain.name == "image";
  Computed computed{.fresh = loaded.report.fresh};
  std::map<std::string, Activations> ends;
  int64_t B = 0, T = 0;
  Tensor places;
  if (of_images) {
    ends[chain.name] = through_blocks(model, images(inputs), computed.outputs);
  } else {
    auto entered = unpad(model, inputs);
    B = inputs.at("input_ids").size(0), T = inputs.at("input_ids").size(1);
    places = entered.places;
    ends[chain.name] = model.forward(chain.name, 0, chain.blocks.size(), std::move(entered.batch), model.head->reads());
  }
  const bool per_token = !of_images && model.head->reads().where == Reads::Where::all;

  Tensor objective;
  for (const auto& [name, value] : model.head->forward(ends)) {
    auto output = value;
    if (of_images && name == "last_hidden_state") output = by_image({value, ends.begin()->second.hidden.lengths});
    if (per_token && !kPerExample.contains(name)) {
      auto shape = value.sizes().vec();
      shape[0] = B * T;
      output = torch::zeros(shape, value.options()).index_copy(0, places, value);
      shape[0] = T;
      shape.insert(shape.begin(), B);
      output = output.view(shape);
    }
    computed.outputs[name] = output.detach().cpu();
    const auto cotangent = inputs.find("cotangent." + name);
    if (cotangent == inputs.end() || !with_gradients) continue;
    GRAFT_CHECK(data, cotangent->second.sizes() == output.sizes(), "cotangent.{}: has the shape {}, the output has {}.",
                name, io::shape_text(cotangent->second.sizes().vec()), io::shape_text(output.sizes().vec()));
    const auto term = (placed(cotangent->second, output.device()) * output).sum();
    objective = objective.defined() ? objective + term : term;
  }
  if (!with_gradients) return computed;
  GRAFT_CHECK(data, objective.defined(),
              "no gradient can be computed: the inputs hold no cotangent.<output>; outputs are {}.", [&] {
                std::vector<std::string> names;
                for (const auto& o : computed.outputs) names.push_back(o.first);
                return listed(names);
              }());
  objective.backward();
  for (const auto& item : model.parameters_by_key()) {
    const auto key = loaded.report.key_in_file.find(item.key());
    if (key != loaded.report.key_in_file.end() && item.value().grad().defined())
      computed.gradients["grad." + source.checkpoint.name_in_file(key->second)] = item.value().grad().cpu();
  }
  return computed;
}

}  // namespace graft::models
