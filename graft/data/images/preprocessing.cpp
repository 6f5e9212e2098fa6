#include "graft/data/images/preprocessing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "graft/core/error.h"
#include "graft/io/file.h"

namespace graft::data {
namespace {

constexpr std::array<double, 3> kImageNetMean{0.485, 0.456, 0.406}, kImageNetStd{0.229, 0.224, 0.225};

/// One configuration file, whose mistakes name it.
struct Settings {
  std::string where;
  Json json;

  static std::optional<Settings> of(const fs::path& file) {
    if (!fs::exists(file)) return {};
    Settings s{file.string(), Json::parse(io::read_file(file), nullptr, false)};
    GRAFT_CHECK(model, s.json.is_object(), "{}: is not a JSON object. Download the model again.", s.where);
    return s;
  }
  bool has(const char* key) const { return json.contains(key) && !json[key].is_null(); }
  bool flag(const char* key, bool fallback) const {
    if (!has(key)) return fallback;
    GRAFT_CHECK(model, json[key].is_boolean(), "{}: {} is {}, expected true or false.", where, key, json[key].dump());
    return json[key];
  }
  double number(const Json& value, const char* key) const {
    GRAFT_CHECK(model, value.is_number(), "{}: {} is {}, expected a number.", where, key, value.dump());
    return value;
  }
  double number_or(const char* key, double fallback) const { return has(key) ? number(json[key], key) : fallback; }
  int64_t pixels(const Json& value, const char* key) const {
    const double n = number(value, key);
    GRAFT_CHECK(model, n >= 1 && n <= 65536 && n == std::floor(n), "{}: {} is {}, expected whole pixels.", where, key,
                value.dump());
    return static_cast<int64_t>(n);
  }
  std::string text(const char* key) const {
    return has(key) && json[key].is_string() ? json[key].get<std::string>() : "";
  }
  /// Mean and std of many bands, under either ecosystem's keys.
  bool of_bands() const {
    for (const auto& [mean, std] : {std::pair{"image_mean", "image_std"}, std::pair{"mean", "std"}})
      if (has(mean) && has(std) && json[mean].is_array() && json[std].is_array() &&
          json[mean].size() == json[std].size() && json[mean].size() != 3 && json[mean].size() > 1)
        return true;
    return false;
  }
  std::optional<Preprocessing::Bands> bands(double scale) const {
    if (!of_bands()) return {};
    Preprocessing::Bands bands{.scale = scale};
    for (const auto& [mean, std] : {std::pair{"image_mean", "image_std"}, std::pair{"mean", "std"}}) {
      if (!has(mean)) continue;
      for (const auto& value : json[mean]) bands.mean.push_back(number(value, mean));
      for (const auto& value : json[std]) {
        bands.std.push_back(number(value, std));
        GRAFT_CHECK(model, bands.std.back() > 0, "{}: {} is {}, expected numbers above 0.", where, std,
                    json[std].dump());
      }
    }
    return bands;
  }
  std::array<double, 3> three(const char* key, std::array<double, 3> fallback) const {
    if (!has(key)) return fallback;
    const auto& list = json[key];
    if (list.is_number()) return {list.get<double>(), list.get<double>(), list.get<double>()};
    if (of_bands()) return fallback;  // see bands()
    GRAFT_CHECK(model, list.is_array() && (list.size() == 3 || list.size() == 1),
                "{}: {} is {}, expected three numbers, or in mean and std alike one for each of many bands.", where,
                key, list.dump());
    std::array<double, 3> values;
    for (size_t c = 0; c < 3; ++c) values[c] = number(list[list.size() == 1 ? 0 : c], key);
    return values;
  }
  /// {"height", "width"}, a number for both, or two numbers.
  std::pair<int64_t, int64_t> width_height(const char* key) const {
    const auto& v = json[key];
    if (v.is_object() && v.contains("height") && v.contains("width"))
      return {pixels(v["width"], key), pixels(v["height"], key)};
    if (v.is_array() && v.size() == 2) return {pixels(v[1], key), pixels(v[0], key)};
    if (v.is_array() && v.size() == 1) return {pixels(v[0], key), pixels(v[0], key)};
    if (v.is_object() && v.contains("shortest_edge")) {
      const auto edge = pixels(v["shortest_edge"], key);
      return {edge, edge};
    }
    return {pixels(v, key), pixels(v, key)};
  }
};

/// level -> ((level * factor + offset) - mean) / std, in single precision as the references compute it.
void set_values(Preprocessing& p, double factor, double offset, const std::array<double, 3>& mean,
                const std::array<double, 3>& std) {
  for (size_t c = 0; c < 3; ++c)
    for (int level = 0; level < 256; ++level) {
      const auto scaled = static_cast<float>(level * factor + offset);
      p.value[c][level] = (scaled - static_cast<float>(mean[c])) / static_cast<float>(std[c]);
    }
}

Filter filter_of(const Settings& s, const char* key, Filter fallback) {
  if (!s.has(key)) return fallback;
  const auto& v = s.json[key];
  if (v.is_number_integer()) {
    const auto number = v.get<int64_t>();
    GRAFT_CHECK(model, number >= 0 && number <= 5, "{}: {} is {}, expected one of Pillow's filters, 0 to 5.", s.where,
                key, number);
    return static_cast<Filter>(number);
  }
  const auto name = s.text(key);
  for (const auto& [known, filter] :
       {std::pair{"nearest", Filter::nearest}, std::pair{"lanczos", Filter::lanczos},
        std::pair{"bilinear", Filter::bilinear}, std::pair{"bicubic", Filter::bicubic}, std::pair{"box", Filter::box},
        std::pair{"hamming", Filter::hamming}, std::pair{"random", Filter::bilinear}})
    if (name == known) return filter;
  fail(Kind::model, "{}: {} is {}, expected nearest, bilinear, bicubic, lanczos, box or hamming.", s.where, key,
       v.dump());
}

/// The processor's class without its suffixes; the older key and name win over nothing else.
std::string family_of(const Settings& s) {
  auto name = s.text("image_processor_type");
  if (name.empty()) name = s.text("feature_extractor_type");
  for (const auto* suffix : {"Fast", "Pil", "ImageProcessor", "FeatureExtractor"})
    if (name.ends_with(suffix)) name.resize(name.size() - std::strlen(suffix));
  return name;
}

/// transformers: one class for each family, with defaults of its own for what the file leaves out.
Preprocessing of_transformers(const Settings& s) {
  const auto family = family_of(s);
  struct Defaults {
    const char* family;
    int64_t size;
    bool keeps_proportions;  // a bare number is the short edge
    int64_t crop;            // 0: none
    Filter filter;
    std::array<double, 3> mean, std;
  };
  constexpr std::array<double, 3> kHalf{0.5, 0.5, 0.5}, kClipMean{0.48145466, 0.4578275, 0.40821073},
      kClipStd{0.26862954, 0.26130258, 0.27577711};
  static const std::vector<Defaults> kFamilies{
      {"ViT", 224, false, 0, Filter::bilinear, kHalf, kHalf},
      {"Swin", 224, false, 0, Filter::bilinear, kHalf, kHalf},
      {"DeiT", 256, false, 224, Filter::bicubic, kImageNetMean, kImageNetStd},
      {"CLIP", 224, true, 224, Filter::bicubic, kClipMean, kClipStd},
      {"Bit", 224, true, 224, Filter::bicubic, kClipMean, kClipStd},
      {"ConvNext", 384, true, 0, Filter::bilinear, kImageNetMean, kImageNetStd},
      {"EfficientNet", 346, false, 0, Filter::nearest, kImageNetMean, kImageNetStd},
      {"Siglip", 224, false, 0, Filter::bicubic, kHalf, kHalf},
  };
  const auto known =
      std::find_if(kFamilies.begin(), kFamilies.end(), [&](const auto& d) { return d.family == family; });
  if (known == kFamilies.end()) {
    std::vector<std::string> names;
    for (const auto& d : kFamilies) names.emplace_back(d.family);
    fail(Kind::model, "{}: the image processor `{}` is not one that graft computes; known are {}.", s.where,
         family.empty() ? "(none named)" : family, listed(names, 20));
  }
  const auto& d = *known;
  Preprocessing p{.origin = s.where, .apply_orientation = true};
  p.filter = filter_of(s, "resample", d.filter);
  const auto sized = [&](const char* key, int64_t fallback) {
    return s.has(key) ? s.width_height(key) : std::pair{fallback, fallback};
  };
  const auto [width, height] = sized("size", d.size);
  const bool named_edge = s.has("size") && s.json["size"].is_object() && s.json["size"].contains("shortest_edge");
  const bool named_both = s.has("size") && s.json["size"].is_object() && s.json["size"].contains("height");
  if (s.flag("do_resize", true)) {
    if (family == "ConvNext") {  // small images are resized and cropped, large ones stretched
      const auto edge = width;
      if (edge < 384) {
        p.short_edge = static_cast<int64_t>(static_cast<double>(edge) / s.number_or("crop_pct", 224.0 / 256.0));
        p.crop_width = p.crop_height = edge;
      } else {
        p.resize_width = p.resize_height = edge;
      }
    } else if (named_edge || (d.keeps_proportions && !named_both)) {
      p.short_edge = width;
    } else {
      p.resize_width = width;
      p.resize_height = height;
    }
  }
  if (family != "ConvNext" && s.flag("do_center_crop", d.crop > 0)) {
    const auto [crop_width, crop_height] = sized("crop_size", d.crop > 0 ? d.crop : 289);
    p.crop_width = crop_width;
    p.crop_height = crop_height;
  }
  const bool rescale = s.flag("do_rescale", true), normalise = s.flag("do_normalize", true);
  const double factor = rescale ? s.number_or("rescale_factor", 1 / 255.0) : 1;
  const auto mean = s.three("image_mean", d.mean), std = s.three("image_std", d.std);
  set_values(p, factor, rescale && s.flag("rescale_offset", false) ? -1 : 0,
             normalise ? mean : std::array<double, 3>{0, 0, 0}, normalise ? std : std::array<double, 3>{1, 1, 1});
  p.bands = s.bands(factor);
  if (family == "EfficientNet" && normalise && s.flag("include_top", true))  // its deviation divides once more
    for (size_t c = 0; c < 3; ++c)
      for (auto& value : p.value[c]) value /= static_cast<float>(std[c]);
  return p;
}

/// timm: the short edge to floor(input / crop_pct), then the middle of it.
Preprocessing of_timm(const Settings& whole) {
  const Settings s{whole.where + ": pretrained_cfg", whole.json["pretrained_cfg"]};
  Preprocessing p{.origin = s.where, .round_half_even = true};
  GRAFT_CHECK(model, s.has("input_size") && s.json["input_size"].is_array() && s.json["input_size"].size() == 3,
              "{}: input_size is missing, expected [channels, height, width].", s.where);
  p.crop_height = s.pixels(s.json["input_size"][1], "input_size");
  p.crop_width = s.pixels(s.json["input_size"][2], "input_size");
  const double part = s.number_or("crop_pct", 0.875);
  const auto mode = s.text("crop_mode");
  const auto larger = [&](int64_t edge) { return static_cast<int64_t>(std::floor(static_cast<double>(edge) / part)); };
  if (mode == "squash") {
    p.resize_width = larger(p.crop_width);
    p.resize_height = larger(p.crop_height);
  } else {
    GRAFT_CHECK(model, (mode.empty() || mode == "center") && p.crop_width == p.crop_height,
                "{}: crop_mode {} for {} x {} is not computed by graft; known are squash, and center for squares.",
                s.where, mode, p.crop_width, p.crop_height);
    p.short_edge = larger(p.crop_width);
  }
  p.filter = filter_of(s, "interpolation", Filter::bilinear);
  set_values(p, 1 / 255.0, 0, s.three("mean", kImageNetMean), s.three("std", kImageNetStd));
  p.bands = s.bands(1 / 255.0);
  return p;
}

/// torchvision's presets by their argument names, and BioViL's two numbers.
Preprocessing of_presets(const Settings& s) {
  Preprocessing p{.origin = s.where, .round_half_even = true};
  const bool biovil = s.has("center_crop_size");
  const auto* resize = biovil ? "resize" : "resize_size";
  const auto* crop = biovil ? "center_crop_size" : "crop_size";
  GRAFT_CHECK(model, s.has(crop), "{}: expected resize_size and crop_size, found neither.", s.where);
  if (s.has(resize)) p.short_edge = s.width_height(resize).first;
  std::tie(p.crop_width, p.crop_height) = s.width_height(crop);
  p.filter = filter_of(s, "interpolation", Filter::bilinear);
  p.min_max_gray = biovil;
  if (biovil) set_values(p, 1 / 255.0, 0, {0, 0, 0}, {1, 1, 1});
  else set_values(p, 1 / 255.0, 0, s.three("mean", kImageNetMean), s.three("std", kImageNetStd));
  p.bands = s.bands(s.number_or("scale", 1));
  return p;
}

constexpr const char* kFiles[] = {"preprocessor_config.json", "transform.json"};

/// Half to even, as Python's round.
int64_t half_of(int64_t rest, bool half_even) {
  if (half_even) return static_cast<int64_t>(std::nearbyint(static_cast<double>(rest) / 2));
  return rest >= 0 ? rest / 2 : -((1 - rest) / 2);  // floor
}

Image min_max_gray(const RawImage& raw) {
  const auto samples = raw.width * raw.height * raw.bands;
  const auto sample = [&](int64_t i) -> int64_t {
    if (!raw.wide) return raw.samples[i];
    uint16_t value = 0;
    std::memcpy(&value, raw.samples.data() + 2 * i, 2);
    return value;
  };
  int64_t least = INT64_MAX, most = 0;
  for (int64_t i = 0; i < samples; ++i) least = std::min(least, sample(i)), most = std::max(most, sample(i));
  const double range = std::max<double>(1, static_cast<double>(most - least));
  const auto level = [&](int64_t i) {
    return static_cast<int64_t>(static_cast<double>(sample(i) - least) / range * 255);
  };
  Image out(raw.width, raw.height, 3);
  for (int64_t i = 0; i < raw.width * raw.height; ++i) {
    auto gray = level(raw.bands * i);
    if (raw.bands >= 3)  // Pillow's L: ITU-R 601 in 16 bits of fixed point
      gray = (gray * 19595 + level(raw.bands * i + 1) * 38470 + level(raw.bands * i + 2) * 7471 + 0x8000) >> 16;
    std::fill_n(out.samples.begin() + 3 * i, 3, static_cast<uint8_t>(gray));
  }
  return out;
}

}  // namespace

Preprocessing read_preprocessing(const fs::path& folder) {
  Preprocessing p;
  const auto config = Settings::of(folder / "config.json");
  if (const auto s = Settings::of(folder / "preprocessor_config.json")) p = of_transformers(*s);
  else if (config && config->has("pretrained_cfg")) p = of_timm(*config);
  else if (const auto presets = Settings::of(folder / "transform.json")) p = of_presets(*presets);
  else
    fail(Kind::model,
         "{}: says nothing about how its images are prepared. Add the model's preprocessor_config.json, or a "
         "transform.json such as {{\"resize_size\": 256, \"crop_size\": 224}}.",
         folder.string());
  GRAFT_CHECK(model, p.width() > 0 && p.height() > 0,
              "{}: images keep different sizes by these settings; graft needs one size. Set size to a width and a "
              "height, or do_center_crop.",
              p.origin);
  return p;
}

std::map<std::string, std::string> preprocessing_files(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto* name : kFiles)
    if (fs::exists(folder / name)) files[name] = io::read_file(folder / name);
  return files;
}

Json Preprocessing::description() const {
  constexpr const char* kNames[] = {"nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"};
  Json json{{"filter", kNames[static_cast<int>(filter)]}};
  if (short_edge) json["short_edge"] = short_edge;
  if (resize_width) json["resize"] = {resize_width, resize_height};
  if (crop_width) json["crop"] = {crop_width, crop_height};
  if (apply_orientation) json["apply_orientation"] = true;
  if (min_max_gray) json["min_max_gray"] = true;
  if (bands) json["bands"] = {{"scale", bands->scale}, {"mean", bands->mean}, {"std", bands->std}};
  else
    for (const auto& levels : value) json["range"].push_back({levels.front(), levels.back()});
  return json;
}

DecodeOptions decode_options(const Preprocessing& p, int64_t pixel_limit, bool fast) {
  DecodeOptions options{.apply_orientation = p.apply_orientation, .pixel_limit = pixel_limit};
  if (fast) options.enough = p.short_edge ? p.short_edge : std::max(p.resize_width, p.resize_height);
  return options;
}

Image three_bands(const Preprocessing& p, RawImage raw, SixteenBit sixteen_bit) {
  return p.min_max_gray ? min_max_gray(raw) : to_rgb(std::move(raw), sixteen_bit);
}

namespace {

/// Resized and cropped.
template <class Pixels>
Pixels fitted(const Preprocessing& p, const Pixels& image, const std::string& where) {
  auto width = p.resize_width, height = p.resize_height;
  if (p.short_edge) {
    const auto least = std::min(image.width, image.height), most = std::max(image.width, image.height);
    const auto longer = static_cast<int64_t>(static_cast<double>(p.short_edge * most) / static_cast<double>(least));
    width = image.width <= image.height ? p.short_edge : longer;
    height = image.width <= image.height ? longer : p.short_edge;
    GRAFT_CHECK(data, width * height <= 178'956'970,
                "{}: is {} x {} pixels; with its short side at {} it would have {}. Cut it, or remove it.", where,
                image.width, image.height, p.short_edge, width * height);
  }
  if (!width) width = image.width, height = image.height;
  if (!p.crop_width) return resize(image, width, height, p.filter);
  const Box part{half_of(width - p.crop_width, p.round_half_even), half_of(height - p.crop_height, p.round_half_even),
                 p.crop_width, p.crop_height};
  return resize(image, width, height, p.filter, part);
}

}  // namespace

Image prepared(const Preprocessing& p, const Image& image, const std::string& where) { return fitted(p, image, where); }

void check_side(int64_t width, int64_t height, int64_t least_side, const std::string& where) {
  GRAFT_CHECK(data, std::min(width, height) >= least_side,
              "{}: has {} x {} pixels, less than one patch of the model ({} x {}); give a larger image, or remove it.",
              where, width, height, least_side, least_side);
}

std::vector<float> band_values(const Preprocessing& p, std::string_view bytes, const std::string& where,
                               int64_t pixel_limit, int64_t least_side) {
  const auto image = decode_bands(bytes, where, pixel_limit);
  check_side(image.width, image.height, least_side, where);
  const auto channels = p.channels();
  GRAFT_CHECK(data, image.bands == channels,
              "{}: has {} bands, the model takes {} ({}); choose the bands that it knows, in its order.", where,
              image.bands, channels, p.origin);
  const auto fit = fitted(p, image, where);
  const auto pixels = fit.width * fit.height;
  std::vector<float> values(channels * pixels);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < pixels; ++i)
      values[c * pixels + i] =
          static_cast<float>((fit.samples[i * channels + c] * p.bands->scale - p.bands->mean[c]) / p.bands->std[c]);
  return values;
}

void normalise(const Preprocessing& p, const uint8_t* samples, float* out) {
  const auto pixels = p.width() * p.height();
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t i = 0; i < pixels; ++i) out[c * pixels + i] = p.value[c][samples[3 * i + c]];
}

}  // namespace graft::data
