// graft evaluate and predict: a finished model on new data.
#include <fstream>
#include <iostream>

#include "cli/engine/commands.h"
#include "cli/engine/texts.h"
#include "graft/core/error.h"
#include "graft/data/dataset_files.h"
#include "graft/data/images/contact_sheet.h"
#include "graft/data/table.h"
#include "graft/features/feed.h"
#include "graft/features/image_inputs.h"
#include "graft/io/fields.h"
#include "graft/run/task_inputs.h"
#include "graft/train/supervised.h"

namespace graft::cli {
namespace {

constexpr int64_t kRowsAtOnce = 1024;
constexpr int64_t kBatchTokens = 8192;

/// A model folder that is ready to judge texts or images.
struct Judge {
  explicit Judge(const std::string& folder, int64_t wanted_length)
      : source(models::Source::open(folder)),
        kind(run::task_inputs(source, wanted_length, {})),
        task(models::task_of(source.config, *source.architecture)),
        names(models::label_names(source.config)),
        loaded(models::load(source, task, 0)) {
    GRAFT_CHECK(model, task.kind != "features" && task.kind != "masked_lm",
                "{}: has no task head ({}); give the model/ folder of a finished run.", folder,
                source.architecture->class_name(task));
    GRAFT_CHECK(model, loaded.report.fresh.empty(),
                "{}: has no weights for {}; give the model/ folder of a finished run.", folder,
                listed(loaded.report.fresh));
    loaded.model->unfreeze_only(loaded.model->all_groups());
    loaded.model->eval();
  }

  models::Source source;
  std::unique_ptr<run::TaskInputs> kind;
  models::Task task;
  std::vector<std::string> names;
  models::Loaded loaded;
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
void predict_rows(const Judge& judge, data::Examples& examples, bool json) {
  const torch::NoGradGuard no_grad;
  const bool words = judge.task.kind == "tokens";
  const auto prepared = judge.kind->prepare(*judge.loaded.model, examples, {.split = "given", .task = judge.task.kind});
  const auto& inputs = *prepared.inputs;
  const features::Feed feed(*judge.loaded.model, inputs);
  const train::Supervised stream(*judge.loaded.model, feed, judge.task.kind, judge.names, examples,
                                 prepared.alignment.first_tokens);
  std::vector<Json> rows(examples.size());
  for (const auto& batch : features::batches_by_length(inputs, kBatchTokens)) {
    const auto logits =
        train::forward_behind(*judge.loaded.model, stream.enter(batch, train::kEvaluation), std::nullopt)
            .at("logits")
            .to(torch::kCPU, torch::kFloat32);
    int64_t start = 0;
    for (size_t i = 0; i < batch.size(); ++i) {
      auto& row = rows[batch[i]];
      if (!words) {
        row = prediction(judge, logits[static_cast<int64_t>(i)]);
        continue;
      }
      row["labels"] = Json::array();
      for (const auto place : (*prepared.alignment.first_tokens)[batch[i]])
        row["labels"].push_back(place < 0 ? Json(nullptr)
                                          : Json(name_of(judge, logits[start + place].argmax().item<int64_t>())));
      start += inputs.length(batch[i]);
    }
  }
  for (int64_t i = 0; i < examples.size(); ++i) {
    const auto text = std::string(examples.texts.text(i));
    if (json) {
      Json line{{judge.kind->of_images() ? "file_name" : "text", text}};
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

/// Rows are what examples are, columns what they are taken for.
void print_confusion(const std::vector<std::string>& names, const Json& confusion) {
  constexpr size_t kMost = 20;  // classes that fit a terminal
  if (names.size() > kMost) return;
  const auto cut = [](const std::string& name, size_t width) { return name.substr(0, width); };
  fmt::print("\n{:<18}", "is \\ taken for");
  for (const auto& name : names) fmt::print("{:>9}", cut(name, 8));
  fmt::print("\n");
  for (size_t i = 0; i < names.size(); ++i) {
    fmt::print("{:<18}", cut(names[i], 17));
    for (const auto& count : confusion[i]) fmt::print("{:>9}", count.get<int64_t>());
    fmt::print("\n");
  }
}

/// The most confident mistakes, worst first, as a list and, of images, as a contact sheet in `sheet`.
Json show_mistakes(const Judge& judge, const features::Inputs& inputs, const data::Examples& examples,
                   const train::Predictions& predictions, const std::string& sheet) {
  GRAFT_CHECK(usage, judge.task.kind == "classification",
              "--mistakes: shows mistakes of classification; this model's task is {}.", judge.task.kind);
  const auto* images = dynamic_cast<const features::ImageInputs*>(&inputs);
  GRAFT_CHECK(usage, images, "--mistakes: shows images; this model takes texts.");
  constexpr int64_t kMost = 48;
  const auto [confidence, guess] = predictions.scores.softmax(1).max(1);
  const auto wrong = (guess != predictions.targets).nonzero().flatten();
  const auto order =
      wrong.index_select(0, confidence.index_select(0, wrong).argsort(/*stable=*/true, /*dim=*/0, /*descending=*/true));
  Json list = Json::array();
  std::vector<data::Tile> tiles;
  for (int64_t k = 0; k < std::min(kMost, order.numel()); ++k) {
    const auto i = order[k].item<int64_t>();
    const auto label = name_of(judge, examples.labels[i]), taken = name_of(judge, guess[i].item<int64_t>());
    const auto probability = confidence[i].item<float>();
    const auto name = std::string(examples.texts.text(i));
    list.push_back({{"example", name}, {"label", label}, {"predicted", taken}, {"probability", probability}});
    tiles.push_back({images->image(i), fmt::format("is {}\n{:.2f} {}", label, probability, taken)});
  }
  data::write_contact_sheet(sheet, tiles);
  return list;
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
  // A folder of images may hold the classes, or splits of which the test split is meant.
  const bool folder = judge.kind->of_images() && !data::is_table(file);
  (folder ? options.path : options.test) = file;
  const bool language = judge.task.kind == "causal_lm";
  GRAFT_CHECK(
      model,
      language || judge.task.kind == "regression" || static_cast<int64_t>(judge.names.size()) == judge.task.num_labels,
      "{}: does not name its {} classes, so they cannot be told in the data. Write \"label_names\", a list in the "
      "order of the classes, into {}.",
      judge.source.folder.string(), judge.task.num_labels,
      judge.source.config.contains("layout")
          ? "a graft.json beside the weights: {\"model_type\": \"resnet\", \"layout\": \"torchvision\", "
            "\"label_names\": [...]}"
          : "its config.json");
  auto dataset = judge.kind->read(options, 0, language ? std::vector<std::string>{"text"} : judge.names);
  auto& examples = dataset.test.size() > 0 ? dataset.test : dataset.validation;
  const auto prepared = judge.kind->prepare(*judge.loaded.model, examples, {.split = "given", .task = judge.task.kind});
  const features::Feed feed(*judge.loaded.model, *prepared.inputs);
  const auto stream =
      train::task_stream(*judge.loaded.model, feed, judge.task.kind, judge.names, examples, prepared.alignment);
  const auto predictions = train::evaluate(*judge.loaded.model, *stream, kBatchTokens, false);
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
  if (const auto sheet = request.value("mistakes", std::string()); !sheet.empty())
    answer["mistakes"] = show_mistakes(judge, *prepared.inputs, examples, predictions, sheet);
  if (!request.value("json", false)) {
    fmt::print("{} examples of {}\n", examples.size(), file);
    for (const auto& item : answer["metrics"].items())
      if (item.value().is_number()) fmt::print("  {:<12} {:.4f}\n", item.key(), item.value().get<double>());
    if (answer.contains("confusion")) print_confusion(judge.names, answer["confusion"]);
    for (const auto& m : answer.value("mistakes", Json::array()))
      fmt::print("{:.3f}  {} is {}, taken for {}\n", m["probability"].get<double>(), m["example"].get<std::string>(),
                 m["label"].get<std::string>(), m["predicted"].get<std::string>());
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
  if (judge.kind->of_images()) {
    const auto file = request.value("file", std::string("-"));
    std::vector<std::string> given;
    if (file != "-") given.push_back(file);
    for (std::string line; file == "-" && std::getline(std::cin, line);)
      if (!line.empty()) given.push_back(line);
    auto listed = judge.kind->list(given);
    for (int64_t i = 0; i < listed.size(); ++i) add(listed.texts.text(i), "");
  } else {
    for_each_text(request, add);
  }
  if (piece.size() > 0) predict_rows(judge, piece, json);
}

}  // namespace graft::cli
