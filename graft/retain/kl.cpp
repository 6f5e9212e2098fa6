#include "graft/retain/kl.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/models/device.h"
#include "graft/models/lora.h"
#include "graft/train/batches.h"

namespace graft::retain {
namespace {

models::LanguageHead& language_head(const models::Model& model) {
  auto* head = dynamic_cast<models::LanguageHead*>(model.head.get());
  GRAFT_ASSERT(head, "KL is of language heads");
  return *head;
}

const models::Chain& text_chain(const models::Model& model) {
  GRAFT_ASSERT(model.chains.size() == 1, "a language model is one chain");
  return model.chains.front();
}

/// Whether the blocks of both compute the same; adapters apart, which begin as nothing.
bool same_blocks(const models::Model& source, const models::Model& model) {
  const auto equal = [&](const auto& of_source, const auto& of_model) {
    for (const auto& item : of_source) {
      if (source.group_of(item.key()) == "head") continue;
      const auto* other = of_model.find(item.key());
      if (!other || other->sizes() != item.value().sizes() || !torch::equal(*other, item.value())) return false;
    }
    return true;
  };
  return equal(source.parameters_by_key(), model.parameters_by_key()) &&
         equal(source.buffers_by_key(), model.buffers_by_key());
}

/// Evaluation mode while it lives.
struct Resting {
  explicit Resting(models::Model& model) : model(model), training(model.is_training()) {
    if (training) model.eval();
  }
  ~Resting() {
    if (training) model.train();
  }
  models::Model& model;
  bool training;
};

}  // namespace

Teacher::Teacher(const models::Model& model, Load load, Enter enter)
    : model_(model), load_(std::move(load)), enter_(std::move(enter)) {
  const torch::NoGradGuard no_grad;
  const auto source = whole();
  kind_ = !same_blocks(*source, model) ? Kind::whole : models::has_adapters(model) ? Kind::adapters_off : Kind::suffix;
}

std::shared_ptr<models::Model> Teacher::whole() const {
  auto source = load_();
  source->unfreeze_only({});
  source->eval();
  return source;
}

void keep_behind(models::Model& source, int64_t block) {
  std::set<std::string> needed{"head"};
  const auto& blocks = text_chain(source).blocks;
  for (auto i = static_cast<size_t>(block); i < blocks.size(); ++i)
    for (const auto* groups : {&blocks[i].groups, &blocks[i].uses}) needed.insert(groups->begin(), groups->end());
  for (const auto& group : source.head->uses()) needed.insert(group);
  for (auto& item : source.parameters_by_key())
    if (!needed.contains(source.group_of(item.key()))) item.value().set_data(torch::empty({0}, item.value().options()));
}

void Teacher::keep(int64_t block) {
  if (source_ && from_ <= block) return;
  source_ = whole();
  from_ = block;
  keep_behind(*source_, block);
  if (kind_ != Kind::adapters_off) return;
  // The weights beside adapters never move, so both may have them.
  const auto of_model = model_.parameters_by_key();
  for (auto& item : source_->parameters_by_key())
    if (item.value().numel() > 0 && source_->group_of(item.key()) != "head")
      item.value().set_data(of_model[item.key()].detach());
}

nn::LogitsOf Teacher::answers(models::Model& source, const std::vector<int64_t>& examples) const {
  const torch::NoGradGuard no_grad;
  return language_head(source).projection(
      train::ends_behind(source, enter_(source, examples, train::kEvaluation), std::nullopt));
}

nn::LogitsOf Teacher::answers(const train::Step& step) {
  const torch::NoGradGuard no_grad;
  GRAFT_ASSERT(step.entering && step.reads);
  const auto& chain = text_chain(step.model);
  const auto blocks = static_cast<int64_t>(chain.blocks.size());
  if (kind_ == Kind::whole) {
    keep(0);
    return language_head(*source_).projection(
        train::ends_behind(*source_, enter_(*source_, step.examples, step.epoch), *step.reads));
  }
  if (kind_ == Kind::adapters_off) {
    keep(blocks);
    const models::WithoutAdapters off(step.model);
    const Resting resting(step.model);
    return language_head(*source_).projection(train::ends_behind(step.model, *step.entering, *step.reads));
  }
  const auto boundary = step.model.boundary(chain.name);
  keep(boundary);
  train::Ends ends;
  ends[chain.name] = source_->forward(chain.name, boundary, blocks, step.entering->at(chain.name),
                                      step.reads->value_or(source_->head->reads()));
  return language_head(*source_).projection(ends);
}

StoredAnswers::StoredAnswers(const Teacher& teacher, const train::Stream& stream, int64_t top_k,
                             nn::KlDirection direction, int64_t rows,
                             const std::function<void(int64_t, int64_t)>& progress)
    : start_(stream.size()), count_(stream.size()) {
  constexpr int64_t kSample = 256;
  const torch::NoGradGuard no_grad;
  const auto source = teacher.whole();
  std::vector<Tensor> ids, log_p, log_rest;
  int64_t positions = 0, done = 0;
  double exact_sum = 0, stored_sum = 0, sampled = 0;
  for (const auto& batch : train::batches_by_rows(stream, rows)) {
    stop_if_interrupted();
    const auto answers = teacher.answers(*source, batch);
    int64_t here = 0;
    for (const auto example : batch) {
      start_[example] = positions + here;
      count_[example] = static_cast<int64_t>(stream.weight({example}, train::kEvaluation));
      here += count_[example];
    }
    GRAFT_ASSERT(here == answers.hidden.size(0));
    done += static_cast<int64_t>(batch.size());
    if (progress) progress(done, stream.size());
    if (here == 0) continue;
    positions += here;
    const auto likely = nn::most_likely(answers, top_k);
    ids.push_back(likely.ids);
    log_p.push_back(likely.log_p);
    log_rest.push_back(likely.log_rest);
    if (sampled >= kSample) continue;
    torch::manual_seed(done);
    auto disturbed = answers;
    disturbed.hidden = answers.hidden + 0.1 * answers.hidden.norm(2, {1}, true) /
                                            std::sqrt(static_cast<double>(answers.hidden.size(1))) *
                                            torch::randn_like(answers.hidden);
    exact_sum += nn::chunked_kl(disturbed, answers, direction).item<double>();
    stored_sum += nn::chunked_kl(disturbed, likely, direction).item<double>();
    sampled += static_cast<double>(here);
  }
  GRAFT_CHECK(data, positions > 0,
              "retain.kl: no token of the {} training examples counts, so there is nothing to hold.", stream.size());
  all_ = {torch::cat(ids), torch::cat(log_p), torch::cat(log_rest)};
  exact = exact_sum / sampled;
  stored = stored_sum / sampled;
}

nn::MostLikely StoredAnswers::of(const std::vector<int64_t>& examples) const {
  std::vector<int64_t> rows;
  for (const auto example : examples)
    for (int64_t i = 0; i < count_[example]; ++i) rows.push_back(start_[example] + i);
  const auto index = torch::tensor(rows, torch::kInt64);
  const auto of = [&](const Tensor& all) {
    return models::placed(all.index_select(0, index), models::compute_device());
  };
  return {of(all_.ids), of(all_.log_p), of(all_.log_rest)};
}

int64_t StoredAnswers::bytes() const {
  return static_cast<int64_t>(all_.ids.nbytes() + all_.log_p.nbytes() + all_.log_rest.nbytes());
}

nn::KlDirection kl_direction(const std::string& name) {
  return name == "source_tuned" ? nn::KlDirection::source_tuned : nn::KlDirection::tuned_source;
}

Kl::Kl(const KlOptions& options, std::shared_ptr<Teacher> teacher, std::shared_ptr<const StoredAnswers> stored)
    : options_(options),
      direction_(kl_direction(options.direction)),
      teacher_(std::move(teacher)),
      stored_(std::move(stored)) {
  begin_phase();
}

void Kl::begin_phase() { now_ = {.coefficient = options_.coefficient * strengthened_}; }

std::optional<double> Kl::strengthen(double factor) {
  if (options_.target > 0) return {};
  strengthened_ *= factor;
  return now_.coefficient = options_.coefficient * strengthened_;
}

nn::ChunkLoss Kl::divergence(const train::Step& step) {
  return stored_ ? nn::kl_to(stored_->of(step.examples), direction_) : nn::kl_to(teacher_->answers(step), direction_);
}

void Kl::before_head(const train::Step& step) {
  joined_.reset();
  auto& head = language_head(step.model);
  const auto& kept = step.ends.begin()->second.kept;
  if (!head.has_chunks() || !kept.contains("labels")) return;
  joined_.emplace();
  head.beside = [this, divergence = divergence(step)](nn::Block block) {
    const auto began = std::chrono::steady_clock::now();
    block.weight *= now_.coefficient;
    const auto sum = divergence(block);
    joined_->sum += sum.item<double>();
    joined_->rows += block.log_p.size(0);
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    return sum;
  };
}

Tensor Kl::value(const train::Step& step) {
  Tensor mean;
  double sum = 0, rows = 0;
  if (joined_) {
    sum = joined_->sum, rows = static_cast<double>(joined_->rows);
    joined_.reset();
    if (rows == 0) return {};
    mean = torch::tensor(sum / rows, torch::kFloat32);
  } else {
    const auto mine = language_head(step.model).projection(step.ends);
    const bool learns = mine.hidden.requires_grad() || mine.matrix.requires_grad() ||
                        (mine.bias.defined() && mine.bias.requires_grad());
    rows = static_cast<double>(mine.hidden.size(0));
    if (rows == 0 || !learns) return {};
    const auto total = nn::chunked_sum(mine, divergence(step));
    sum = total.item<double>();
    mean = total / rows;
  }
  now_.sum += sum;
  now_.count += rows;
  return now_.coefficient * mean;
}

double Kl::add_gradients(const train::WholeStep& step) {
  constexpr double kMostError = 0.2, kGain = 0.1;
  if (step.step == 0) now_.epoch_sum = now_.epoch_count = 0;
  if (now_.count == 0) return 0;
  now_.epoch_sum += now_.sum;
  now_.epoch_count += now_.count;
  if (options_.target > 0) {
    const double error = now_.sum / now_.count / options_.target - 1;
    now_.coefficient *= 1 + kGain * std::clamp(error, -kMostError, kMostError);
  }
  now_.sum = now_.count = 0;
  return 0;
}

Json Kl::facts() const {
  return {{"coefficient", now_.coefficient}, {"kl", now_.epoch_count > 0 ? now_.epoch_sum / now_.epoch_count : 0.0}};
}

Json Kl::state() const {
  return {{"coefficient", now_.coefficient}, {"strengthened", strengthened_},  {"sum", now_.sum}, {"count", now_.count},
          {"epoch_sum", now_.epoch_sum},     {"epoch_count", now_.epoch_count}};
}

void Kl::load_state(const Json& state) {
  strengthened_ = state.at("strengthened");
  now_ = {state.at("coefficient"), state.at("sum"), state.at("count"), state.at("epoch_sum"), state.at("epoch_count")};
}

}  // namespace graft::retain
