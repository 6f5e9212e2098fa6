#include "graft/run/image_task.h"

#include "graft/core/error.h"
#include "graft/io/fields.h"

namespace graft::run {

ImageTask::ImageTask(const models::Source& source, data::ImageOptions options)
    : source_(source), options_(std::move(options)), preprocessing_(data::read_preprocessing(source.folder)) {}

data::Dataset ImageTask::read(const data::DataOptions& options, uint64_t seed,
                              const std::vector<std::string>& label_names) {
  auto read = data::read_image_dataset(options, seed, label_names);
  files_ = read.files;
  return std::move(read.dataset);
}

data::Examples ImageTask::list(const std::vector<std::string>& given) {
  auto listed = data::list_images(given);
  files_ = listed.files;
  return std::move(listed.dataset.test);
}

Prepared ImageTask::prepare(const models::Model& model, data::Examples& examples, const Wanted& wanted) {
  Prepared result;
  auto inputs = std::make_unique<features::ImageInputs>(model, preprocessing_, options_);
  if (wanted.training_seed && options_.augment.enabled) inputs->augment(options_.augment, *wanted.training_seed);
  const auto rows = inputs->add(files_, examples.texts, wanted.bad_rows, result.skipped, wanted.progress);
  const auto once = std::vector<int64_t>(rows.begin(), rows.begin() + (examples.size() - result.skipped.count));
  if (rows.size() > once.size()) result.repeated = data::take(examples, rows);
  if (result.skipped.count > 0) {
    GRAFT_CHECK(data, !rows.empty(), "none of {} images can be used; the first: {}", result.skipped.count,
                result.skipped.first.front());
    result.note = fmt::format("{} {} images were skipped; the first: {}", result.skipped.count, wanted.split,
                              result.skipped.first[0]);
    examples = data::take(examples, once);
  }
  if (options_.fast_decode && wanted.training_seed)
    result.note += fmt::format("{}fast_decode changes a sample by {:.2f} of 255 levels on average",
                               result.note.empty() ? "" : "\n", inputs->fast_decode_deviation(32));
  result.inputs = std::move(inputs);
  return result;
}

Json ImageTask::settings(const models::Model&) const {
  return {{"preprocessing", preprocessing_.description()}, {"images", io::write_value(options_)}};
}

std::map<std::string, std::string> ImageTask::files(const models::Model&) const {
  return data::preprocessing_files(source_.folder);
}

}  // namespace graft::run
