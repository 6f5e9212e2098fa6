#include "graft/features/image_inputs.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>

#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/interrupt.h"
#include "graft/core/parallel.h"
#include "graft/core/random.h"
#include "graft/core/threads.h"
#include "graft/models/device.h"

namespace graft::features {
namespace {

constexpr int64_t kImages = 512;  // images decoded at a time

/// Beta(alpha, alpha) for alpha up to 1 (Joehnk 1964).
double beta(Random& random, double alpha) {
  for (;;) {
    const double x = std::pow(random.uniform(), 1 / alpha), y = std::pow(random.uniform(), 1 / alpha);
    if (x + y <= 1 && x + y > 0) return x / (x + y);
  }
}

}  // namespace

ImageInputs::ImageInputs(const models::Model& model, data::Preprocessing preprocessing, data::ImageOptions options)
    : device_(model.device()),
      preprocessing_(std::move(preprocessing)),
      options_(std::move(options)),
      hash_(sha256("")) {}

int64_t ImageInputs::length(int64_t) const {
  return std::max<int64_t>(1, preprocessing_.width() * preprocessing_.height() / 256);
}

data::Image ImageInputs::decoded(const std::string& name, bool fast) const {
  data::Image image;
  files_->read(name, [&](std::string_view bytes) {
    const auto options = data::decode_options(preprocessing_, options_.pixel_limit, fast);
    const auto sixteen = options_.sixteen_bit == "saturate" ? data::SixteenBit::saturate : data::SixteenBit::scale;
    image = data::three_bands(preprocessing_, data::decode_image(bytes, name, options), sixteen);
  });
  data::check_side(image.width, image.height, least_side_, name);
  return image;
}

std::string ImageInputs::decoding(int64_t copy) const {
  const auto options = data::decode_options(preprocessing_, options_.pixel_limit, options_.fast_decode && copy == 0);
  return fmt::format("{} {} {}", options.apply_orientation, options.enough, preprocessing_.min_max_gray);
}

data::Image ImageInputs::prepared(const data::Image& decoded, const std::string& name, int64_t row,
                                  int64_t copy) const {
  if (copy == 0) return data::prepared(preprocessing_, decoded, name);
  return data::augmented(decoded, preprocessing_, *augment_,
                         seed_of(seed_, {"stored view"}, {static_cast<uint64_t>(copy), static_cast<uint64_t>(row)}));
}

std::vector<uint8_t> ImageInputs::kept(const std::string& name, int64_t row, int64_t copy) const {
  if (!preprocessing_.bands) return prepared(decoded(name, options_.fast_decode && copy == 0), name, row, copy).samples;
  std::vector<float> values;
  files_->read(name, [&](std::string_view bytes) {
    values = data::band_values(preprocessing_, bytes, name, options_.pixel_limit, least_side_);
  });
  const auto* bytes = reinterpret_cast<const uint8_t*>(values.data());
  return {bytes, bytes + values.size() * sizeof(float)};
}

std::vector<int64_t> ImageInputs::add(std::shared_ptr<const data::ImageFiles> files, const data::Ragged<char>& names,
                                      data::BadRows bad_rows, data::SkippedRows& skipped,
                                      const std::function<void(int64_t, int64_t)>& progress) {
  return add_all({this}, files, names, bad_rows, skipped, progress).rows;
}

ImageInputs::Added ImageInputs::add_all(const std::vector<ImageInputs*>& several,
                                        const std::shared_ptr<const data::ImageFiles>& files,
                                        const data::Ragged<char>& names, data::BadRows bad_rows,
                                        data::SkippedRows& skipped,
                                        const std::function<void(int64_t, int64_t)>& progress) {
  const auto& augment = several.front()->augment_;
  const int64_t copies = augment ? augment->views : 1, total = names.size() * copies;
  std::vector<Sha256> hashes(several.size());
  for (size_t k = 0; k < several.size(); ++k) {
    auto& one = *several[k];
    const auto& preprocessing = one.preprocessing_;
    GRAFT_ASSERT(one.size() == 0, "images are added once");
    GRAFT_CHECK(usage, !augment || !preprocessing.bands,
                "images.augment: views are drawn of images with three channels; this model takes {}. Leave it out.",
                preprocessing.channels());
    one.files_ = files;
    const double sample_bytes = preprocessing.bands ? sizeof(float) : 1;
    const double bytes = sample_bytes * static_cast<double>(preprocessing.channels() * preprocessing.width() *
                                                            preprocessing.height() * total);
    one.cached_ = bytes <= one.options_.cache_gb * 1e9;
    if (preprocessing.bands) hashes[k].update(preprocessing.description().dump());
    else hashes[k].update(preprocessing.value.data(), sizeof preprocessing.value);
  }
  std::vector<int64_t> wanted(names.size());
  std::iota(wanted.begin(), wanted.end(), 0);
  Added added;
  std::atomic<int64_t> decoded_count{0};
  for (int64_t copy = 0; copy < copies; ++copy) {
    // Which of the preparations decode alike.
    std::map<std::string, std::vector<size_t>> alike;
    std::vector<size_t> of_bands;
    for (size_t k = 0; k < several.size(); ++k)
      (several[k]->preprocessing_.bands ? of_bands : alike[several[k]->decoding(copy)]).push_back(k);
    std::vector<int64_t> good;
    for (int64_t start = 0; start < static_cast<int64_t>(wanted.size()); start += kImages) {
      const auto count = std::min(kImages, static_cast<int64_t>(wanted.size()) - start);
      std::vector<Images> images(several.size(), Images(count));
      std::vector<std::string> problems(count);
      parallel_for(count, available_cores(), [&](int64_t i) {
        const auto row = wanted[start + i];
        const std::string name(names.text(row));
        try {
          for (const auto& [unused, members] : alike) {
            const auto& first = *several[members.front()];
            const auto decoded = first.decoded(name, first.options_.fast_decode && copy == 0);
            ++decoded_count;
            for (const auto k : members) {
              data::check_side(decoded.width, decoded.height, several[k]->least_side_, name);
              images[k][i] = several[k]->prepared(decoded, name, row, copy).samples;
            }
          }
          for (const auto k : of_bands) {
            images[k][i] = several[k]->kept(name, row, copy);
            ++decoded_count;
          }
        } catch (const Error& e) {
          if (e.kind != Kind::data || bad_rows == data::BadRows::stop || copy > 0) throw;
          problems[i] = e.what();
        }
      });
      for (int64_t i = 0; i < count; ++i) {
        if (!problems[i].empty()) {
          ++skipped.count;
          if (skipped.first.size() < 10) skipped.first.push_back(problems[i]);
          continue;
        }
        for (size_t k = 0; k < several.size(); ++k) {
          auto& one = *several[k];
          const auto& samples = images[k][i];
          hashes[k].update(samples.data(), samples.size());
          if (one.cached_) one.pixels_.push_back({reinterpret_cast<const char*>(samples.data()), samples.size()});
          one.names_.push_back(names[wanted[start + i]]);
          one.rows_and_copies_.push_back({wanted[start + i], copy});
        }
        good.push_back(wanted[start + i]);
      }
      stop_if_interrupted();
      if (progress) progress(copy * names.size() + start + count, total);
    }
    added.rows.insert(added.rows.end(), good.begin(), good.end());
    wanted = std::move(good);  // a bad image is skipped once
  }
  for (size_t k = 0; k < several.size(); ++k) several[k]->hash_ = hashes[k].hex();
  added.decoded = decoded_count;
  return added;
}

double ImageInputs::fast_decode_deviation(int64_t count) const {
  double sum = 0, samples = 0;
  if (preprocessing_.bands) return 0;  // they are always read whole
  for (int64_t i = 0; i < std::min(count, size()); ++i) {
    const auto name = std::string(names_.text(i));
    const auto fast = data::prepared(preprocessing_, decoded(name, true), name),
               full = data::prepared(preprocessing_, decoded(name, false), name);
    for (size_t k = 0; k < full.samples.size(); ++k) sum += std::abs(fast.samples[k] - full.samples[k]);
    samples += static_cast<double>(full.samples.size());
  }
  return samples > 0 ? sum / samples : 0;
}

std::vector<uint8_t> ImageInputs::plain(int64_t example) const {
  if (cached_) return {pixels_[example].begin(), pixels_[example].end()};
  return kept(std::string(names_.text(example)), rows_and_copies_[example].first, rows_and_copies_[example].second);
}

data::Image ImageInputs::image(int64_t example) const {
  GRAFT_CHECK(usage, !preprocessing_.bands, "images of {} bands cannot be shown; leave the sheet of images out.",
              preprocessing_.channels());
  data::Image image(preprocessing_.width(), preprocessing_.height(), 3);
  image.samples = plain(example);
  return image;
}

models::Activations ImageInputs::batch_of(const std::vector<const uint8_t*>& samples) const {
  const auto B = static_cast<int64_t>(samples.size()), H = preprocessing_.height(), W = preprocessing_.width(),
             C = preprocessing_.channels();
  const auto values = models::empty_for(device_, {B, C, H, W}, torch::kFloat32);
  auto* out = values.data_ptr<float>();
  at::parallel_for(0, B, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      if (preprocessing_.bands) std::memcpy(out + i * C * H * W, samples[i], C * H * W * sizeof(float));
      else data::normalise(preprocessing_, samples[i], out + i * C * H * W);
  });
  models::Activations batch;
  batch.kept["pixel_values"] = {models::placed(values, device_), std::vector<int64_t>(B, 1)};
  return batch;
}

const uint8_t* ImageInputs::made_ahead(int64_t example, uint64_t view) const {
  for (const auto& ahead : ahead_) {
    const auto place = std::find(ahead.examples.begin(), ahead.examples.end(), example);
    if (ahead.view == view && place != ahead.examples.end())
      return ahead.images.get()[place - ahead.examples.begin()].data();
  }
  return nullptr;
}

models::Activations ImageInputs::batch(const std::string&, const std::vector<int64_t>& examples) const {
  std::vector<const uint8_t*> samples(examples.size());
  Images images(cached_ ? 0 : examples.size());
  if (cached_)
    for (size_t i = 0; i < examples.size(); ++i)
      samples[i] = reinterpret_cast<const uint8_t*>(pixels_[examples[i]].data());
  else
    for (size_t i = 0; i < examples.size(); ++i) samples[i] = made_ahead(examples[i], 0);
  parallel_for(images.size(), available_cores(), [&](int64_t i) {
    if (samples[i]) return;
    images[i] = plain(examples[i]);
    samples[i] = images[i].data();
  });
  return batch_of(samples);
}

std::vector<uint8_t> ImageInputs::viewed(int64_t example, uint64_t view) const {
  const auto name = std::string(names_.text(example));
  // What is drawn depends on the image's place in the data, not on which batch or thread it comes in.
  return data::augmented(decoded(name, false), preprocessing_, *augment_,
                         seed_of(seed_, {"augment"}, {view, static_cast<uint64_t>(example)}))
      .samples;
}

void ImageInputs::expect(const std::vector<int64_t>& examples, uint64_t view) const {
  const bool unchanged = !augment_ || view == 0;
  if (unchanged && cached_) return;
  if (unchanged) view = 0;
  if (ahead_.size() > 1) ahead_.erase(ahead_.begin());
  const auto made = [this, examples, view, unchanged] {
    Images images(examples.size());
    parallel_for(images.size(), available_cores(),
                 [&](int64_t i) { images[i] = unchanged ? plain(examples[i]) : viewed(examples[i], view); });
    return images;
  };
  ahead_.push_back({examples, view, std::async(std::launch::async, made).share()});
}

models::Activations ImageInputs::batch_view(const std::string& chain, const std::vector<int64_t>& examples,
                                            uint64_t view) const {
  if (!augment_ || view == 0) return batch(chain, examples);
  std::vector<const uint8_t*> samples(examples.size());
  std::vector<int64_t> missing;
  for (size_t i = 0; i < examples.size(); ++i) {
    samples[i] = made_ahead(examples[i], view);
    if (!samples[i]) missing.push_back(static_cast<int64_t>(i));
  }
  Images made(missing.size());
  parallel_for(missing.size(), available_cores(), [&](int64_t k) { made[k] = viewed(examples[missing[k]], view); });
  for (size_t k = 0; k < missing.size(); ++k) samples[missing[k]] = made[k].data();
  auto result = batch_of(samples);
  data::Box box;
  if (const auto blend = drawn_blend(examples, view, box)) {
    auto& values = result.kept.at("pixel_values").values;
    const auto partners = values.index_select(0, torch::tensor(blend->partners, torch::kInt64).to(values.device()));
    if (box.width == 0) values = blend->share * values + (1 - blend->share) * partners;
    else
      values.narrow(2, box.top, box.height)
          .narrow(3, box.left, box.width)
          .copy_(partners.narrow(2, box.top, box.height).narrow(3, box.left, box.width));
  }
  return result;
}

std::optional<Blend> ImageInputs::blend(const std::vector<int64_t>& examples, uint64_t view) const {
  data::Box box;
  return drawn_blend(examples, view, box);
}

std::optional<Blend> ImageInputs::drawn_blend(const std::vector<int64_t>& examples, uint64_t view,
                                              data::Box& box) const {
  if (!augment_ || view == 0 || examples.size() < 2 || (augment_->mixup == 0 && augment_->cutmix == 0)) return {};
  std::string key;
  for (const auto example : examples) key += std::to_string(example) + ",";
  Random random(seed_of(seed_, {"blend", key}, {view}));
  const bool cut = augment_->mixup == 0 || (augment_->cutmix > 0 && random.below(2) == 1);
  Blend blend{.share = beta(random, cut ? augment_->cutmix : augment_->mixup)};
  blend.partners.resize(examples.size());
  std::iota(blend.partners.begin(), blend.partners.end(), 0);
  random.shuffle(blend.partners);
  if (!cut) return blend;
  const auto W = preprocessing_.width(), H = preprocessing_.height();
  const double side = std::sqrt(1 - blend.share);
  const auto span = [&](int64_t size, int64_t& start, int64_t& length) {
    const auto centre = static_cast<int64_t>(random.below(size)), half = static_cast<int64_t>(size * side / 2);
    start = std::max<int64_t>(0, centre - half);
    length = std::min(size, centre + half) - start;
  };
  span(W, box.left, box.width);
  span(H, box.top, box.height);
  if (box.width <= 0 || box.height <= 0) return {};
  blend.share = 1 - static_cast<double>(box.width * box.height) / static_cast<double>(W * H);
  return blend;
}

}  // namespace graft::features
