// graft evaluate and predict: a finished model on new data.
#include <fstream>
#include <iostream>

#include "cli/engine/commands.h"
#include "cli/engine/texts.h"
#include "graft/core/error.h"
#include "graft/core/threads.h"
#include "graft/data/table.h"
#include "graft/features/feed.h"
#include "graft/io/fields.h"
#include "graft/run/text_task.h"
#include "graft/train/supervised.h"

namespace graft::cli {
namespace {

constexpr int64_t kRowsAtOnce = 1024;
constexpr int64_t kBatchTokens = 8192;

/// A model folder that is ready to judge texts.
struct Judge {
  explicit Judge(const std::string& folder, int64_t wanted_length)
      : source(models::Source::open(folder)),
        tokenizer(data::Tokenizer::load(source.folder)),
        task(models::task_of(source.config, *source.architecture)),
        names(models::label_names(source.config)),
        loaded(models::load(source, task, 0)) {
    at::set_num_threads(static_cast<int>(available_cores()));
    run::check_tokenizer(tokenizer, source);
    GRAFT_CHECK(model, task.kind != "features" && task.kind != source.architecture->language_task,
                "{}: has no task head ({}); give the model/ folder of a finished run.", folder,
                source.architecture->class_name(task));
    GRAFT_CHECK(model, loaded.report.fresh.empty(),
                "{}: has no weights for {}; give the model/ folder of a finished run.", folder,
                listed(loaded.report.fresh));
    loaded.model->unfreeze_only(loaded.model->all_groups());
    loaded.model->eval();
    max_length = run::length_limit(wanted_length, tokenizer, *loaded.model);
  }

  models::Source source;
  data::Tokenizer tokenizer;
  models::Task task;
  std::vector<std::string> names;
  models::Loaded loaded;
  int64_t max_length = 0;
};

std::string name_of(const Judge& judge, int64_t label) {
  return label < static_cast<int64_t>(judge.names.size()) ? judge.names[label] : "LABEL_" + std::to_string(label);
}

Json prediction(const Judge& judge, const torch::Tensor& logits) {
  Json row = Json::object();
  if (judge.task.kind == "regression") {
    row["value"] = logits[0].item<float>();
    return row;
  }
  const auto p = judge.task.kind == "multilabel" ? logits.sigmoid() : logits.softmax(0);
  if (judge.task.kind == "multilabel") {
    row["labels"] = Json::array();
    for (int64_t k = 0; k < p.numel(); ++k)
      if (p[k].item<float>() > 0.5) row["labels"].push_back(name_of(judge, k));
  } else {
    const auto best = p.argmax().item<int64_t>();
    row["label"] = name_of(judge, best);
    row["probability"] = p[best].item<float>();
  }
  row["probabilities"] = Json::object();
  for (int64_t k = 0; k < p.numel(); ++k) row["probabilities"][name_of(judge, k)] = p[k].item<float>();
  return row;
}

/// Predicts a piece of the rows and prints them in order.
void predict_rows(const Judge& judge, const data::Examples& examples, bool json) {
  const torch::NoGradGuard no_grad;
  const bool words = judge.task.kind == "tokens";
  const auto inputs = run::tokenized(judge.tokenizer, *judge.loaded.model, examples, judge.max_length, words);
  const features::Feed feed(*judge.loaded.model, inputs);
  const train::Supervised stream(*judge.loaded.model, feed, judge.task.kind, judge.names, examples,
                                 words ? &inputs.first_tokens() : nullptr);
  std::vector<Json> rows(examples.size());
  for (const auto& batch : features::batches_by_length(inputs, kBatchTokens)) {
    const auto logits =
        train::forward_behind(*judge.loaded.model, stream.enter(batch, train::kEvaluation), std::nullopt)
            .at("logits")
            .to(torch::kFloat32);
    int64_t start = 0;
    for (size_t i = 0; i < batch.size(); ++i) {
      auto& row = rows[batch[i]];
      if (!words) {
        row = prediction(judge, logits[static_cast<int64_t>(i)]);
        continue;
      }
      row["labels"] = Json::array();
      for (const auto place : inputs.first_tokens()[batch[i]])
        row["labels"].push_back(place < 0 ? Json(nullptr)
                                          : Json(name_of(judge, logits[start + place].argmax().item<int64_t>())));
      start += inputs.length(batch[i]);
    }
  }
  for (int64_t i = 0; i < examples.size(); ++i) {
    const auto text = std::string(examples.texts.text(i));
    if (json) {
      Json line{{"text", text}};
      line.update(rows[i]);
      std::cout << line.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
    } else if (rows[i].contains("label")) {
      fmt::print("{:<20} {:.3f}  {}\n", rows[i]["label"].get<std::string>(), rows[i]["probability"].get<double>(),
                 text.size() > 90 ? text.substr(0, 87) + "..." : text);
    } else {
      fmt::print("{}  {}\n", (rows[i].contains("value") ? rows[i]["value"] : rows[i]["labels"]).dump(), text);
    }
  }
  std::cout.flush();
}

}  // namespace

Json evaluate_command(const Json& request) {
  const Judge judge(request.at("model"), request.value("max_length", int64_t{512}));
  data::DataOptions options;
  std::vector<std::string> mistakes;
  io::read_value(request.value("data_options", Json::object()), options, "data", mistakes);
  GRAFT_CHECK(usage, mistakes.empty(), "{}", listed(mistakes));
  options.task = judge.task.kind;
  const auto file = request.at("data").get<std::string>();
  options.test = file;
  const auto dataset = data::read_dataset(options, 0, judge.names);
  const auto& examples = dataset.test;
  const bool words = judge.task.kind == "tokens";
  const auto inputs = run::tokenized(judge.tokenizer, *judge.loaded.model, examples, judge.max_length, words);
  const features::Feed feed(*judge.loaded.model, inputs);
  const train::Supervised stream(*judge.loaded.model, feed, judge.task.kind, judge.names, examples,
                                 words ? &inputs.first_tokens() : nullptr);
  const auto predictions = train::evaluate(*judge.loaded.model, stream, kBatchTokens, false);
  Json answer{{"model", request.at("model")},
              {"data", file},
              {"examples", examples.size()},
              {"metrics", train::all_metrics(predictions)}};
  if (judge.task.kind == "classification") {
    const auto K = static_cast<int64_t>(judge.names.size());
    const auto confusion =
        torch::bincount(predictions.targets * K + predictions.scores.argmax(1), {}, K * K).view({K, K});
    answer["labels"] = judge.names;
    answer["confusion"] = Json::array();
    for (int64_t k = 0; k < K; ++k) {
      const auto row = confusion[k].contiguous();
      answer["confusion"].push_back(
          std::vector<int64_t>(row.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>() + K));
    }
  }
  if (!request.value("json", false)) {
    fmt::print("{} examples of {}\n", examples.size(), file);
    for (const auto& item : answer["metrics"].items())
      if (item.value().is_number()) fmt::print("  {:<12} {:.4f}\n", item.key(), item.value().get<double>());
  }
  return answer;
}

void predict_command(const Json& request) {
  const auto source = models::Source::open(request.at("model").get<std::string>());
  if (models::task_of(source.config, *source.architecture).kind == "causal_lm")
    return generate_command(source, request);
  const Judge judge(request.at("model"), request.value("max_length", int64_t{512}));
  const bool json = request.value("json", false);
  data::Examples piece;
  const auto add = [&](std::string_view text, std::string_view pair) {
    piece.texts.push_back(text);
    if (!request.value("pair", std::string()).empty()) piece.pairs.push_back(pair);
    if (piece.size() < kRowsAtOnce) return;
    predict_rows(judge, piece, json);
    piece = {};
  };
  for_each_text(request, add);
  if (piece.size() > 0) predict_rows(judge, piece, json);
}

}  // namespace graft::cli
