// The files beside an exported model: AutoTokenizer must give the ids with which the model was trained.
// Source: transformers 4.57, which reads tokenizer.json and then lets tokenizer_config.json overrule the normalizer and
// add_prefix_space; so both are stated there as the document has them. Source of what is said of 5: 5.17 and 5.23.
#include "graft/data/tokenizers/state.h"

namespace graft::data {
namespace {

/// transformers 5 builds DeBERTa v1's tokenizer from its class and gives pairs RoBERTa's form (two [SEP], types all 0),
/// whatever tokenizer.json says. As a plain fast tokenizer the document is read as it stands.
bool class_overrules_document(const SourceFiles& source) { return source.family.name == "deberta"; }

std::string class_of(const SourceFiles& source) {
  if (class_overrules_document(source)) return "PreTrainedTokenizerFast";
  const auto stated = source.text_setting("tokenizer_class", "");
  if (!stated.empty() && !source.config.contains("auto_map")) return stated;
  return source.family.tokenizer_class.empty() ? "PreTrainedTokenizerFast" : source.family.tokenizer_class;
}

Json added_tokens_decoder(const nlohmann::json& outline) {
  auto decoder = Json::object();
  if (!outline.contains("added_tokens")) return decoder;
  for (const auto& token : outline["added_tokens"]) {
    auto entry = Json(token);
    entry.erase("id");
    decoder[std::to_string(token.at("id").get<int64_t>())] = std::move(entry);
  }
  return decoder;
}

void state_normalizer(const nlohmann::json& outline, Json& config) {
  const auto normalizer = outline.find("normalizer");
  if (normalizer == outline.end() || !normalizer->is_object() || normalizer->value("type", "") != "BertNormalizer")
    return;
  config["do_lower_case"] = normalizer->value("lowercase", true);
  config["tokenize_chinese_chars"] = normalizer->value("handle_chinese_chars", true);
  config["strip_accents"] = normalizer->contains("strip_accents") ? Json(normalizer->at("strip_accents")) : Json();
}

void state_prefix_space(const nlohmann::json& outline, Json& config) {
  const auto pre_tokenizer = outline.find("pre_tokenizer");
  if (pre_tokenizer != outline.end() && pre_tokenizer->is_object() && pre_tokenizer->contains("add_prefix_space"))
    config["add_prefix_space"] = pre_tokenizer->at("add_prefix_space").get<bool>();
}

}  // namespace

std::vector<std::pair<std::string, std::string>> Tokenizer::export_files(int64_t model_max_length) const {
  const auto& source = state_->source;
  auto config = source.config;
  config.erase("auto_map");
  config["tokenizer_class"] = class_of(source);
  if (class_overrules_document(source))  // what the class would have said
    config["model_input_names"] = {"input_ids", "token_type_ids", "attention_mask"};
  config["model_max_length"] = model_max_length;
  config["added_tokens_decoder"] = added_tokens_decoder(state_->outline);
  state_normalizer(state_->outline, config);
  state_prefix_space(state_->outline, config);
  auto special_map = source.special_map;
  for (const auto& role : kTokenRoles) {
    if (!special_id(role)) continue;
    config[role] = source.token(role);
    if (special_map.contains(role)) continue;
    auto token = source.added_token(role);
    token.erase("special");
    special_map[role] = token["lstrip"] == true ? std::move(token) : Json(source.token(role));
  }
  std::vector<std::pair<std::string, std::string>> files = {{"tokenizer_config.json", config.dump(2) + "\n"},
                                                            {"special_tokens_map.json", special_map.dump(2) + "\n"}};
  // SentencePiece's own file is the tokenizer: a tokenizer.json beside it would be another, which others would prefer.
  if (sentencepiece_file(source).empty()) files.insert(files.begin(), {"tokenizer.json", state_->document});
  for (const auto& [name, content] : source.files)
    if (name != "tokenizer.json") files.emplace_back(name, content);
  return files;
}

}  // namespace graft::data
