// Every model family graft runs: one row each. A new architecture is its own file, one row here and its parity fixtures.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graft/io/tensor_view.h"
#include "graft/models/model.h"

namespace graft::models {

/// An exception to "the parameter's name is the key in the file".
struct KeyRule {
  enum class What { drop, rename } what;
  std::string pattern;      // a prefix ("cls."), or with a leading * a suffix ("*.position_ids")
  std::string replacement;  // rename: takes the place of the pattern
};
inline KeyRule drop(std::string pattern) { return {KeyRule::What::drop, std::move(pattern), ""}; }
inline KeyRule rename(std::string pattern, std::string replacement) {
  return {KeyRule::What::rename, std::move(pattern), std::move(replacement)};
}

struct Architecture {
  std::string model_type;  // as in config.json
  std::string prefix;      // of the backbone's keys in a file with a head; bare files leave it out ("bert")
  /// A freshly initialised model. Throws Kind::model for a configuration that graft does not compute.
  std::shared_ptr<Model> (*create)(const Json& config, const Task& task);
  /// "BertForSequenceClassification": what transformers builds for the task.
  std::string (*class_name)(const Task& task);
  std::vector<KeyRule> rules;                                  // tried on every key that no parameter has
  std::vector<std::pair<std::string, std::string>> tied = {};  // (alias in some files, the parameter that it equals)
  std::string exported_type = {};  // model_type of what graft writes, where transformers knows only a relative ("bert")
  /// What it was pretrained for, and `adapt` goes on with: masked_lm, causal_lm, masked_image; "" for none of these.
  std::string language_task = "masked_lm";
  /// Adds to the configuration what only the shapes of the tensors tell (timm and torchvision leave widths out).
  Json (*describe)(Json config, const io::TensorMap& tensors) = nullptr;
  /// Another name for a key of a file, before anything looks at it; the file's own comes back when it is saved.
  std::string (*key_here)(const std::string& key) = nullptr;
  /// model_type of what graft writes for a task, where transformers has its class in another family (ViT and ViT-MAE).
  std::string (*model_type_for)(const Task& task) = nullptr;
};

const std::vector<Architecture>& architectures();

/// By `model_type` of config.json, by timm's `architecture`, else by `architectures` in it ("BertModel").
/// Throws Kind::model listing the known families when neither is known.
const Architecture& find_architecture(const Json& config);

Architecture bert();
Architecture cxr_bert();
Architecture deberta();
Architecture deberta_v2();
Architecture dinov2();
Architecture efficientnet();
Architecture gpt_bigcode();
Architecture llama();
Architecture mlp();
Architecture roberta();
Architecture starcoder2();
Architecture resnet();
Architecture swin();
Architecture vit();
Architecture vit_mae();

}  // namespace graft::models
