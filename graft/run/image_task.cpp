#include "graft/run/image_task.h"

#include <algorithm>

#include "graft/adapt/masked_image.h"
#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/random.h"
#include "graft/io/fields.h"
#include "graft/train/supervised.h"

namespace graft::run {

ImageTask::ImageTask(const models::Source& source, data::ImageOptions options)
    : source_(source), options_(std::move(options)), preprocessing_(data::read_preprocessing(source.folder)) {
  const auto wanted = channels();
  GRAFT_CHECK(model, wanted == 0 || wanted == preprocessing_.channels(),
              "{}: its mean and std are of {} channels, the model takes {}. Give as many numbers, one for each band.",
              preprocessing_.origin, preprocessing_.channels(), wanted);
}

/// Channels of an image; 0 where the configuration does not say.
int64_t ImageTask::channels() const {
  const auto& config = source_.config;
  const auto in = [](const Json& json, const char* key) {
    return json.contains(key) && json[key].is_number_integer() ? json[key].get<int64_t>() : 0;
  };
  for (const auto& [section, key] : {std::pair{"vit", "in_chans"},
                                     {"swin", "in_chans"},
                                     {"resnet", "num_channels"},
                                     {"efficientnet", "num_channels"}})  // what the tensors told
    if (config.contains(section) && config[section].is_object()) return in(config[section], key);
  return in(config, "num_channels");
}

/// Side of a patch; 1 for families without patches.
int64_t ImageTask::patch_side() const {
  const auto& config = source_.config;
  for (const auto* section : {"vit", "swin"})  // what the tensors told
    if (config.contains(section) && config[section].is_object()) return config[section].value("patch_size", int64_t{1});
  return config.contains("patch_size") && config["patch_size"].is_number_integer() ? config["patch_size"].get<int64_t>()
                                                                                   : 1;
}

void ImageTask::settle_adaptation(models::Source& source, const adapt::AdaptOptions& options) const {
  const auto& o = options.images;
  source.config["mask_ratio"] = o.mask_ratio;
  source.config["norm_pix_loss"] = o.normalise_targets;
  const auto& tensors = source.checkpoint.tensors;
  if (std::any_of(tensors.begin(), tensors.end(), [](const auto& t) {
        return t.first.starts_with("decoder.") || t.first.starts_with("decoder_embed.");
      }))
    return;
  source.config["decoder_hidden_size"] = o.decoder_width;
  source.config["decoder_intermediate_size"] = 4 * o.decoder_width;
  source.config["decoder_num_hidden_layers"] = o.decoder_layers;
  source.config["decoder_num_attention_heads"] = o.decoder_heads;
}

adapt::Objective ImageTask::objective(models::Model& model, const models::Source&, const adapt::AdaptOptions& options,
                                      uint64_t seed, const std::function<void(int64_t, int64_t)>& progress) {
  const auto listed = data::list_images({options.corpus});
  files_ = listed.files;
  const auto& names = listed.dataset.test.texts;
  const auto limit = options.max_documents > 0 ? std::min(options.max_documents, names.size()) : names.size();
  // Whether an image is held out depends on its name below the corpus alone, so a corpus that grows keeps its sides.
  data::Ragged<char> sides[2];
  for (const auto i : train::sample(names.size(), limit, seed_of(seed, {"adapt", "images"}))) {
    const auto name = std::string(names.text(i));
    const auto below = std::filesystem::path(name).lexically_relative(options.corpus).generic_string();
    const bool held = unit_hash(below) < options.held_out_fraction;
    sides[held].push_back(names[i]);
  }
  GRAFT_CHECK(data, sides[0].size() > 0 && sides[1].size() > 0,
              "{}: {} images are too few to hold any out; give more images, or raise adapt.held_out_fraction.",
              options.corpus, limit);
  data::AugmentOptions augment = options_.augment;
  if (!augment.enabled) {
    augment = {.enabled = true, .smallest_crop = options.images.smallest_crop};
  }
  augment.views = 1;  // they are drawn in each epoch here
  augment.mixup = augment.cutmix = 0;
  data::SkippedRows skipped;
  const auto bad_rows = options.bad_rows == "skip" ? data::BadRows::skip : data::BadRows::stop;
  std::shared_ptr<features::ImageInputs> inputs[2];
  for (const bool held : {false, true}) {
    inputs[held] = std::make_shared<features::ImageInputs>(model, preprocessing_, options_);
    // Many bands have no views: an epoch differs from another by its masks alone.
    if (!held && (!preprocessing_.bands || options_.augment.enabled))
      inputs[held]->augment(augment, seed_of(seed, {"adapt"}));
    inputs[held]->least_side(patch_side());
    inputs[held]->add(files_, sides[held], bad_rows, skipped, progress);
    GRAFT_CHECK(data, inputs[held]->size() > 0, "none of the {} images can be used; the first: {}", skipped.count,
                skipped.first.empty() ? "there is none" : skipped.first.front());
  }
  auto objective = adapt::masked_images(model, inputs[0], inputs[1], preprocessing_, options, seed);
  if (skipped.count > 0) {
    objective.counts["skipped"] = skipped.count;
    objective.material += fmt::format("; {} were skipped, the first: {}", skipped.count, skipped.first.front());
  }
  return objective;
}

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
  return std::move(prepare_all(model, {this}, examples, wanted).front());
}

std::vector<Prepared> ImageTask::prepare_all(const models::Model& model, const std::vector<ImageTask*>& tasks,
                                             data::Examples& examples, const Wanted& wanted) {
  const auto& options = tasks.front()->options_;
  std::vector<std::unique_ptr<features::ImageInputs>> inputs;
  std::vector<features::ImageInputs*> all;
  for (const auto* task : tasks) {
    auto own = options;
    own.cache_gb /= static_cast<double>(tasks.size());
    inputs.push_back(std::make_unique<features::ImageInputs>(model, task->preprocessing_, own));
    inputs.back()->least_side(task->patch_side());
    if (wanted.training_seed && options.augment.enabled) inputs.back()->augment(options.augment, *wanted.training_seed);
    all.push_back(inputs.back().get());
  }
  data::SkippedRows skipped;
  const auto added = features::ImageInputs::add_all(all, tasks.front()->files_, examples.texts, wanted.bad_rows,
                                                    skipped, wanted.progress);
  const auto& rows = added.rows;
  const auto once = std::vector<int64_t>(rows.begin(), rows.begin() + (examples.size() - skipped.count));
  std::vector<Prepared> results(tasks.size());
  std::string note;
  if (skipped.count > 0) {
    GRAFT_CHECK(data, !rows.empty(), "none of {} images can be used; the first: {}", skipped.count,
                skipped.first.front());
    note = fmt::format("{} {} images were skipped; the first: {}", skipped.count, wanted.split, skipped.first[0]);
  }
  for (size_t i = 0; i < tasks.size(); ++i) {
    auto& result = results[i];
    if (rows.size() > once.size()) result.repeated = data::take(examples, rows);
    result.skipped = skipped;
    result.note = note;
    if (options.fast_decode && wanted.training_seed)
      result.note += fmt::format("{}fast_decode changes a sample by {:.2f} of 255 levels on average",
                                 result.note.empty() ? "" : "\n", inputs[i]->fast_decode_deviation(32));
    result.inputs = std::move(inputs[i]);
  }
  results.front().decoded = added.decoded;
  if (skipped.count > 0) examples = data::take(examples, once);
  return results;
}

Json ImageTask::settings(const models::Model&) const {
  return {{"preprocessing", preprocessing_.description()}, {"images", io::write_value(options_)}};
}

std::map<std::string, std::string> ImageTask::files(const models::Model&) const {
  return data::preprocessing_files(source_.folder);
}

}  // namespace graft::run
