#include "graft/run/memory.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>

namespace graft::run {
namespace {

constexpr int64_t kWide = 4, kHalf = 2, kMoments = 2 * kWide;

double at(const Growth& growth, int64_t rows) { return growth.fixed + growth.per_row * static_cast<double>(rows); }

std::string gigabytes(int64_t bytes) { return fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9); }

bool happens(const PhaseShape& phase, const MemoryChoices& c) {
  if (phase.for_report) return c.report;
  return phase.phase == "full" ? c.full : phase.units <= c.max_units;
}

}  // namespace

PhaseBytes bytes_of(const MemoryShape& shape, const PhaseShape& phase, const MemoryChoices& c) {
  const auto matrix = c.weights == "float32" ? kWide : kHalf;
  const bool masters = c.weights == "bfloat16", mapped = matrix == kWide ? shape.mapped : shape.mapped_half;
  PhaseBytes b;
  int64_t all = 0;
  for (const auto& [group, own] : shape.groups) {
    const auto bytes = own.matrices * matrix + own.others * kWide;
    all += bytes;
    b.weights += bytes;
    if (!phase.trainable.contains(group)) {
      if (mapped) b.mapped += bytes;
      continue;
    }
    if (c.adapters && group != "head") {  // they learn in the group's place, in float32
      const auto found = shape.adapters.find(group);
      const auto learned = found == shape.adapters.end() ? 0 : found->second;
      if (mapped) b.mapped += bytes;
      b.weights += learned * kWide;
      b.gradients += learned * kWide;
      b.best += learned * kWide;
      b.optimizer += learned * kMoments;
      continue;
    }
    b.gradients += bytes;
    b.best += bytes;
    b.optimizer += (own.matrices + own.others) * kMoments + (masters ? own.matrices * kWide : 0);
  }
  int64_t numbers = 0;
  for (const auto& item : shape.groups) numbers += item.second.matrices + item.second.others;
  b.other = shape.process + shape.anchors * numbers * kWide;
  if (phase.second_model) b.other += phase.for_report ? (shape.mapped ? 0 : numbers * kWide) : all;
  const auto rows = std::min(phase.rows, std::max(c.micro_batch_tokens, phase.longest));
  b.activations = static_cast<int64_t>(std::max(at(c.checkpointing ? phase.checkpointed : phase.step, rows),
                                                at(phase.evaluation, phase.evaluation_rows)));
  return b;
}

Need largest_need(const MemoryShape& shape, const MemoryChoices& choices) {
  Need most;
  for (const auto& phase : shape.phases)
    if (happens(phase, choices))
      if (const auto bytes = bytes_of(shape, phase, choices).total(); bytes > most.bytes) most = {phase.phase, bytes};
  return most;
}

Remedy remedy(const MemoryShape& shape, const MemoryChoices& now, int64_t available) {
  const auto fits = [&](const MemoryChoices& c) { return largest_need(shape, c).bytes <= available; };
  int64_t longest = 1, rows = 0, units = 0;
  for (const auto& phase : shape.phases) {
    longest = std::max(longest, phase.longest);
    rows = std::max(rows, phase.rows);
    if (phase.phase != "full") units = std::max(units, phase.units);
  }
  // In the order of what they cost: time, then accuracy.
  using Change =
      std::function<std::string(MemoryChoices&)>;  // turns a key and says so; "" when there is nothing to turn
  const std::vector<Change> changes{[](MemoryChoices& c) -> std::string {
                                      if (c.checkpointing) return "";
                                      c.checkpointing = true;
                                      return "train.activation_checkpointing=true";
                                    },
                                    [&](MemoryChoices& c) -> std::string {
                                      auto tokens = std::min(c.micro_batch_tokens, rows);
                                      const auto before = tokens;
                                      while (tokens / 2 >= longest && (tokens == before || !fits(c)))
                                        c.micro_batch_tokens = tokens /= 2;
                                      return tokens == before ? "" : fmt::format("train.micro_batch_tokens={}", tokens);
                                    },
                                    [](MemoryChoices& c) -> std::string {
                                      if (!c.report) return "";
                                      c.report = false;
                                      return "retain.report=false";
                                    },
                                    [&](MemoryChoices& c) -> std::string {
                                      if (c.weights == "bfloat16_stochastic" || shape.anchors > 0) return "";
                                      c.weights = "bfloat16_stochastic";
                                      return "train.weights=\"bfloat16_stochastic\"";
                                    },
                                    [&](MemoryChoices& c) -> std::string {
                                      if (shape.adapters.empty() || c.adapters || shape.anchors > 0) return "";
                                      c.adapters = true;
                                      return fmt::format("lora.rank={}", shape.adapter_rank);
                                    },
                                    [&](MemoryChoices& c) -> std::string {
                                      auto most = std::min(c.max_units, units);
                                      if (!c.full && most == 0) return "";
                                      c.full = false;
                                      for (c.max_units = most; c.max_units > 0 && !fits(c);) --c.max_units;
                                      return fmt::format("finetune.unfreeze.max_units={} finetune.full.when=\"never\"",
                                                         c.max_units);
                                    }};
  for (const auto& change : changes) {
    auto c = now;
    if (const auto setting = change(c); !setting.empty() && fits(c)) return {{setting}, largest_need(shape, c)};
  }
  Remedy together;
  auto c = now;
  for (const auto& change : changes) {
    const auto before = largest_need(shape, c).bytes;
    auto turned = c;
    const auto setting = change(turned);
    if (setting.empty() || largest_need(shape, turned).bytes >= before) continue;
    c = turned;
    together.settings.push_back(setting);
    if (fits(c)) return together.need = largest_need(shape, c), together;
  }
  return {};
}

Json memory_verdict(const MemoryShape& shape, const MemoryChoices& choices, int64_t available) {
  const auto need = largest_need(shape, choices);
  const bool fits = need.bytes <= available;
  Json verdict{{"available_bytes", available}, {"needed_bytes", need.bytes}, {"phase", need.phase}, {"fits", fits}};
  if (fits) {
    verdict["sentence"] = fmt::format("It fits: at most {} in phase {}, and {} can be had.", gigabytes(need.bytes),
                                      need.phase, gigabytes(available));
    return verdict;
  }
  const auto cure = remedy(shape, choices, available);
  verdict["settings"] = cure.settings;
  verdict["sentence"] =
      fmt::format("It does not fit: phase {} needs {}, and {} can be had. ", need.phase, gigabytes(need.bytes),
                  gigabytes(available)) +
      (cure.settings.empty() ? std::string("No setting makes it fit; take a smaller source, or a larger machine.")
                             : fmt::format("With {} it needs {} and fits.", fmt::join(cure.settings, " and "),
                                           gigabytes(cure.need.bytes)));
  return verdict;
}

Json to_json(const PhaseBytes& b) {
  return {{"weights", b.weights},     {"mapped", b.mapped}, {"gradients", b.gradients},
          {"optimizer", b.optimizer}, {"best", b.best},     {"activations", b.activations},
          {"other", b.other},         {"total", b.total()}};
}

}  // namespace graft::run
