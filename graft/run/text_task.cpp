#include "graft/run/text_task.h"

#include <set>

#include "graft/adapt/masked_lm.h"
#include "graft/core/error.h"
#include "graft/core/random.h"
#include "graft/data/language/language_examples.h"
#include "graft/io/file.h"

namespace graft::run {
namespace {

/// The ids that the files beside the weights give a role: config.json, and of ends also generation_config.json, for a model
/// that chats ends otherwise than one that goes on with a text.
std::set<int64_t> stated_ids(const models::Source& source, const std::string& key) {
  std::set<int64_t> ids;
  const auto add = [&](const Json& settings) {
    if (!settings.is_object() || !settings.contains(key)) return;
    const auto& stated = settings[key];
    for (const auto& id : stated.is_array() ? stated : Json::array({stated}))
      if (id.is_number_integer() && id.get<int64_t>() >= 0) ids.insert(id.get<int64_t>());
  };
  add(source.config);
  const auto generation = source.folder / "generation_config.json";
  if (!ids.empty() && key == "eos_token_id" && std::filesystem::exists(generation))
    add(Json::parse(io::read_file(generation), nullptr, false));
  return ids;
}

/// Sizes may agree by chance; where a text begins and ends does not.
void check_roles(const data::Tokenizer& tokenizer, const models::Source& source) {
  for (const std::string role : {"bos_token", "eos_token", "pad_token"}) {
    const auto id = tokenizer.special_id(role);
    const auto stated = stated_ids(source, role + "_id");
    GRAFT_CHECK(
        model, !id || stated.empty() || stated.contains(*id),
        "{}: the tokenizer's {} `{}` has the id {}, but config.json says {}_id {}. The tokenizer does not belong "
        "to these weights; use the files of one model, or correct the id in config.json if it does.",
        source.folder.string(), role, tokenizer.token_of(*id), *id, role, fmt::join(stated, ", "));
  }
}

}  // namespace

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
  if (source.architecture->language_task == "causal_lm") check_roles(tokenizer, source);
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

TextTask::TextTask(const models::Source& source, int64_t max_length, const data::LanguageOptions& language)
    : tokenizer_(data::Tokenizer::load(source.folder)),
      max_length_(max_length),
      language_(language),
      decoder_(source.architecture->language_task == "causal_lm") {
  check_tokenizer(tokenizer_, source);
}

adapt::Objective TextTask::objective(models::Model& model, const models::Source& source,
                                     const adapt::AdaptOptions& options, uint64_t seed,
                                     const std::function<void(int64_t, int64_t)>&) {
  return adapt::read_objective(source.architecture->language_task, model, tokenizer_,
                               source.config.at("vocab_size").get<int64_t>(), options,
                               length_limit(options.max_length, tokenizer_, model), seed, language_);
}

std::shared_ptr<train::Stream> TextTask::masked(models::Model& model, const models::Source& source,
                                                const features::Inputs& inputs, uint64_t seed) {
  struct Held {
    adapt::MaskRules rules;
    adapt::MaskedLm stream;
    Held(const data::Tokenizer& tokenizer, int64_t vocab_size, models::Model& model, const features::TextInputs& texts,
         uint64_t seed)
        : rules(tokenizer, vocab_size, {}), stream(model, texts, rules, seed) {}
  };
  const auto* texts = dynamic_cast<const features::TextInputs*>(&inputs);
  if (!texts || source.architecture->language_task != "masked_lm") return nullptr;
  const auto held =
      std::make_shared<Held>(tokenizer_, source.config.at("vocab_size").get<int64_t>(), model, *texts, seed);
  return {held, &held->stream};
}

data::Dataset TextTask::read(const data::DataOptions& options, uint64_t seed,
                             const std::vector<std::string>& label_names) {
  GRAFT_CHECK(
      model, decoder_ || options.task != "causal_lm",
      "the task causal_lm needs a model that was pretrained left to right (LLaMA, StarCoder); this source learned "
      "to fill masks. Take another source, or another data.task.");
  return data::read_dataset(options, seed, label_names);
}

data::Examples TextTask::list(const std::vector<std::string>& given) {
  data::Examples examples;
  for (const auto& text : given) examples.texts.push_back(text);
  return examples;
}

Prepared TextTask::prepare(const models::Model& model, data::Examples& examples, const Wanted& wanted) {
  const auto limit = length_limit(max_length_, tokenizer_, model);
  if (wanted.task == "causal_lm") return prepare_language(model, examples, wanted, limit);
  auto inputs = std::make_unique<features::TextInputs>(model, limit);
  inputs->keep_words = wanted.task == "tokens";
  inputs->add(tokenizer_, examples.texts, examples.pairs);
  Prepared result;
  if (inputs->keep_words) result.alignment.first_tokens = &inputs->first_tokens();
  if (inputs->truncated > 0)
    result.note = fmt::format("{} of {} {} texts reach the limit of {} tokens and are cut (max_length in the recipe)",
                              inputs->truncated, inputs->size(), wanted.split, limit);
  result.inputs = std::move(inputs);
  return result;
}

Prepared TextTask::prepare_language(const models::Model& model, data::Examples& examples, const Wanted& wanted,
                                    int64_t limit) const {
  const auto rows = std::make_shared<data::LanguageExamples>(data::language_examples(
      tokenizer_, examples.texts, language_, limit,
      seed_of(wanted.training_seed.value_or(0), {"language", wanted.split}), wanted.split, wanted.bad_rows));
  GRAFT_CHECK(data, rows->ids.size() > 0, "none of the {} examples can be used; the first: {}", wanted.split,
              rows->skipped.first.empty() ? "there is none" : rows->skipped.first.front());
  if (rows->skipped.count > 0) examples = data::take(examples, rows->kept);
  auto inputs = std::make_unique<features::TextInputs>(model, limit);
  for (int64_t i = 0; i < rows->ids.size(); ++i) inputs->add(rows->ids[i], rows->ids[i]);  // decoders have no types
  Prepared result{.inputs = std::move(inputs),
                  .alignment = {.next_tokens = &rows->labels},
                  .aligned = rows,
                  .skipped = rows->skipped};
  std::vector<std::string> notes;
  if (rows->truncated > 0)
    notes.push_back(
        fmt::format("{} of {} {} examples reach the limit of {} tokens and are cut (max_length in the recipe)",
                    rows->truncated, rows->ids.size(), wanted.split, limit));
  if (rows->without_answer > 0) notes.push_back(fmt::format("of {} nothing is left to learn", rows->without_answer));
  if (rows->lost_answers > 0)
    notes.push_back(
        fmt::format("{} earlier answers are not learned: the chat template writes them otherwise once the "
                    "conversation goes on",
                    rows->lost_answers));
  result.note = fmt::format("{}", fmt::join(notes, "; "));
  GRAFT_CHECK(data, rows->without_answer < rows->ids.size(),
              "none of the {} {} examples has an answer within {} tokens; raise max_length.", rows->ids.size(),
              wanted.split, limit);
  return result;
}

Json TextTask::settings(const models::Model& model) const {
  return {{"max_length", length_limit(max_length_, tokenizer_, model)}};
}

std::map<std::string, std::string> TextTask::files(const models::Model& model) const {
  auto files = tokenizer_files(tokenizer_, length_limit(max_length_, tokenizer_, model));
  // The conversations to come must be written as those that were learned.
  if (!language_.chat_template.empty()) files["chat_template.jinja"] = io::read_file(language_.chat_template);
  return files;
}

}  // namespace graft::run
