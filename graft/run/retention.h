// What a run keeps of its source and what it loses: the [retain] section made into loss terms, and the forgetting report.
// The source is judged by a probe: the source's architecture with its own head, into which the tuned blocks are copied.
#pragma once

#include "graft/features/feed.h"
#include "graft/report/progress.h"
#include "graft/retain/anchors.h"
#include "graft/retain/answers.h"
#include "graft/retain/drift.h"
#include "graft/retain/kl.h"
#include "graft/retain/options.h"
#include "graft/run/task_inputs.h"
#include "graft/train/loss_term.h"

namespace graft::run {

/// Which examples a model is asked: those of the report, or those that choices are made by (points, strengths). Choices
/// have the source's validation data, or a seeded half of what there is, so that the report is of none that chose.
enum class Asked { report, choice };

/// A model that knew something, with the data to ask it.
class SourceKnowledge {
 public:
  /// Loads the source with its own head, and reads what it is asked with: labelled examples, or general text.
  /// Throws Kind::usage when `options.source_data` is given for a source without a task head that it fits, or
  /// `options.corpus` for one without a language head.
  SourceKnowledge(models::Source source, const retain::RetainOptions& options, int64_t max_length,
                  const data::ImageOptions& images, uint64_t seed, report::Progress& progress);

  /// Unlabelled examples that the model is compared with itself on, where there are no labelled ones; must outlive this.
  void compare_on(const features::Inputs& inputs);
  /// The same with the labelled examples.
  void compare_on_source_data() { compare_on(*asked_[0].prepared.inputs); }

  /// What the source's own head makes of `model`'s blocks: `metric` and its value on the source's data (on general text its
  /// perplexity, of masked tokens where it fills masks); with examples to compare on also `agreement` with the source's
  /// outputs and, in a report, `cka`, the drift of the features. `head`: the model has the source's head itself. Throws
  /// Kind::model where the model's blocks are of other shapes than the source's.
  Json measure(const models::Model& model, bool head, Asked asked = Asked::report);
  /// The same of the source as it came.
  Json original(Asked asked = Asked::report);
  /// Gives back the memory of the probe's blocks, which from now on only borrows those of `model` (and, with `head`, its
  /// head); for when nothing but measure() and weights() is still to come.
  void release(const models::Model& model, bool head);

  /// The Fisher of the source, by `options.ewc.labels`; of `proxy`, a stream on the probe, where it has no data of its own.
  /// `inputs`: the proxy's, which a source that fills masks is given masked.
  retain::Anchors fisher(const train::Stream* proxy, const features::Inputs* inputs = nullptr);
  /// Replay for `model`, nullptr when the recipe wants none; of general text also, or only, to hold the divergence from the
  /// source there. `model` is as its training begins. `head`: it has the source's head itself.
  std::shared_ptr<train::LossTerm> replay(models::Model& model, bool head);
  /// What replay reads, after replay(); null without.
  features::Feed* replayed() { return replay_feed_.get(); }
  /// Where the source's answers to `inputs` are kept, for a model whose head reads `reads`; "" where stores are off.
  std::filesystem::path answers_file(const features::Inputs& inputs, const models::Reads& reads,
                                     const std::filesystem::path& folder, const features::StoreOptions& store) const;
  /// These answers, from `file` if they are there. `feed` is of the probe.
  retain::Answers answers(const features::Feed& feed, const models::Reads& reads, const std::filesystem::path& file);

  using StreamOn = std::function<std::shared_ptr<train::Stream>(models::Model&)>;
  /// The divergence from the source for `model`, which is as its training begins; nullptr when the recipe wants none.
  /// `head`: the model has the source's language head. `stream_on` gives what it trains on, for any model of its family;
  /// `fixed`: the same in each epoch, so that answers can be stored. Throws Kind::usage where it is not possible.
  std::shared_ptr<train::LossTerm> kl(const models::Model& model, bool head, const StreamOn& stream_on, bool fixed);

  /// The source's parameters and buffers by key; with its head when `head`.
  std::map<std::string, models::Tensor> weights(bool head) const;

  /// SHA-256 of the source's data or general text; "" without.
  const std::string& data_hash() const { return data_.hash; }
  bool has_data() const { return asked_[0].prepared.inputs || corpus_.held_out; }
  const models::Task& task() const { return task_; }
  const std::vector<std::string>& label_names() const { return names_; }
  models::Model& probe() { return *probe_; }
  const models::Source& source() const { return source_; }

 private:
  /// What a model is asked: examples with labels, or without.
  struct Questions {
    data::Examples examples;
    Prepared prepared;
    std::vector<int64_t> compared;  // of the proxy
    retain::Seen before;
  };
  void ask(const Wanted& wanted);
  std::vector<int64_t> buffered();
  Json judged(Asked asked);
  void read_corpus(int64_t max_length);
  int64_t rows_at_once() const;
  std::shared_ptr<models::Model> load_source(torch::Dtype weights = torch::kFloat32) const;
  std::shared_ptr<retain::Teacher> teacher(const models::Model& model, const StreamOn& stream_on) const;

  models::Source source_;
  retain::RetainOptions options_;
  uint64_t seed_;
  report::Progress& progress_;
  models::Task task_;
  std::vector<std::string> names_;
  std::shared_ptr<models::Model> probe_;
  bool released_ = false;  // the probe has no blocks of its own
  std::unique_ptr<TaskInputs> kind_;
  data::Dataset data_;
  data::Examples buffer_;  // kept for replay
  Prepared train_, buffered_;
  Questions asked_[2];  // by Asked
  std::unique_ptr<features::Feed> replay_feed_;
  std::shared_ptr<train::Stream> replay_stream_;
  adapt::Objective corpus_;                  // general text, on the probe
  std::vector<int64_t> measured_[2];         // held-out sequences of it, by Asked
  std::shared_ptr<models::Model> language_;  // of the source: its language head alone
  const features::Inputs* proxy_ = nullptr;
};

/// The one number of a measure by which forgetting is judged, larger is better: the source's metric (of perplexity minus
/// its logarithm), else agreement, else CKA.
double kept(const Json& measure);

/// "accuracy 0.8123 (-0.0120), features 0.94 alike": for people. `before` is the source's own measure.
std::string retained_text(const Json& now, const Json& before);

}  // namespace graft::run
