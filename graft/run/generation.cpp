#include "graft/run/generation.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/core/random.h"
#include "graft/io/file.h"

namespace graft::run {
namespace {

constexpr size_t kContext = 4;  // prompt tokens that are decoded too: what a token reads as depends on its neighbour

void add_ends(const Json& config, std::set<int32_t>& ends) {
  if (!config.contains("eos_token_id")) return;
  const auto& id = config["eos_token_id"];
  if (id.is_number_integer()) ends.insert(id.get<int32_t>());
  if (id.is_array())
    for (const auto& one : id)
      if (one.is_number_integer()) ends.insert(one.get<int32_t>());
}

/// How much of the end of `text` might be the beginning of a stop text.
size_t held_back(const std::string& text, const std::vector<std::string>& stops) {
  size_t most = 0;
  for (const auto& stop : stops)
    for (size_t n = std::min(stop.size() - 1, text.size()); n > most; --n)
      if (text.ends_with(std::string_view(stop).substr(0, n))) most = n;
  return most;
}

/// Bytes at the end that are not a whole character yet: the decoder writes U+FFFD for them.
size_t unfinished(const std::string& text) { return text.ends_with("\uFFFD") ? std::string("\uFFFD").size() : 0; }

/// One prompt on its way.
struct Sequence {
  int64_t index = 0;
  std::vector<int32_t> context;  // last tokens of the prompt
  std::string before;            // these as text
  Generated result;
  size_t told = 0;  // bytes of the text that were handed on
};

}  // namespace

void check(const GenerationOptions& o) {
  std::vector<std::string> mistakes;
  const auto expect = [&](bool good, const std::string& key, const std::string& expected, double found) {
    if (!good) mistakes.push_back(fmt::format("{}: expected {}, found {:g}", key, expected, found));
  };
  expect(o.max_new_tokens >= 1, "max-new-tokens", "at least 1", static_cast<double>(o.max_new_tokens));
  expect(o.temperature >= 0, "temperature", "at least 0", o.temperature);
  expect(o.top_k >= 0, "top-k", "at least 0", static_cast<double>(o.top_k));
  expect(o.top_p > 0 && o.top_p <= 1, "top-p", "above 0, at most 1", o.top_p);
  expect(o.batch_size >= 1, "batch-size", "at least 1", static_cast<double>(o.batch_size));
  for (const auto& stop : o.stop)
    if (stop.empty()) mistakes.push_back("stop: expected a text, found an empty one");
  GRAFT_CHECK(usage, mistakes.empty(), "{}", listed(mistakes));
}

int32_t choose(const torch::Tensor& logits, const GenerationOptions& o, double uniform) {
  if (o.temperature == 0) return static_cast<int32_t>(logits.argmax().item<int64_t>());
  auto [values, ids] = (logits.to(torch::kCPU, torch::kFloat64) / o.temperature).sort(0, /*descending=*/true);
  if (o.top_k > 0) values = values.narrow(0, 0, std::min(o.top_k, values.size(0)));
  auto p = values.softmax(0).contiguous();
  // The likeliest tokens until they make up top_p, the one that crosses it counted.
  const auto* share = p.const_data_ptr<double>();
  int64_t count = 0;
  double total = 0;
  while (count < p.numel() && (count == 0 || total < o.top_p)) total += share[count++];
  double left = uniform * total;
  int64_t place = 0;
  while (place + 1 < count && left >= share[place]) left -= share[place++];
  return static_cast<int32_t>(ids[place].item<int64_t>());
}

Generator::Generator(models::Model& model, const models::Source& source, const data::Tokenizer& tokenizer,
                     const GenerationOptions& options)
    : model_([&]() -> models::DecoderModel& {
        auto* decoder = dynamic_cast<models::DecoderModel*>(&model);
        GRAFT_CHECK(model, decoder, "{}: `{}` is no decoder, so it cannot go on with a text.", source.folder.string(),
                    source.architecture->model_type);
        return *decoder;
      }()),
      tokenizer_(tokenizer),
      options_(options) {
  check(options);
  add_ends(source.config, ends_);
  if (const auto file = source.folder / "generation_config.json"; std::filesystem::exists(file)) {
    const auto settings = Json::parse(io::read_file(file), nullptr, false);
    GRAFT_CHECK(model, settings.is_object(), "{}: is not a JSON object. Download the model again, or remove the file.",
                file.string());
    add_ends(settings, ends_);
  }
  if (const auto end = tokenizer.special_id("eos_token")) ends_.insert(*end);
}

std::vector<Generated> Generator::generate(const std::vector<std::string>& prompts, int64_t first,
                                           const OnText& on_text, bool add_special_tokens) {
  const torch::NoGradGuard no_grad;
  std::vector<Generated> results(prompts.size());
  std::vector<Sequence> running;
  std::vector<std::vector<int32_t>> next;
  const auto context = model_.max_tokens();
  int64_t longest = 0;
  const std::vector<std::string_view> views(prompts.begin(), prompts.end());
  for (auto& encoding : tokenizer_.encode_batch(views, {}, {.add_special_tokens = add_special_tokens})) {
    const auto index = static_cast<int64_t>(running.size());
    const auto length = static_cast<int64_t>(encoding.ids.size());
    GRAFT_CHECK(data, length > 0, "prompt {}: is empty; give at least one token to go on from.", first + index + 1);
    GRAFT_CHECK(data, length < context,
                "prompt {}: has {} tokens, and the model's context of {} leaves no room to go on. Shorten the prompt.",
                first + index + 1, length, context);
    Sequence sequence{.index = index};
    sequence.context.assign(encoding.ids.end() - static_cast<int64_t>(std::min(kContext, encoding.ids.size())),
                            encoding.ids.end());
    sequence.before = tokenizer_.decode(sequence.context, true);
    running.push_back(std::move(sequence));
    next.push_back(std::move(encoding.ids));
    longest = std::max(longest, length);
  }
  if (running.empty()) return results;
  std::vector<int64_t> room;
  for (const auto& ids : next)
    room.push_back(std::min(options_.max_new_tokens, context - static_cast<int64_t>(ids.size())));
  nn::KeyValueCache cache(model_.num_layers(), static_cast<int64_t>(running.size()),
                          std::min(longest + options_.max_new_tokens, context));

  const auto read = [&](Sequence& s) {
    auto ids = s.context;
    ids.insert(ids.end(), s.result.ids.begin(), s.result.ids.end());
    const auto text = tokenizer_.decode(ids, true);
    s.result.text = text.size() > s.before.size() ? text.substr(s.before.size()) : "";
  };
  const auto tell = [&](Sequence& s, bool finished) {
    if (!on_text) return;
    auto end = s.result.text.size();
    if (!finished) end -= std::max(held_back(s.result.text, options_.stop), unfinished(s.result.text));
    if (end <= s.told) return;
    on_text(first + s.index, s.result.text.substr(s.told, end - s.told));
    s.told = end;
  };

  for (uint64_t step = 0; !running.empty(); ++step) {
    stop_if_interrupted();
    const auto logits = model_.extend(next, cache).to(torch::kCPU, torch::kFloat32);
    std::vector<int64_t> going;
    next.clear();
    for (size_t b = 0; b < running.size(); ++b) {
      auto& s = running[b];
      auto& r = s.result;
      Random random(
          seed_of(static_cast<uint64_t>(options_.seed), {"generate"}, {static_cast<uint64_t>(first + s.index), step}));
      const auto id = choose(logits[static_cast<int64_t>(b)], options_, random.uniform());
      r.ids.push_back(id);
      if (ends_.contains(id)) r.reason = "end";
      if (on_text || !options_.stop.empty()) read(s);
      size_t at = std::string::npos;
      for (const auto& stop : options_.stop) at = std::min(at, r.text.find(stop));
      if (at != std::string::npos) {
        r.text.resize(at);
        r.reason = "stop";
      }
      if (r.reason.empty() && static_cast<int64_t>(r.ids.size()) >= room[s.index]) r.reason = "length";
      if (r.reason.empty()) {
        tell(s, false);
        going.push_back(static_cast<int64_t>(b));
        next.push_back({id});
        continue;
      }
      if (!on_text && options_.stop.empty()) read(s);
      tell(s, true);
      results[s.index] = std::move(r);
    }
    if (going.size() == running.size()) continue;
    std::vector<Sequence> left;
    for (const auto b : going) left.push_back(std::move(running[b]));
    running = std::move(left);
    if (!running.empty()) cache.keep(going);
  }
  return results;
}

}  // namespace graft::run
