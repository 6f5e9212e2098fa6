#include "graft/adapt/masked_image.h"

#include <algorithm>
#include <cmath>

#include "graft/core/error.h"
#include "graft/core/random.h"
#include "graft/data/images/encode.h"
#include "graft/io/file.h"

namespace graft::adapt {
namespace {

constexpr int64_t kSamples = 8;       // reconstructions that are written
constexpr int64_t kSampleSide = 128;  // smaller images are shown enlarged
constexpr int64_t kGap = 4;           // pixels between the three pictures

using models::Tensor;

const models::MaskedImageHead& head_of(const models::Model& model) {
  const auto* head = dynamic_cast<const models::MaskedImageHead*>(model.head.get());
  GRAFT_ASSERT(head, "the model has no decoder");
  return *head;
}

/// One of three pictures of a sample: pixel values (3, H, W) back to 8 bits, enlarged, at column `left` of the page.
void draw(const Tensor& values, const data::Preprocessing& p, int64_t scale, int64_t left, data::Image& page) {
  const auto pixels = values.to(torch::kCPU, torch::kFloat32).contiguous();
  const auto H = pixels.size(1), W = pixels.size(2);
  const auto* at = pixels.const_data_ptr<float>();
  for (int64_t y = 0; y < H * scale; ++y)
    for (int64_t x = 0; x < W * scale; ++x)
      for (int64_t c = 0; c < 3; ++c) {
        const auto& level = p.value[c];  // an even row of levels
        const float share = (at[(c * H + y / scale) * W + x / scale] - level[0]) / (level[255] - level[0]);
        page.at(left + x, y)[c] = static_cast<uint8_t>(std::lround(std::clamp(share, 0.0F, 1.0F) * 255));
      }
}

}  // namespace

MaskedImages::MaskedImages(models::Model& model, const features::Inputs& images, uint64_t seed)
    : model_(model), images_(images), seed_(seed), patches_(0), unseen_(0) {
  if (images_.size() == 0) return;
  const auto& head = head_of(model_);
  const auto first = images_.batch(model_.chains.front().name, {0});
  patches_ = head.patches(first.kept.at("pixel_values").values);
  unseen_ = patches_ - models::seen_patches(patches_, head.config.mask_ratio);
  GRAFT_CHECK(data, unseen_ > 0 && unseen_ < patches_,
              "an image has {} patches of {} pixels; with a mask ratio of {:g} nothing is left to see or to give back. "
              "Change adapt.images.mask_ratio, or take larger images.",
              patches_, head.encoder.patch_size, head.config.mask_ratio);
}

void MaskedImages::expect(const std::vector<int64_t>& examples, uint64_t epoch) const {
  images_.expect(examples, epoch == train::kEvaluation ? 0 : epoch + 1);
}

std::map<std::string, train::Activations> MaskedImages::enter(const std::vector<int64_t>& examples,
                                                              uint64_t epoch) const {
  const auto& chain = model_.chains.front().name;
  auto x =
      epoch == train::kEvaluation ? images_.batch(chain, examples) : images_.batch_view(chain, examples, epoch + 1);
  const auto B = static_cast<int64_t>(examples.size());
  auto noise = torch::empty({B, patches_});
  auto* out = noise.data_ptr<float>();
  for (const auto example : examples) {
    Random random(seed_of(seed_, {"adapt", "mask"}, {epoch, static_cast<uint64_t>(example)}));
    for (int64_t i = 0; i < patches_; ++i) *out++ = static_cast<float>(random.uniform());
  }
  x.kept["noise"] = {noise.to(model_.device()), std::vector<int64_t>(B, 1)};
  if (const auto boundary = model_.boundary(chain); boundary > 0) {
    const torch::NoGradGuard no_grad;
    x = model_.forward(chain, 0, boundary, std::move(x), {});
  }
  return {{chain, std::move(x)}};
}

double MaskedImages::weight(const std::vector<int64_t>& examples, uint64_t) const {
  return static_cast<double>(static_cast<int64_t>(examples.size()) * unseen_);
}

train::Tensor MaskedImages::loss_sum(const train::Outputs& outputs, const std::vector<int64_t>& examples,
                                     uint64_t epoch) const {
  return outputs.at("loss") * weight(examples, epoch);
}

void use_paper_settings(const AdaptOptions& options, bool head_alone, train::PhasePlan& plan) {
  const auto& o = options.images;
  if (!head_alone)
    for (auto& [group, rate] : plan.learning_rates)
      rate = o.base_learning_rate * static_cast<double>(options.batch_size) / 256;
  plan.weight_decay = o.weight_decay;
  plan.adamw.beta2 = o.beta2;
  plan.cosine = true;
  plan.warmup_fraction = o.warmup_fraction;
}

Objective masked_images(models::Model& model, std::shared_ptr<features::Inputs> training,
                        std::shared_ptr<features::Inputs> held_out, const data::Preprocessing& preprocessing,
                        const AdaptOptions& options, uint64_t seed) {
  struct Sides {
    std::shared_ptr<features::Inputs> training, held_out;
  };
  Objective objective{.name = "masked_image", .corpus = std::make_shared<Sides>(Sides{training, held_out})};
  objective.training = std::make_shared<MaskedImages>(model, *training, seed);
  const auto judged = std::make_shared<MaskedImages>(model, *held_out, seed);
  objective.held_out = judged;
  objective.counts = {{"images", training->size() + held_out->size()}, {"held_out_images", held_out->size()}};
  objective.title = "masked autoencoding";
  objective.material =
      fmt::format("{} images, {} of them held out", training->size() + held_out->size(), held_out->size());
  objective.perplexity = false;
  objective.settings = [options](bool head_alone, train::PhasePlan& plan) {
    use_paper_settings(options, head_alone, plan);
  };
  if (preprocessing.bands) return objective;  // nothing shows many bands
  objective.write_samples = [&model, held_out, judged, preprocessing](const std::filesystem::path& folder) {
    const torch::NoGradGuard no_grad;
    model.unfreeze_only(model.all_groups());
    model.eval();
    const auto& head = head_of(model);
    io::make_folder(folder);
    for (int64_t i = 0; i < std::min(kSamples, held_out->size()); ++i) {
      auto entering = judged->enter({i}, train::kEvaluation);
      const auto pixels = entering.begin()->second.kept.at("pixel_values").values;
      const auto outputs = train::forward_behind(model, std::move(entering), std::nullopt);
      const auto H = pixels.size(2), W = pixels.size(3), scale = std::max<int64_t>(1, kSampleSide / std::max(H, W));
      data::Image page((3 * W * scale) + 2 * kGap, H * scale, 3);
      std::fill(page.samples.begin(), page.samples.end(), 255);
      int64_t left = 0;
      for (const auto& values : {pixels, head.seen(outputs, pixels), head.reconstruction(outputs, pixels)}) {
        draw(values[0], preprocessing, scale, left, page);
        left += W * scale + kGap;
      }
      io::write_file(folder / fmt::format("{}.png", i + 1), data::encode_png(page));
    }
  };
  return objective;
}

}  // namespace graft::adapt
