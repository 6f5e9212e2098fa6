// graft forward, check and tokenize: what a model and its tokenizer compute, to be held against others.
#include <chrono>
#include <iostream>

#include "cli/engine/commands.h"
#include "graft/core/error.h"
#include "graft/data/language/language_examples.h"
#include "graft/data/language/language_rows.h"
#include "graft/data/table.h"
#include "graft/data/tokenizers/tokenizer.h"
#include "graft/io/safetensors.h"
#include "graft/models/forward.h"

namespace graft::cli {
namespace {

using Named = std::map<std::string, torch::Tensor>;

Named read_tensors(const std::string& file) {
  Named tensors;
  for (const auto& [name, view] : io::read_safetensors(file).tensors) tensors[name] = models::to_tensor(name, view);
  return tensors;
}

}  // namespace

Json forward_command(const Json& request) {
  const auto source = models::Source::open(request.at("model").get<std::string>());
  const auto inputs = read_tensors(request.at("inputs"));
  const auto gradients = request.value("gradients", std::string());
  Json seconds = Json::array();
  models::Computed computed;
  for (int64_t i = 0; i < std::max<int64_t>(1, request.value("repeat", int64_t{1})); ++i) {
    const auto start = std::chrono::steady_clock::now();
    computed = models::compute(source, inputs, !gradients.empty());
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  if (!computed.fresh.empty()) fmt::print(stderr, "warning: not in the file, so random: {}\n", listed(computed.fresh));
  io::write_safetensors(request.at("outputs").get<std::string>(), models::to_views(computed.outputs));
  if (!gradients.empty()) io::write_safetensors(gradients, models::to_views(computed.gradients));
  Json answer{{"outputs", Json::object()}, {"seconds", seconds}};
  for (const auto& [name, value] : computed.outputs) answer["outputs"][name] = value.sizes().vec();
  if (!request.value("json", false))
    for (const auto& [name, value] : computed.outputs) fmt::print("{} {}\n", name, io::shape_text(value.sizes().vec()));
  return answer;
}

Json check_command(const Json& request) {
  at::set_num_threads(1);
  const auto source = models::Source::open(request.at("model").get<std::string>());
  const auto golden = read_tensors(request.at("golden"));
  const double tolerance = request.value("tolerance", 1e-5);
  Named inputs, expected;
  bool gradients = false;
  for (const auto& [name, value] : golden) {
    const bool is_input = name == "input_ids" || name == "attention_mask" || name == "token_type_ids" ||
                          name == "position_ids" || name == "valid" || name == "pixel_values" || name == "x" ||
                          name == "noise" || name.starts_with("cotangent.");
    (is_input ? inputs : expected)[name] = value;
    gradients = gradients || name.starts_with("grad.");
  }
  GRAFT_CHECK(data, !expected.empty(), "{}: holds inputs only; give a dump that has the reference's outputs too.",
              request.at("golden").get<std::string>());
  const auto computed = models::compute(source, inputs, gradients);
  auto ours = computed.outputs;
  ours.insert(computed.gradients.begin(), computed.gradients.end());
  Json answer{{"tensors", Json::array()}, {"equal", true}};
  std::string first;
  double largest_gradient = 0;
  for (const auto& [name, value] : expected)
    if (name.starts_with("grad.")) largest_gradient = std::max(largest_gradient, value.abs().max().item<double>());
  for (const auto& [name, value] : expected) {
    Json row{{"name", name}};
    const auto found = ours.find(name);
    if (found == ours.end() || found->second.sizes() != value.sizes()) {
      row["problem"] = found == ours.end()
                           ? "not computed"
                           : fmt::format("shape {}, the reference has {}", io::shape_text(found->second.sizes().vec()),
                                         io::shape_text(value.sizes().vec()));
    } else {
      auto difference = (found->second - value).abs();
      if (golden.contains("valid") && value.dim() >= 2 && value.size(0) == golden.at("valid").size(0) &&
          value.size(1) == golden.at("valid").size(1))
        difference = difference * golden.at("valid").unsqueeze(-1);
      const double scale = name.starts_with("grad.") ? largest_gradient : value.abs().max().item<double>();
      const double relative = difference.max().item<double>() / std::max(scale, 1e-30);
      row["difference"] = relative;
      if (relative > tolerance) {
        auto place = difference.argmax().item<int64_t>();
        std::vector<int64_t> index(value.dim());
        for (int64_t d = value.dim() - 1; d >= 0; --d) index[d] = place % value.size(d), place /= value.size(d);
        row["problem"] =
            fmt::format("differs by {:.2e} of the largest value, most at {}", relative, io::shape_text(index));
      }
    }
    if (row.contains("problem") && first.empty()) first = name + ": " + row["problem"].get<std::string>();
    answer["tensors"].push_back(row);
  }
  answer["equal"] = first.empty();
  if (!first.empty()) answer["first"] = first;
  answer["exit"] = first.empty() ? 0 : static_cast<int>(Kind::model);
  if (!request.value("json", false)) {
    for (const auto& row : answer["tensors"])
      fmt::print("{:<70} {}\n", row["name"].get<std::string>(),
                 row.contains("problem") ? row["problem"].get<std::string>()
                                         : fmt::format("{:.2e}", row["difference"].get<double>()));
    fmt::print("{}\n", first.empty() ? fmt::format("all {} tensors agree within {:g}", expected.size(), tolerance)
                                     : "first difference: " + first);
  }
  return answer;
}

namespace {

/// A row of instruction data as training sees it: `labels` has the token that each place predicts, -100 for none.
void show_learned(const data::Tokenizer& tokenizer, const data::Row& row) {
  data::Ragged<char> rows;
  rows.push_back(data::language_row("standard input", row, "text"));
  const auto limit = row.cells.value("max_length", int64_t{1} << 30);
  const auto examples = data::language_examples(tokenizer, rows, {}, limit, 0, "given");
  const auto list = [](const auto& values) { return std::vector<int32_t>(values.begin(), values.end()); };
  std::cout << Json{{"ids", list(examples.ids[0])}, {"labels", list(examples.labels[0])}}.dump() << "\n";
}

}  // namespace

void tokenize_command(const Json& request) {
  const auto tokenizer = data::Tokenizer::load(request.at("model").get<std::string>());
  int64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    if (line.empty()) continue;
    const auto row = Json::parse(line, nullptr, false);
    if (row.is_object() && (row.contains("messages") || (row.contains("prompt") && row.contains("completion")))) {
      show_learned(tokenizer, {.number = number, .cells = row});
      continue;
    }
    if (!row.is_object() || !row.contains("text") || !row["text"].is_string())
      data::fail_row("standard input", number, "text",
                     "expected a JSON object with a text, such as {\"text\": \"...\"}.");
    data::Tokenizer::Options options;
    options.details = true;
    if (row.contains("max_length") && row["max_length"].is_number_integer())
      options.max_length = row["max_length"].get<int64_t>();
    const auto text = row["text"].get<std::string>();
    const auto encoding = row.contains("pair") && row["pair"].is_string()
                              ? tokenizer.encode(text, row["pair"].get<std::string>(), options)
                              : tokenizer.encode(text, options);
    Json offsets = Json::array();
    for (const auto& [begin, end] : encoding.offsets) offsets.push_back({begin, end});
    std::cout << Json{{"ids", encoding.ids}, {"type_ids", encoding.type_ids}, {"offsets", offsets}}.dump() << "\n";
  }
}

}  // namespace graft::cli
