#include "graft/run/recipe.h"

#include "graft/io/fields.h"
#include "graft/io/toml.h"

namespace graft::run {
namespace {

class Checks {
 public:
  explicit Checks(std::vector<std::string>& mistakes) : mistakes_(mistakes) {}

  void expect(bool good, const std::string& key, const std::string& expected, const auto& found) {
    if (!good) mistakes_.push_back(fmt::format("{}: expected {}, found {}", key, expected, Json(found).dump()));
  }
  void one_of(const std::string& key, const std::string& found, const std::vector<std::string>& known) {
    if (std::find(known.begin(), known.end(), found) != known.end()) return;
    const auto guess = nearest(found, known);
    mistakes_.push_back(fmt::format("{}: expected one of {}, found \"{}\"{}", key, listed(known), found,
                                    guess.empty() ? "" : "; did you mean \"" + guess + "\"?"));
  }
  void at_least(const std::string& key, double least, double found) {
    expect(found >= least, key, fmt::format("at least {:g}", least), found);
  }
  void positive(const std::string& key, double found) { expect(found > 0, key, "more than 0", found); }
  void fraction(const std::string& key, double found) {
    expect(found >= 0 && found < 1, key, "from 0 to below 1", found);
  }

 private:
  std::vector<std::string>& mistakes_;
};

void check_data(const Recipe& r, Checks& c, std::vector<std::string>& mistakes) {
  const auto& d = r.data;
  if (d.path.empty() && d.train.empty())
    mistakes.push_back(
        "data.path: is missing; give a folder of train, validation and test files, or one file (or name them by "
        "data.train, data.validation, data.test)");
  if (!d.path.empty() && !d.train.empty()) mistakes.push_back("data.path and data.train: give one of them, not both");
  c.one_of("data.task", d.task, {"classification", "multilabel", "regression", "tokens", "causal_lm"});
  c.one_of("data.bad_rows", d.bad_rows, {"stop", "skip"});
  c.fraction("data.validation_fraction", d.validation_fraction);
  c.fraction("data.test_fraction", d.test_fraction);
  c.at_least("data.max_train", 0, d.max_train);
  c.at_least("images.pixel_limit", 1, r.images.pixel_limit);
  c.one_of("images.sixteen_bit", r.images.sixteen_bit, {"scale", "saturate"});
  c.at_least("images.cache_gb", 0, r.images.cache_gb);
  const auto& a = r.images.augment;
  const auto within = [&](const char* key, double found, double least, double most) {
    c.expect(found >= least && found <= most, std::string("images.augment.") + key,
             fmt::format("from {:g} to {:g}", least, most), found);
  };
  within("smallest_crop", a.smallest_crop, 0.01, 1);
  within("crop_ratio", a.crop_ratio, 1, 10);
  within("flip_horizontal", a.flip_horizontal, 0, 1);
  within("flip_vertical", a.flip_vertical, 0, 1);
  within("rotation", a.rotation, 0, 180);
  within("brightness", a.brightness, 0, 1);
  within("contrast", a.contrast, 0, 1);
  within("saturation", a.saturation, 0, 1);
  within("hue", a.hue, 0, 0.5);
  within("randaugment", static_cast<double>(a.randaugment), 0, 10);
  within("randaugment_strength", a.randaugment_strength, 0, 30);
  within("views", static_cast<double>(a.views), 1, 100);
  within("mixup", a.mixup, 0, 1);
  within("cutmix", a.cutmix, 0, 1);
  within("erasing", a.erasing, 0, 1);
}

void check_finetune(const Recipe& r, Checks& c) {
  c.one_of("finetune.batch_norm", r.finetune.batch_norm, {"source", "held", "target"});
  const auto& h = r.finetune.head;
  c.at_least("finetune.head.epochs", 1, h.epochs);
  c.at_least("finetune.head.min_epochs", 0, h.min_epochs);
  c.at_least("finetune.head.patience", 0, h.patience);
  c.expect(!h.learning_rates.empty(), "finetune.head.learning_rates", "at least one", h.learning_rates);
  c.expect(!h.weight_decays.empty(), "finetune.head.weight_decays", "at least one", h.weight_decays);
  for (const auto rate : h.learning_rates) c.positive("finetune.head.learning_rates", rate);
  const auto& u = r.finetune.unfreeze;
  c.at_least("finetune.unfreeze.max_units", -1, u.max_units);
  c.at_least("finetune.unfreeze.epochs", 1, u.epochs);
  c.at_least("finetune.unfreeze.patience_units", 0, u.patience_units);
  c.positive("finetune.unfreeze.learning_rate", u.learning_rate);
  c.positive("finetune.unfreeze.head_learning_rate", u.head_learning_rate);
  c.at_least("finetune.unfreeze.divisor", 1, u.divisor);
  c.one_of("finetune.unfreeze.order", u.order, {"last_first", "first_first"});
  const auto& f = r.finetune.full;
  c.one_of("finetune.full.when", f.when, {"auto", "always", "never"});
  c.at_least("finetune.full.epochs", 1, f.epochs);
  c.at_least("finetune.full.patience", 0, f.patience);
  c.positive("finetune.full.learning_rate", f.learning_rate);
}

void check_adapt(const Recipe& r, Checks& c) {
  const auto& a = r.adapt;
  c.at_least("adapt.epochs", 1, a.epochs);
  c.at_least("adapt.head_epochs", 0, a.head_epochs);
  c.positive("adapt.head_learning_rate", a.head_learning_rate);
  c.positive("adapt.learning_rate", a.learning_rate);
  c.expect(a.mask_probability > 0 && a.mask_probability < 1, "adapt.mask_probability", "between 0 and 1",
           a.mask_probability);
  c.fraction("adapt.held_out_fraction", a.held_out_fraction);
  c.positive("adapt.held_out_fraction", a.held_out_fraction);
  c.at_least("adapt.max_length", 8, a.max_length);
  c.at_least("adapt.batch_size", 1, a.batch_size);
  c.one_of("adapt.bad_rows", a.bad_rows, {"stop", "skip"});
  const auto& i = a.images;
  c.expect(i.mask_ratio > 0 && i.mask_ratio < 1, "adapt.images.mask_ratio", "between 0 and 1", i.mask_ratio);
  c.positive("adapt.images.base_learning_rate", i.base_learning_rate);
  c.at_least("adapt.images.weight_decay", 0, i.weight_decay);
  c.fraction("adapt.images.beta2", i.beta2);
  c.fraction("adapt.images.warmup_fraction", i.warmup_fraction);
  c.expect(i.smallest_crop >= 0.01 && i.smallest_crop <= 1, "adapt.images.smallest_crop", "from 0.01 to 1",
           i.smallest_crop);
  c.expect(i.decoder_width > 0 && i.decoder_width % 4 == 0, "adapt.images.decoder_width", "a multiple of 4",
           i.decoder_width);
  c.at_least("adapt.images.decoder_layers", 0, i.decoder_layers);
  c.expect(i.decoder_heads > 0 && i.decoder_width % i.decoder_heads == 0, "adapt.images.decoder_heads",
           "a divisor of decoder_width", i.decoder_heads);
}

void check_language(const Recipe& r, Checks& c) {
  const auto share = [&](const char* key, double found) {
    c.expect(found >= 0 && found <= 1, key, "from 0 to 1", found);
  };
  share("language.fill_in_the_middle", r.language.fill_in_the_middle);
  c.one_of("language.learn", r.language.learn, {"answers", "everything"});
  share("language.suffix_first", r.language.suffix_first);
}

void check_train(const Recipe& r, Checks& c) {
  const auto& t = r.train;
  c.at_least("max_length", 4, r.max_length);
  c.at_least("train.batch_size", 1, t.batch_size);
  c.at_least("train.micro_batch_tokens", 1, t.micro_batch_tokens);
  c.fraction("train.warmup_fraction", t.warmup_fraction);
  c.at_least("train.weight_decay", 0, t.weight_decay);
  c.at_least("train.max_gradient_norm", 0, t.max_gradient_norm);
  c.one_of("train.precision", t.precision, {"float32", "bfloat16"});
  c.one_of("train.weights", t.weights, {"float32", "bfloat16", "bfloat16_stochastic"});
  const bool gpu = t.device.starts_with("cuda:") && t.device.size() <= 7 && t.device.size() > 5 &&
                   t.device.find_first_not_of("0123456789", 5) == std::string::npos;
  c.expect(gpu || t.device == "auto" || t.device == "cpu" || t.device == "cuda", "train.device",
           "auto, cpu, cuda or cuda:N", t.device);
  c.at_least("train.threads", 0, t.threads);
  c.one_of("features.precision", r.features.precision, {"float32", "bfloat16", "float16"});
  c.at_least("lora.rank", 0, r.lora.rank);
  c.positive("lora.alpha", r.lora.alpha);
  c.fraction("lora.dropout", r.lora.dropout);
  c.one_of("lora.head", r.lora.head, {"train", "freeze"});
  c.expect(!r.lora.targets.empty(), "lora.targets", "at least one", r.lora.targets);
  c.at_least("features.budget_gb", 0, r.features.budget_gb);
  c.at_least("features.capture_tokens", 1, r.features.capture_tokens);
  c.at_least("features.units_ahead", 0, r.features.units_ahead);
}

void check_retain(const Recipe& r, Purpose purpose, Checks& c, std::vector<std::string>& mistakes) {
  const auto& k = r.retain;
  c.at_least("retain.examples", 2, k.examples);
  c.at_least("retain.l2sp", 0, k.l2sp);
  c.expect(k.max_forgetting < 1, "retain.max_forgetting", "less than 1", k.max_forgetting);
  if (r.lora.rank > 0 && (k.interpolate || k.max_forgetting >= 0))
    mistakes.push_back(
        "retain.interpolate and retain.max_forgetting: go along the weights, which lora.rank leaves alone");
  c.at_least("retain.strengthen_by", 1, k.strengthen_by);
  for (const auto& name : k.strengthened) c.one_of("retain.strengthened", name, {"ewc", "l2sp", "lwf", "replay", "kl"});
  c.expect(k.ewc.decay >= 0 && k.ewc.decay <= 1, "retain.ewc.decay", "from 0 to 1", k.ewc.decay);
  if (purpose == Purpose::adapt && (k.interpolate || k.max_forgetting >= 0))
    mistakes.push_back(
        "retain.interpolate and retain.max_forgetting: are for finetuning; adapt alone cannot keep them");
  if (purpose == Purpose::adapt && k.lwf.weight > 0)
    mistakes.push_back("retain.lwf: is for finetuning; what adapt can hold is retain.kl, ewc, l2sp and replay");
  c.at_least("retain.ewc.strength", 0, k.ewc.strength);
  c.at_least("retain.ewc.examples", 1, k.ewc.examples);
  c.one_of("retain.ewc.labels", k.ewc.labels, {"auto", "given", "own"});
  c.at_least("retain.lwf.weight", 0, k.lwf.weight);
  c.positive("retain.lwf.temperature", k.lwf.temperature);
  c.fraction("retain.replay.fraction", k.replay.fraction);
  c.at_least("retain.replay.size", 0, k.replay.size);
  c.at_least("retain.replay.logits", 0, k.replay.logits);
  c.one_of("retain.replay.buffer", k.replay.buffer, {"all", "reservoir", "balanced", "herding"});
  if (k.replay.buffer == "all" && k.replay.size > 0)
    mistakes.push_back(
        "retain.replay.size: leaves examples out, and retain.replay.buffer = \"all\" keeps them; give one of them");
  if ((k.replay.buffer == "reservoir" || k.replay.buffer == "herding") && k.replay.size == 0)
    mistakes.push_back(
        fmt::format("retain.replay.size: is missing; {} chooses so many source examples", k.replay.buffer));
  c.at_least("retain.kl.coefficient", 0, k.kl.coefficient);
  c.one_of("retain.kl.direction", k.kl.direction, {"tuned_source", "source_tuned"});
  c.at_least("retain.kl.target", 0, k.kl.target);
  c.one_of("retain.kl.teacher", k.kl.teacher, {"auto", "live", "top_k"});
  c.at_least("retain.kl.top_k", 1, k.kl.top_k);
  if (k.kl.target > 0 && k.kl.coefficient == 0)
    mistakes.push_back("retain.kl.target: adapts retain.kl.coefficient, which is 0; give it a start, for example 0.1");
  const auto& h = k.corpus_held_out;
  c.expect(h > 0 && h < 1, "retain.corpus_held_out", "between 0 and 1", h);
  if (!k.corpus.empty() && k.has_source_data())
    mistakes.push_back(
        "retain.source_data and retain.corpus: give one of them; a source is asked by its classifier or by its "
        "language "
        "head");
  if (k.kl.corpus && (k.corpus.empty() || k.kl.coefficient == 0))
    mistakes.push_back("retain.kl.corpus: holds the KL on retain.corpus; give that and retain.kl.coefficient");
  const auto wants_data = [&](bool wanted, const char* what) {
    if (wanted && !k.has_source_data() && k.corpus.empty())
      mistakes.push_back(
          fmt::format("retain.source_data.path: is missing; {} needs labelled examples of what the source "
                      "was trained for (or, of a language model, general text: retain.corpus)",
                      what));
  };
  wants_data(k.replay.fraction > 0, "retain.replay");
  wants_data(k.ewc.labels == "given", "retain.ewc.labels = \"given\"");
  if (r.lora.rank > 0 && (k.ewc.strength > 0 || k.l2sp > 0))
    mistakes.push_back(
        "retain.ewc and retain.l2sp: pull weights towards the source, and with lora.rank the source's weights do not "
        "move; leave one of them out");
  if (r.train.weights != "float32" && (k.ewc.strength > 0 || k.l2sp > 0))
    mistakes.push_back(
        "retain.ewc and retain.l2sp: pull by less than bfloat16 can hold; leave them out, or train.weights at "
        "\"float32\"");
}

/// "finetune.head.epochs=5": the value as TOML reads it, or as a text when it is none.
void apply(Json& json, const std::string& assignment, std::vector<std::string>& mistakes) {
  const auto equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    mistakes.push_back(fmt::format("--set {}: expected key=value", assignment));
    return;
  }
  Json value;
  try {
    value = io::parse_toml("value = " + assignment.substr(equals + 1), "--set")["value"];
  } catch (const Error&) {
    value = assignment.substr(equals + 1);
  }
  auto* place = &json;
  std::string key = assignment.substr(0, equals);
  for (size_t dot; (dot = key.find('.')) != std::string::npos; key = key.substr(dot + 1)) {
    place = &(*place)[key.substr(0, dot)];
    if (!place->is_object() && !place->is_null()) {
      mistakes.push_back(fmt::format("--set {}: {} is not a section", assignment, key.substr(0, dot)));
      return;
    }
  }
  (*place)[key] = std::move(value);
}

template <class T>
void describe(T& part, const std::string& section, std::string& text) {
  std::string sections;
  part.visit([&](const char* name, auto& value, const char* meaning) {
    using Field = std::decay_t<decltype(value)>;
    if constexpr (io::Described<Field>) {
      const auto inner = section.empty() ? name : section + "." + name;
      sections += fmt::format("\n# {}\n[{}]\n", meaning, inner);
      describe(value, inner, sections);
    } else {
      text += fmt::format("{:<44} # {}\n", fmt::format("{} = {}", name, io::write_value(value).dump()), meaning);
    }
  });
  text += sections;
}

}  // namespace

Recipe read_recipe(Json json, const std::vector<std::string>& set, Purpose purpose) {
  std::vector<std::string> mistakes;
  for (const auto& assignment : set) apply(json, assignment, mistakes);
  Recipe recipe;
  io::read_value(json, recipe, "", mistakes);
  if (recipe.source.empty() && purpose != Purpose::select)
    mistakes.push_back("source: is missing; give the folder of a pretrained model, or ORG/NAME on the hub");
  if (recipe.output.empty() && purpose != Purpose::select)
    mistakes.push_back("output: is missing; give the folder for the run");
  Checks checks(mistakes);
  check_train(recipe, checks);
  check_language(recipe, checks);
  if (purpose != Purpose::adapt) {
    check_data(recipe, checks, mistakes);
    check_finetune(recipe, checks);
    checks.at_least("select.sample", 50, recipe.select.sample);
    checks.at_least("select.max_mb", 0, recipe.select.max_mb);
    checks.at_least("select.seconds", 0, recipe.select.seconds);
  }
  check_retain(recipe, purpose, checks, mistakes);
  if (purpose == Purpose::adapt && recipe.source == "auto")
    mistakes.push_back("source: auto measures sources on labelled data; adapting alone has none, so name the source");
  if (purpose == Purpose::adapt && recipe.adapt.corpus.empty())
    mistakes.push_back("adapt.corpus: is missing; give a file or folder of unlabelled text or images");
  if (purpose == Purpose::run || purpose == Purpose::adapt) check_adapt(recipe, checks);
  // Frozen blocks are computed as those that train, wherever the pass over them is made.
  recipe.features.bf16 = recipe.train.bf16();
  if (mistakes.empty()) return recipe;
  std::string text =
      fmt::format("the recipe has {} {}:", mistakes.size(), mistakes.size() == 1 ? "mistake" : "mistakes");
  for (const auto& mistake : mistakes) text += "\n  " + mistake;
  throw Error(Kind::usage, text);
}

std::string recipe_text(const Recipe& recipe) { return io::write_toml(io::write_value(recipe)); }

std::string recipe_reference() {
  Recipe recipe;
  std::string text;
  describe(recipe, "", text);
  return text;
}

}  // namespace graft::run
