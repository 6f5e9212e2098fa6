// A run's recipe: one strict TOML file. All mistakes are reported at once, before anything is loaded.
#pragma once

#include "graft/adapt/options.h"
#include "graft/data/dataset.h"
#include "graft/data/images/options.h"
#include "graft/data/language/options.h"
#include "graft/features/options.h"
#include "graft/finetune/options.h"
#include "graft/models/lora_options.h"
#include "graft/retain/options.h"
#include "graft/select/options.h"
#include "graft/train/options.h"

namespace graft::run {

struct Recipe {
  std::string source;
  std::string sources;
  std::string output;
  int64_t seed = 0;
  int64_t max_length = 128;
  select::SelectOptions select;
  data::DataOptions data;
  data::ImageOptions images;
  data::LanguageOptions language;
  adapt::AdaptOptions adapt;
  finetune::FinetuneOptions finetune;
  train::TrainOptions train;
  features::StoreOptions features;
  models::LoraOptions lora;
  retain::RetainOptions retain;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("source", source, "the pretrained model: its folder, ORG/NAME[@REVISION] on the hub, or auto");
    field("sources", sources, "a list of sources of your own, as the one beside the recipe is: sources.toml");
    field("output", output, "the run's folder");
    field("seed", seed, "of everything random");
    field("max_length", max_length, "most tokens of a text; the rest is cut off");
    field("select", select, "which sources compete where `source` is auto, and for graft select");
    field("data", data, "labelled examples");
    field("images", images, "how image files are read, for image models");
    field("language", language, "how texts are read for causal language modelling (data.task causal_lm; adapt)");
    field("adapt", adapt, "domain-adaptive pre-training");
    field("finetune", finetune, "the progressive schedule");
    field("train", train, "what all phases share");
    field("features", features, "the store of activations");
    field("lora", lora, "low-rank adapters in the place of the weights");
    field("retain", retain, "keeping what the source knew");
  }
};

/// What a command does with a recipe: which sections must be filled.
enum class Purpose { run, adapt, finetune, select };

/// Reads JSON (from TOML) with `set` ("finetune.head.epochs=5") applied, and checks every value.
/// Throws Kind::usage listing all mistakes.
Recipe read_recipe(Json json, const std::vector<std::string>& set, Purpose purpose);
/// Resolved and complete, as TOML.
std::string recipe_text(const Recipe& recipe);
/// Every key with its default and what it means, for `graft recipe`.
std::string recipe_reference();

}  // namespace graft::run
