// What a run must know of the kind of its examples, text or images: reading them, making them ready for the model, and
// the files that belong beside its weights. Which kind it is, is decided here and nowhere else.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "graft/adapt/objective.h"
#include "graft/data/dataset.h"
#include "graft/data/images/options.h"
#include "graft/data/language/options.h"
#include "graft/data/table.h"
#include "graft/features/inputs.h"
#include "graft/models/source.h"
#include "graft/train/task_stream.h"

namespace graft::run {

/// One split, ready for the model.
struct Prepared {
  std::unique_ptr<features::Inputs> inputs;
  train::Alignment alignment = {};         // of labels on words and of texts; lives in what follows
  std::shared_ptr<const void> aligned;     // what `alignment` points to, where it is not in `inputs`
  data::SkippedRows skipped;               // examples that turned out to be unusable
  std::string note;                        // for people; may be empty
  std::optional<data::Examples> repeated;  // of `inputs`, where examples stand in it several times
  int64_t decoded = 0;                     // images that were decoded for it
};

struct Wanted {
  std::string split;                           // for people: "training"
  std::string task = {};                       // as data::Dataset::task
  std::optional<uint64_t> training_seed = {};  // given: for training; random views are drawn with it
  data::BadRows bad_rows = data::BadRows::stop;
  std::function<void(int64_t, int64_t)> progress = {};  // (done, total)
};

class TaskInputs {
 public:
  virtual ~TaskInputs() = default;
  /// What the source's configuration lacks and training must fix before the model is made.
  virtual void settle(models::Source&) const {}
  /// The same for adaptation.
  virtual void settle_adaptation(models::Source&, const adapt::AdaptOptions&) const {}
  /// The corpus as the objective that the source was pretrained with; `model` has its head.
  virtual adapt::Objective objective(models::Model& model, const models::Source& source,
                                     const adapt::AdaptOptions& options, uint64_t seed,
                                     const std::function<void(int64_t, int64_t)>& progress) = 0;
  /// `inputs` (of prepare()) with tokens masked, to be told by `model`, which has a masked-language head; nullptr where
  /// there is no such thing. `inputs` must outlive it.
  virtual std::shared_ptr<train::Stream> masked(models::Model&, const models::Source&, const features::Inputs&,
                                                uint64_t) {
    return nullptr;
  }
  /// As data::read_dataset().
  virtual data::Dataset read(const data::DataOptions& options, uint64_t seed,
                             const std::vector<std::string>& label_names) = 0;
  /// Examples to be judged, without labels: lines of text, or names of files and folders.
  virtual data::Examples list(const std::vector<std::string>& given) = 0;
  /// Takes unusable examples out of `examples` when `wanted` says skip; else throws Kind::data naming the first.
  virtual Prepared prepare(const models::Model& model, data::Examples& examples, const Wanted& wanted) = 0;
  /// What decides the inputs beside the data, for the journal.
  virtual Json settings(const models::Model& model) const = 0;
  /// Files that belong beside saved weights: name and content.
  virtual std::map<std::string, std::string> files(const models::Model& model) const = 0;
  virtual bool of_images() const = 0;
};

/// By the source's first chain: "image" takes images, every other text. `max_length` and `language` are for texts, `images`
/// for images.
std::unique_ptr<TaskInputs> task_inputs(const models::Source& source, int64_t max_length,
                                        const data::ImageOptions& images, const data::LanguageOptions& language = {});

}  // namespace graft::run
