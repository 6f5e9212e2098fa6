#include "graft/run/text_task.h"

#include "graft/core/error.h"

namespace graft::run {

void check_tokenizer(const data::Tokenizer& tokenizer, const models::Source& source) {
  const auto pad = tokenizer.special_id("pad_token");
  const auto stated = source.config.find("pad_token_id");
  if (pad && tokenizer.special_id("cls_token") && stated != source.config.end() && stated->is_number_integer())
    GRAFT_CHECK(model, *stated == *pad,
                "{}: the tokenizer's padding token `{}` has the id {}, but config.json says pad_token_id {}. The "
                "tokenizer does not belong to these weights; use the files of one model.",
                source.folder.string(), tokenizer.token_of(*pad), *pad, stated->dump());
  const auto rows = source.config.value("vocab_size", int64_t{0});
  GRAFT_CHECK(model, rows == 0 || tokenizer.vocab_size() <= rows,
              "{}: the tokenizer has {} ids, but config.json's vocab_size gives the embedding {} rows. The tokenizer "
              "does not belong to these weights; use the files of one model.",
              source.folder.string(), tokenizer.vocab_size(), rows);
}

void settle_padding(const data::Tokenizer& tokenizer, models::Source& source) {
  if (source.architecture->language_task != "causal_lm") return;
  auto& pad = source.config["pad_token_id"];
  if (pad.is_number_integer() && pad.get<int64_t>() >= 0) return;
  for (const auto* role : {"pad_token", "eos_token"})
    if (const auto id = tokenizer.special_id(role)) {
      pad = *id;
      return;
    }
}

int64_t length_limit(int64_t wanted, const data::Tokenizer& tokenizer, const models::Model& model) {
  return std::min({wanted, tokenizer.model_max_length().value_or(wanted), model.max_tokens()});
}

std::map<std::string, std::string> tokenizer_files(const data::Tokenizer& tokenizer, int64_t max_length) {
  std::map<std::string, std::string> files;
  for (const auto& [name, content] : tokenizer.export_files(max_length)) files[name] = content;
  return files;
}

TextTask::TextTask(const models::Source& source, int64_t max_length)
    : tokenizer_(data::Tokenizer::load(source.folder)), max_length_(max_length) {
  check_tokenizer(tokenizer_, source);
}

data::Dataset TextTask::read(const data::DataOptions& options, uint64_t seed,
                             const std::vector<std::string>& label_names) {
  return data::read_dataset(options, seed, label_names);
}

data::Examples TextTask::list(const std::vector<std::string>& given) {
  data::Examples examples;
  for (const auto& text : given) examples.texts.push_back(text);
  return examples;
}

Prepared TextTask::prepare(const models::Model& model, data::Examples& examples, const Wanted& wanted) {
  const auto limit = length_limit(max_length_, tokenizer_, model);
  auto inputs = std::make_unique<features::TextInputs>(model, limit);
  inputs->keep_words = wanted.words;
  inputs->add(tokenizer_, examples.texts, examples.pairs);
  Prepared result;
  if (inputs->keep_words) result.first_tokens = &inputs->first_tokens();
  if (inputs->truncated > 0)
    result.note = fmt::format("{} of {} {} texts reach the limit of {} tokens and are cut (max_length in the recipe)",
                              inputs->truncated, inputs->size(), wanted.split, limit);
  result.inputs = std::move(inputs);
  return result;
}

Json TextTask::settings(const models::Model& model) const {
  return {{"max_length", length_limit(max_length_, tokenizer_, model)}};
}

std::map<std::string, std::string> TextTask::files(const models::Model& model) const {
  return tokenizer_files(tokenizer_, length_limit(max_length_, tokenizer_, model));
}

}  // namespace graft::run
