#include "graft/run/task_inputs.h"

#include "graft/nn/fresh.h"
#include "graft/run/image_task.h"
#include "graft/run/text_task.h"

namespace graft::run {
namespace {

bool takes_images(const models::Source& source) {
  // A folder of text says so by its tokenizer; only where that is open is the architecture built to be asked.
  bool tokenizer = false, preprocessing = source.config.contains("pretrained_cfg");
  for (const auto* name : {"tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "tokenizer.model"})
    tokenizer = tokenizer || std::filesystem::exists(source.folder / name);
  for (const auto* name : {"preprocessor_config.json", "transform.json"})
    preprocessing = preprocessing || std::filesystem::exists(source.folder / name);
  if (tokenizer && !preprocessing) return false;
  const nn::PutOff values;  // only its chains are asked for
  return source.architecture->create(source.config, {"features"})->chains.front().name == "image";
}

}  // namespace

std::unique_ptr<TaskInputs> task_inputs(const models::Source& source, int64_t max_length,
                                        const data::ImageOptions& images, const data::LanguageOptions& language) {
  if (takes_images(source)) return std::make_unique<ImageTask>(source, images);
  return std::make_unique<TextTask>(source, max_length, language);
}

}  // namespace graft::run
