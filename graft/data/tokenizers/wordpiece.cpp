// WordPiece of BERT and its relatives from vocab.txt: the id of a token is its line.
// Source: transformers 4.57, BertConverter; but where the files are silent, the vocabulary says whether
// texts are lower-cased.
#include "graft/core/error.h"
#include "graft/data/table.h"
#include "graft/data/tokenizers/build.h"

namespace graft::data {
namespace {

/// Lines as they are: blanks belong to tokens, and an empty line takes an id.
nlohmann::json read_lines(const SourceFiles& source) {
  const std::string_view text = source.files.at("vocab.txt");
  auto vocabulary = nlohmann::json::object();
  int64_t id = 0;
  for (size_t begin = 0; begin < text.size(); ++id) {
    const auto end = std::min(text.find('\n', begin), text.size());
    auto token = text.substr(begin, end - begin);
    if (token.ends_with('\r')) token.remove_suffix(1);
    GRAFT_CHECK(model, is_utf8(token), "{}: line {} is not UTF-8; the file is broken, fetch it again",
                (source.folder / "vocab.txt").string(), id + 1);
    vocabulary[std::string(token)] = id;
    begin = end + 1;
  }
  return vocabulary;
}

/// Whether an eighth of the tokens begin with a capital (in BERT's cased vocabulary more than a quarter do). Cased models
/// (BioClinicalBERT, SciBERT) were published without tokenizer_config.json; transformers then lower-cases, which their
/// training did not.
bool is_cased(const nlohmann::json& vocabulary) {
  size_t capitals = 0;
  for (const auto& item : vocabulary.items()) capitals += item.key()[0] >= 'A' && item.key()[0] <= 'Z';
  return 8 * capitals > vocabulary.size();
}

nlohmann::json normalizer(const SourceFiles& source, const nlohmann::json& vocabulary) {
  if (!source.flag("do_basic_tokenize", true))
    return {{"type", "BertNormalizer"},
            {"clean_text", true},
            {"handle_chinese_chars", false},
            {"strip_accents", false},
            {"lowercase", false}};
  return {{"type", "BertNormalizer"},
          {"clean_text", true},
          {"handle_chinese_chars", source.flag("tokenize_chinese_chars", true)},
          {"strip_accents",
           source.config.contains("strip_accents") ? nlohmann::json(source.config["strip_accents"]) : nullptr},
          {"lowercase", source.flag("do_lower_case", !is_cased(vocabulary))}};
}

}  // namespace

nlohmann::json build_wordpiece(const SourceFiles& source) {
  auto vocabulary = read_lines(source);
  auto added = added_tokens(source, vocabulary);
  const auto cls = required_id(source, "cls_token", vocabulary, added);
  const auto sep = required_id(source, "sep_token", vocabulary, added);
  required_id(source, "unk_token", vocabulary, nlohmann::json::array());
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added)},
          {"normalizer", normalizer(source, vocabulary)},
          {"pre_tokenizer", {{"type", "BertPreTokenizer"}}},
          {"post_processor", pair_template(source.token("cls_token"), cls, source.token("sep_token"), sep)},
          {"decoder", {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}}},
          {"model",
           {{"type", "WordPiece"},
            {"unk_token", source.token("unk_token")},
            {"continuing_subword_prefix", "##"},
            {"max_input_chars_per_word", 100},
            {"vocab", std::move(vocabulary)}}}};
}

}  // namespace graft::data
