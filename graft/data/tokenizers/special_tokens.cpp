// Special and added tokens of the documents that wordpiece.cpp and byte_bpe.cpp build.
#include <algorithm>

#include "graft/core/error.h"
#include "graft/data/tokenizers/build.h"

namespace graft::data {
namespace {

struct Added {
  std::map<int64_t, nlohmann::json> by_id;
  std::map<std::string, int64_t> ids;

  void add(int64_t id, const Json& token) {
    if (ids.contains(token.at("content"))) return;
    auto entry = nlohmann::json(token);
    entry["id"] = id;
    ids[token.at("content")] = id;
    by_id[id] = std::move(entry);
  }
};

Json plain_token(const std::string& content, bool special) {
  return {{"content", content}, {"single_word", false},   {"lstrip", false},
          {"rstrip", false},    {"normalized", !special}, {"special", special}};
}

/// Every token with a role, in the order in which transformers adds those that are missing.
std::vector<Json> tokens_with_roles(const SourceFiles& source) {
  std::vector<Json> tokens;
  for (const auto& role : kTokenRoles)
    if (!source.token(role).empty()) tokens.push_back(source.added_token(role));
  for (const auto* settings : {&source.special_map, &source.config}) {
    const auto more = settings->find("additional_special_tokens");
    if (more == settings->end() || !more->is_array()) continue;
    for (const auto& token : *more)
      tokens.push_back(plain_token(token.is_object() ? token.value("content", "") : token.get<std::string>(), true));
  }
  return tokens;
}

}  // namespace

nlohmann::json added_tokens(const SourceFiles& source, const nlohmann::json& vocabulary) {
  const auto with_roles = tokens_with_roles(source);
  Added added;
  if (source.config.contains("added_tokens_decoder"))
    for (const auto& [id, token] : source.config["added_tokens_decoder"].items()) {
      auto entry = plain_token(token.value("content", ""), token.value("special", false));
      entry.update(token);
      added.add(std::stoll(id), entry);
    }
  if (source.has("added_tokens.json")) {
    const auto listed_tokens = parse_vocabulary(source, "added_tokens.json");
    for (const auto& [content, id] : listed_tokens.items()) {
      const auto role =
          std::find_if(with_roles.begin(), with_roles.end(), [&](const Json& t) { return t["content"] == content; });
      added.add(id, role == with_roles.end() ? plain_token(content, false) : *role);
    }
  }
  int64_t next = static_cast<int64_t>(vocabulary.size());
  if (!added.by_id.empty()) next = std::max(next, added.by_id.rbegin()->first + 1);
  for (const auto& token : with_roles) {
    const auto known = vocabulary.find(token["content"].get<std::string>());
    const bool is_new = known == vocabulary.end() && !added.ids.contains(token["content"]);
    added.add(known == vocabulary.end() ? next : known->get<int64_t>(), token);
    next += is_new;
  }
  auto entries = nlohmann::json::array();
  for (const auto& [id, token] : added.by_id) entries.push_back(token);
  return entries;
}

int64_t required_id(const SourceFiles& source, const std::string& role, const nlohmann::json& vocabulary,
                    const nlohmann::json& added) {
  const auto token = source.token(role);
  if (const auto known = vocabulary.find(token); known != vocabulary.end()) return *known;
  for (const auto& entry : added)
    if (entry["content"] == token) return entry["id"];
  fail(Kind::model, "{}: the vocabulary has no {} `{}`; name the right token in special_tokens_map.json",
       source.folder.string(), role, token);
}

nlohmann::json pair_template(const std::string& cls, int64_t cls_id, const std::string& sep, int64_t sep_id) {
  const auto special = [](const std::string& token, int type) {
    return nlohmann::json{{"SpecialToken", {{"id", token}, {"type_id", type}}}};
  };
  const auto text = [](const char* name, int type) {
    return nlohmann::json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  const auto entry = [](const std::string& token, int64_t id) {
    return nlohmann::json{{"id", token}, {"ids", {id}}, {"tokens", {token}}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", {special(cls, 0), text("A", 0), special(sep, 0)}},
          {"pair", {special(cls, 0), text("A", 0), special(sep, 0), text("B", 1), special(sep, 1)}},
          {"special_tokens", {{cls, entry(cls, cls_id)}, {sep, entry(sep, sep_id)}}}};
}

}  // namespace graft::data
