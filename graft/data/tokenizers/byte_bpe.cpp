// Byte-level BPE of GPT-2 and its relatives from vocab.json and merges.txt.
// Source: transformers 4.57, RobertaConverter, DebertaConverter, GPT2Converter.
#include "graft/core/error.h"
#include "graft/data/tokenizers/build.h"

namespace graft::data {
namespace {

/// One merge a line, "left right"; the first line is a comment.
nlohmann::json read_merges(const SourceFiles& source) {
  const std::string_view text = source.files.at("merges.txt");
  auto merges = nlohmann::json::array();
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find('\n', begin), text.size());
    auto line = text.substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    begin = end + 1;
    ++number;
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const auto blank = line.find(' ');
    GRAFT_CHECK(
        model, blank != line.npos && blank > 0 && line.find(' ', blank + 1) == line.npos && blank + 1 < line.size(),
        "{}, line {}: expected two tokens with one blank between them, found `{}`; the file is broken, fetch it again",
        (source.folder / "merges.txt").string(), number, line);
    merges.push_back(std::string(line));
  }
  return merges;
}

nlohmann::json byte_level(bool add_prefix_space, bool trim_offsets) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", true}};
}

nlohmann::json post_processor(const SourceFiles& source, const nlohmann::json& vocabulary, const nlohmann::json& added,
                              bool add_prefix_space) {
  if (source.family.name == "gpt2") return byte_level(true, false);
  const auto cls = source.token("cls_token"), sep = source.token("sep_token");
  const auto cls_id = required_id(source, "cls_token", vocabulary, added);
  const auto sep_id = required_id(source, "sep_token", vocabulary, added);
  if (source.family.name == "deberta") return pair_template(cls, cls_id, sep, sep_id);
  return {{"type", "RobertaProcessing"},
          {"sep", {sep, sep_id}},
          {"cls", {cls, cls_id}},
          {"trim_offsets", true},
          {"add_prefix_space", add_prefix_space}};
}

}  // namespace

nlohmann::json build_byte_bpe(const SourceFiles& source) {
  GRAFT_CHECK(
      model, !source.family.name.empty() && source.family.name != "bert",
      "{}: vocab.json and merges.txt do not say which tokenizer they belong to; expected model_type roberta, deberta, "
      "gpt2, "
      "gpt_bigcode or starcoder2 in config.json (found `{}`), or tokenizer_class in tokenizer_config.json (found `{}`)",
      source.folder.string(), source.model_type, source.text_setting("tokenizer_class", ""));
  auto vocabulary = parse_vocabulary(source, "vocab.json");
  auto added = added_tokens(source, vocabulary);
  const bool add_prefix_space = source.flag("add_prefix_space", false);
  auto processor = post_processor(source, vocabulary, added, add_prefix_space);
  return byte_bpe_document(std::move(vocabulary), read_merges(source), std::move(added), std::move(processor),
                           add_prefix_space);
}

nlohmann::json byte_bpe_document(nlohmann::json vocabulary, nlohmann::json merges, nlohmann::json added_tokens,
                                 nlohmann::json post_processor, bool add_prefix_space) {
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", std::move(added_tokens)},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level(add_prefix_space, true)},
          {"post_processor", std::move(post_processor)},
          {"decoder", byte_level(true, true)},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", ""},
            {"end_of_word_suffix", ""},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", false},
            {"vocab", std::move(vocabulary)},
            {"merges", std::move(merges)}}}};
}

}  // namespace graft::data
