// Streams that pass everything on to another one but for the part that a test changes.
#pragma once

#include "graft/core/interrupt.h"
#include "graft/train/stream.h"

namespace graft::tests {

struct Through : train::Stream {
  explicit Through(const train::Stream& stream) : stream(stream) {}
  int64_t size() const override { return stream.size(); }
  int64_t rows(int64_t example) const override { return stream.rows(example); }
  std::map<std::string, train::Activations> enter(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    return stream.enter(examples, epoch);
  }
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    return stream.weight(examples, epoch);
  }
  torch::Tensor loss_sum(const train::Outputs& outputs, const std::vector<int64_t>& examples,
                         uint64_t epoch) const override {
    return stream.loss_sum(outputs, examples, epoch);
  }
  train::Predictions predictions() const override { return stream.predictions(); }
  void collect(const train::Outputs& outputs, const std::vector<int64_t>& examples,
               train::Predictions& into) const override {
    stream.collect(outputs, examples, into);
  }
  const train::Stream& stream;
};

/// Throws Interrupted at the n-th step, before anything of it happened, as a signal does.
struct Stopping final : Through {
  Stopping(const train::Stream& stream, int64_t steps) : Through(stream), left(steps) {}
  double weight(const std::vector<int64_t>& examples, uint64_t epoch) const override {
    if (left-- == 0) throw Interrupted(15);
    return Through::weight(examples, epoch);
  }
  mutable int64_t left;
};

}  // namespace graft::tests
