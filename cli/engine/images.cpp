// graft preprocess: what a model sees of images, to be held against others.
#include <chrono>

#include "cli/engine/commands.h"
#include "graft/core/error.h"
#include "graft/core/parallel.h"
#include "graft/core/threads.h"
#include "graft/data/images/decode.h"
#include "graft/data/images/image_dataset.h"
#include "graft/data/images/preprocessing.h"
#include "graft/io/safetensors.h"

namespace graft::cli {

Json preprocess_command(const Json& request) {
  const auto p = data::read_preprocessing(request.at("model").get<std::string>());
  const auto images = data::list_images(request.at("images").get<std::vector<std::string>>());
  const auto& names = images.dataset.test.texts;
  const auto sixteen_bit =
      request.at("sixteen_bit") == "saturate" ? data::SixteenBit::saturate : data::SixteenBit::scale;
  const auto prepare = [&](const std::string& name, bool fast) {
    data::Image image;
    images.files->read(name, [&](std::string_view bytes) {
      auto raw = data::decode_image(bytes, name, data::decode_options(p, data::DecodeOptions().pixel_limit, fast));
      image = data::prepared(p, data::three_bands(p, std::move(raw), sixteen_bit), name);
    });
    return image;
  };
  const bool fast = request.at("fast_decode");
  GRAFT_CHECK(usage, !fast || !p.bands, "--fast-decode: images of {} bands are always read whole; leave it out.",
              p.channels());
  std::vector<std::vector<float>> values(names.size());
  std::vector<double> deviations(names.size());
  data::start_vips();  // once for all images, so it is none of their time
  const auto started = std::chrono::steady_clock::now();
  parallel_for(names.size(), available_cores(), [&](int64_t i) {
    const auto name = std::string(names.text(i));
    if (p.bands) {
      images.files->read(name, [&](std::string_view bytes) {
        values[i] = data::band_values(p, bytes, name, data::DecodeOptions().pixel_limit);
      });
      return;
    }
    const auto image = prepare(name, fast);
    values[i].resize(3 * p.width() * p.height());
    data::normalise(p, image.samples.data(), values[i].data());
  });
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  if (fast)
    parallel_for(names.size(), available_cores(), [&](int64_t i) {
      const auto name = std::string(names.text(i));
      const auto image = prepare(name, true), full = prepare(name, false);
      for (size_t k = 0; k < full.samples.size(); ++k)
        deviations[i] += std::abs(full.samples[k] - image.samples[k]) / static_cast<double>(full.samples.size());
    });
  // By file name, as references do; by the whole path where two share a name.
  std::map<std::string, int> uses;
  for (int64_t i = 0; i < names.size(); ++i) ++uses[data::fs::path(names.text(i)).filename().string()];
  io::TensorMap tensors;
  Json answer{{"images", names.size()},
              {"preprocessing", p.description()},
              {"shape", {p.channels(), p.height(), p.width()}},
              {"seconds", seconds}};
  double deviation = 0;
  for (int64_t i = 0; i < names.size(); ++i) {
    const auto path = std::string(names.text(i)), name = data::fs::path(path).filename().string();
    const std::vector<int64_t> shape{p.channels(), p.height(), p.width()};
    tensors[uses[name] > 1 ? path : name] = {.dtype = io::DType::f32,
                                             .shape = shape,
                                             .strides = io::row_major(shape),
                                             .data = reinterpret_cast<const char*>(values[i].data())};
    deviation += deviations[i] / static_cast<double>(names.size());
  }
  io::write_safetensors(request.at("outputs").get<std::string>(), tensors);
  if (fast) answer["mean_deviation_in_levels"] = deviation;
  if (!request.value("json", false)) {
    fmt::print("{} images as [{}, {}, {}] in {:.1f} s\n", names.size(), p.channels(), p.height(), p.width(), seconds);
    if (fast) fmt::print("fast decoding changes a pixel by {:.2f} of 255 levels on average\n", deviation);
  }
  return answer;
}

}  // namespace graft::cli
