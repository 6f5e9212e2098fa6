// CXR-BERT: BERT with a projection of the first token into the space of chest X-rays, and no pooler.
// Paper:    Boecking et al. 2022 (BioViL), https://arxiv.org/abs/2204.09817; Bannur et al. 2023 (BioViL-T).
// Weights:  model_type `cxr-bert` (BiomedVLP-CXR-BERT-general, -specialized, BiomedVLP-BioViL-T); keys are those of
//           hi-ml-multimodal's CXRBertModel, whose code is not needed.
// Parity:   tests/parity/cxr-bert-text, hi-ml-multimodal 0.2.2: outputs and gradients.
// Differs:  task heads are BERT's and exported as such (model_type bert), for transformers has no class for this family;
//           their pooler starts fresh, and the projection stays behind.
// Shapes:   B examples, N tokens, C channels, P width of the projection, V vocabulary.
#include "graft/models/architectures.h"
#include "graft/models/encoder_heads.h"
#include "graft/models/post_norm_model.h"

namespace graft::models {
namespace {

/// What the reference gives: last_hidden_state, logits of the masked language model, and the projected first token,
/// which is not normalised.
struct CxrBertHead final : Head {
  CxrBertHead(const PostNormConfig& c, int64_t projection_size, nn::Embedding words)
      : language(*this, {}, c.hidden_size, c.hidden_act, c.layer_norm_eps, std::move(words)) {
    const auto head = register_module("cls_projection_head", std::make_shared<torch::nn::Module>());
    to_hidden = head->register_module("dense_to_hidden", nn::Linear(c.hidden_size, projection_size));
    norm = head->register_module("LayerNorm", nn::LayerNorm(projection_size, 1e-12));  // whatever the config says
    to_output = head->register_module("dense_to_output", nn::Linear(projection_size, projection_size));
  }

  Reads reads() const override { return {Reads::Where::all}; }
  std::vector<std::string> uses() const override { return {"embeddings"}; }

  Outputs forward(const std::map<std::string, Activations>& ends) override {
    const auto& hidden = ends.at("text").hidden;
    const auto first = resolve({Reads::Where::first}, hidden.lengths, hidden.values.device()).index;
    const auto projected = to_output(norm(torch::gelu(to_hidden(hidden.values.index_select(0, first)))));  // (B, P)
    return {{"last_hidden_state", hidden.values},                                                          // (N, C)
            {"logits", language.logits(hidden.values)},                                                    // (N, V)
            {"cls_projected_embedding", projected}};
  }

  MaskedLmLayers language;
  nn::Linear to_hidden{nullptr}, to_output{nullptr};
  nn::LayerNorm norm{nullptr};
};

std::shared_ptr<Model> create(const Json& json, const Task& task) {
  if (task.kind != "features") return bert().create(json, task);
  const auto c = read_config<PostNormConfig>(json);
  const auto model = std::make_shared<PostNormModel>("bert", c);
  const auto size = json.value("projection_size", int64_t{128});
  model->head = std::make_shared<CxrBertHead>(c, size, model->encoder->embeddings->word_embeddings);
  return model;
}

std::string class_name(const Task& task) { return task.kind == "features" ? "CXRBertModel" : bert().class_name(task); }

}  // namespace

Architecture cxr_bert() {
  auto row = bert();
  row.model_type = "cxr-bert";
  row.create = create;
  row.class_name = class_name;
  row.rules.push_back(drop("cls_projection_head."));
  row.exported_type = "bert";
  return row;
}

}  // namespace graft::models
