// The launcher: arguments, recipe checks and help without libtorch, whose loading costs a quarter of a second.
// A command that computes is handed to libgraft_engine.so beside this program.
#include <dlfcn.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "cli/cache.h"
#include "cli/commands.h"
#include "graft/core/error.h"
#include "graft/core/interrupt.h"
#include "graft/io/fields.h"
#include "graft/io/file.h"
#include "graft/io/toml.h"
#include "graft/run/recipe.h"
#include "graft/select/catalogue.h"

namespace {

using graft::Json;
using graft::Kind;

struct Arguments {
  std::string recipe, source, data, out, resume, corpus;
  std::string model, inputs, outputs, gradients, golden, file = "-", text = "text", pair, label = "label";
  std::vector<std::string> set, stop, images;
  int64_t max_new_tokens = 128, top_k = 0, seed = 0, batch_size = 8;
  double temperature = 0, top_p = 1;
  bool stream = false;
  std::string sixteen_bit = "scale", mistakes, device = "auto";
  std::string before, after, labels = "auto", add;
  int64_t examples = 1000;
  double decay = 1;
  bool fast_decode = false;
  int64_t max_length = 512, threads = 0, repeat = 1;
  double tolerance = 1e-5;
  std::vector<std::string> candidates;
  std::string domain, licence, max_size, features;
  int64_t sample = 0;
  bool halving = false;
  bool json = false, quiet = false, dry_run = false;
};

void add_run_options(CLI::App& command, Arguments& a) {
  command.add_option("recipe", a.recipe, "recipe in TOML; without one, give --data, --source and --out");
  command.add_option("--source", a.source, "the pretrained model: its folder, or ORG/NAME on the hub");
  command.add_option("--data", a.data, "labelled data: a folder of train, validation, test, or one file");
  command.add_option("--corpus", a.corpus, "unlabelled text or images for domain-adaptive pre-training");
  command.add_option("--out", a.out, "folder for the run");
  command.add_option("--set", a.set, "change a key of the recipe: --set finetune.head.epochs=5 (repeatable)")
      ->take_all();
  command.add_option("--resume", a.resume, "go on with the run in this folder");
  command.add_flag("--dry-run", a.dry_run, "print phases, sizes and expected time, and train nothing");
  command.add_flag("--quiet", a.quiet, "no progress on standard error");
}

/// The recipe of a command line, checked; the engine gets it resolved.
Json recipe_of(const Arguments& a, graft::run::Purpose purpose) {
  Json json = Json::object();
  if (!a.resume.empty()) {
    const auto file = std::filesystem::path(a.resume) / "recipe.toml";
    GRAFT_CHECK(usage, std::filesystem::exists(file),
                "--resume {}: there is no run in this folder (no recipe.toml). Give the folder of a run, or start one "
                "with --out.",
                a.resume);
    json = graft::io::parse_toml(graft::io::read_file(file), file.string());
    json["output"] = a.resume;
  } else if (!a.recipe.empty()) {
    json = graft::io::parse_toml(graft::io::read_file(a.recipe), a.recipe);
    const auto beside = std::filesystem::absolute(a.recipe).parent_path() / "sources.toml";
    if (!json.contains("sources") && std::filesystem::exists(beside)) json["sources"] = beside.string();
  }
  if (!a.candidates.empty()) json["select"]["candidates"] = a.candidates;
  if (!a.domain.empty()) json["select"]["domain"] = a.domain;
  if (!a.licence.empty()) json["select"]["licence"] = a.licence;
  if (!a.max_size.empty()) json["select"]["max_mb"] = graft::select::parse_megabytes(a.max_size);
  if (a.sample != 0) json["select"]["sample"] = a.sample;
  if (a.halving) json["select"]["halving"] = true;
  if (!a.features.empty()) json["features"]["folder"] = a.features;
  if (!a.source.empty()) json["source"] = a.source;
  if (!a.out.empty()) json["output"] = a.out;
  if (!a.data.empty()) json["data"]["path"] = a.data;
  if (!a.corpus.empty()) json["adapt"]["corpus"] = a.corpus;
  return graft::io::write_value(graft::run::read_recipe(json, a.set, purpose));
}

int serve(const Json& request) {
  const auto engine = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libgraft_engine.so";
  void* library = dlopen(engine.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fmt::print(stderr, "graft: the engine could not be loaded: {}. Build it with `make build`.\n", dlerror());
    return static_cast<int>(Kind::bug);
  }
  const auto door = reinterpret_cast<int (*)(const char*)>(dlsym(library, "graft_engine_serve"));
  if (!door) {
    fmt::print(stderr, "graft: {} is not this program's engine. Build it with `make build`.\n", engine.string());
    return static_cast<int>(Kind::bug);
  }
  const int code = door(request.dump().c_str());
  std::cout.flush();
  std::fflush(nullptr);
  // libtorch's threads and caches need no orderly end, and tearing them down costs time.
  _exit(code);
}

int launch(int argc, char** argv) {
  CLI::App app{
      "graft takes a pretrained model to a new domain.\n"
      "Stages: select, adapt, finetune, retain; `graft run` joins them."};
  app.set_version_flag("--version", "graft 0.1.0");
  app.require_subcommand(1);
  Arguments a;
  app.add_flag("--json", a.json, "results for machines");
  app.fallthrough();

  auto& run =
      *app.add_subcommand("run", "the whole pipeline: adapt when a corpus is given, finetune, evaluate, export");
  auto& adapt = *app.add_subcommand("adapt", "domain-adaptive pre-training alone");
  auto& finetune = *app.add_subcommand("finetune", "head only, gradual unfreezing, full fine-tuning");
  for (auto* command : {&run, &adapt, &finetune}) add_run_options(*command, a);
  auto& select = *app.add_subcommand(
      "select",
      "which source transfers best to your data: each candidate's frozen features are computed once and scored");
  select.add_option("recipe", a.recipe, "recipe in TOML, for its [data] and [select]; without one, give --data");
  select.add_option("--data", a.data, "labelled data: a folder of train, validation, test, or one file");
  select.add_option("--candidate", a.candidates, "a folder, or ORG/NAME on the hub (repeatable); none: the list's")
      ->take_all();
  select.add_option("--domain", a.domain, "of the data (medical, legal, ...); else what the data show");
  select.add_option("--licence,--license", a.licence, "a part of the licence's name that the list's must have");
  select.add_option("--max-size", a.max_size, "largest download of a candidate of the list: 500MB, 2GB");
  select.add_option("--sample", a.sample, "most training examples to measure on");
  select.add_flag("--halving", a.halving, "the better half trains heads, twice as long in each round");
  select.add_option("--features", a.features, "keep the stored activations in this folder; a run may share it");
  select.add_option("--set", a.set, "change a key of the recipe: --set select.sample=2000 (repeatable)")->take_all();
  select.add_flag("--quiet", a.quiet, "no progress on standard error");

  auto& evaluate = *app.add_subcommand("evaluate", "metrics of a finished model on labelled data");
  evaluate.add_option("--model", a.model, "model folder")->required();
  evaluate.add_option("--data", a.data, "a labelled file; for image models also a folder or archive")->required();
  auto& predict = *app.add_subcommand(
      "predict", "labels with probabilities for a file or standard input; causal models go on with the text");
  predict.add_option("--model", a.model, "model folder")->required();
  predict.add_option("file", a.file,
                     "JSONL, CSV, TSV or text, - for standard input; for image models an image, folder or archive");
  predict.add_option("--max-new-tokens", a.max_new_tokens, "causal models: most tokens that are added");
  predict.add_option("--temperature", a.temperature, "causal models: 0 for the likeliest token, else drawn");
  predict.add_option("--top-k", a.top_k, "causal models: draw among this many; 0: all");
  predict.add_option("--top-p", a.top_p, "causal models: draw among the likeliest that make up this share");
  predict.add_option("--stop", a.stop, "causal models: end before this text (repeatable)")->take_all();
  predict.add_option("--seed", a.seed, "causal models: of the draws");
  predict.add_option("--batch-size", a.batch_size, "causal models: prompts at a time");
  predict.add_flag("--stream", a.stream, "causal models: print each token as it comes");
  for (auto* command : {&evaluate, &predict}) {
    command->add_option("--text", a.text, "column of the text");
    command->add_option("--pair", a.pair, "column of the second text");
    command->add_option("--max-length", a.max_length, "most tokens of a text");
  }
  evaluate.add_option("--label", a.label, "column of the label");
  evaluate.add_option("--mistakes", a.mistakes, "PNG to write: the most confident mistakes on images");

  auto& forward = *app.add_subcommand("forward", "tensors in, tensors out: what a model computes");
  forward.add_option("--model", a.model, "model folder")->required();
  forward.add_option("--inputs", a.inputs, "safetensors named as the reference's arguments")->required();
  forward.add_option("--outputs", a.outputs, "safetensors to write")->required();
  forward.add_option("--gradients", a.gradients, "safetensors to write; the inputs hold cotangent.<output>");
  forward.add_option("--threads", a.threads, "0: all cores");
  forward.add_option("--repeat", a.repeat, "compute this often and print the seconds of each");
  auto& check = *app.add_subcommand("check", "compares a model with a reference's dump and names the first difference");
  check.add_option("model", a.model, "model folder")->required();
  check.add_option("golden", a.golden, "safetensors with the reference's inputs, outputs and gradients")->required();
  check.add_option("--tolerance", a.tolerance, "of the largest value of a tensor");
  auto& tokenize = *app.add_subcommand(
      "tokenize",
      "JSON lines with `text` (or `messages`, or `prompt` and `completion`) in, with `ids` out; --train makes a "
      "tokenizer");
  auto* const tokenizer_of = tokenize.add_option("--model", a.model, "model folder");
  graft::cli::TokenizerTrainingArguments learning;
  auto* const learned_from =
      tokenize
          .add_option("--train", learning.corpora,
                      "learn a byte-level BPE from this file or folder of texts (repeatable); they are held in memory")
          ->take_all()
          ->excludes(tokenizer_of);
  for (auto* option : {tokenize.add_option("--vocab-size", learning.vocab_size, "--train: ids in all"),
                       tokenize
                           .add_option("--special", learning.special_tokens,
                                       "--train: a special token beside <|endoftext|> (repeatable)")
                           ->take_all(),
                       tokenize.add_option("--text", learning.text, "--train: column of the text, in JSONL and CSV"),
                       tokenize.add_option("--out", learning.out, "--train: folder for the tokenizer")})
    option->needs(learned_from);
  graft::cli::CacheArguments cached;
  auto& cache = graft::cli::add_cache_command(app, cached);
  auto& preprocess = *app.add_subcommand("preprocess", "images in, the pixel values that a model sees out");
  preprocess.add_option("--model", a.model, "model folder, for its preprocessing")->required();
  preprocess.add_option("--outputs", a.outputs, "safetensors to write, by file name")->required();
  preprocess.add_option("images", a.images, "image files, folders or archives")->required();
  preprocess.add_option("--sixteen-bit", a.sixteen_bit, "scale keeps the range; saturate cuts off as Pillow does")
      ->check(CLI::IsMember({"scale", "saturate"}));
  preprocess.add_flag("--fast-decode", a.fast_decode, "decode large JPEGs smaller, and say how much that changes");
  auto& recipe = *app.add_subcommand("recipe", "every key of a recipe with its default and its meaning");

  auto& retain = *app.add_subcommand("retain", "what a model still knows of its source, and how that is protected");
  retain.require_subcommand(1);
  auto& measure =
      *retain.add_subcommand("measure", "what a tuned model lost of another: accuracy, agreement, drift, perplexity");
  measure.add_option("before", a.before, "the source's folder")->required();
  measure.add_option("after", a.after, "the folder of a model that was made from it")->required();
  auto& fisher =
      *retain.add_subcommand("fisher", "how much each weight matters for what a model knows, for retain.ewc");
  fisher.add_option("--model", a.model, "model folder")->required();
  fisher
      .add_option("--out", a.out, "safetensors to write; fisher.safetensors in the model's folder is found by itself")
      ->required();
  fisher
      .add_option("--labels", a.labels,
                  "given (of a corpus its tokens), or own: drawn from the model's outputs; auto: given with --data")
      ->check(CLI::IsMember({"auto", "given", "own"}));
  fisher.add_option("--add", a.add, "file of earlier domains, whose Fisher is added");
  fisher.add_option("--decay", a.decay, "how much of the earlier domains' Fisher stays")->check(CLI::Range(0.0, 1.0));
  for (auto* command : {&measure, &fisher}) {
    command->add_option("--data", a.data, "labelled examples of what the (first) model was trained for");
    command->add_option("--corpus", a.corpus, "general text, for a model with a language head: a file or folder");
    command->add_option("--examples", a.examples, "most examples that are used");
    command->add_option("--text", a.text, "column of the text");
    command->add_option("--pair", a.pair, "column of the second text");
    command->add_option("--label", a.label, "column of the label");
    command->add_option("--max-length", a.max_length, "most tokens of a text");
    command->add_option("--threads", a.threads, "0: all cores");
  }

  for (auto* command : {&evaluate, &predict, &forward, &check, &measure, &fisher})
    command->add_option("--device", a.device,
                        "cpu; cuda, or cuda:1 for the second GPU; auto: a GPU where one can be used");

  graft::cli::PullArguments wish;
  auto& pull = *app.add_subcommand("pull", "downloads a source into the cache; goes on where it was stopped");
  pull.add_option("id", wish.id, "ORG/NAME of the hub, or of the list that `graft sources` prints")->required();
  pull.add_option("--revision", wish.revision, "branch, tag or commit");
  pull.add_option("--file", wish.files, "also this file, or files by a pattern such as '*.pt' (repeatable)");
  pull.add_option("--recipe", wish.recipe, "also by the sources.toml beside this recipe");
  pull.add_flag("--quiet", wish.quiet, "no progress on standard error");

  graft::cli::SourcesArguments wishes;
  auto& sources = *app.add_subcommand(
      "sources",
      "the pretrained models to start from, with sizes and licences.\nRows of your own go into graft/sources.toml in "
      "the "
      "configuration folder, or sources.toml beside a recipe (--recipe),\nas [[source]] tables like those of "
      "graft/select/catalogue.toml.");
  sources.add_option("id", wishes.id, "a model or a system: everything that is known of it, and how it is known");
  sources.add_option("--modality", wishes.modality, "image, text or multimodal");
  sources.add_option("--domain", wishes.domain, "medical, satellite, ...; general models stay in the list");
  sources.add_option("--max-size", wishes.max_size, "largest download: 500MB, 2GB");
  sources.add_option("--licence,--license", wishes.licence, "a part of the licence's name: mit, apache");
  sources.add_option("--data", wishes.data, "finds modality and domain from these data, and says why");
  sources.add_option("--recipe", wishes.recipe, "also the sources.toml beside this recipe");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int code = app.exit(e);
    return code == 0 ? 0 : static_cast<int>(Kind::usage);
  }

  if (recipe.parsed()) {
    fmt::print("{}", graft::run::recipe_reference());
    return 0;
  }
  if (cache.parsed()) return graft::cli::cache_command(cache, cached, a.json);
  if (sources.parsed()) {
    wishes.json = a.json;
    return graft::cli::sources_command(wishes);
  }
  if (pull.parsed()) {
    wish.json = a.json;
    return graft::cli::pull_command(wish);
  }
  if (tokenize.parsed() && !learning.corpora.empty()) {
    learning.json = a.json;
    return graft::cli::train_tokenizer_command(learning);
  }
  GRAFT_CHECK(usage, !tokenize.parsed() || !a.model.empty(),
              "tokenize: give a model folder by --model, or texts to learn a tokenizer from by --train.");
  Json request{{"command", app.get_subcommands().front()->get_name()}, {"json", a.json}, {"quiet", a.quiet}};
  if (run.parsed() || adapt.parsed() || finetune.parsed()) {
    const auto purpose = adapt.parsed()      ? graft::run::Purpose::adapt
                         : finetune.parsed() ? graft::run::Purpose::finetune
                                             : graft::run::Purpose::run;
    request["recipe"] = recipe_of(a, purpose);
    request["resume"] = !a.resume.empty();
    request["dry_run"] = a.dry_run;
  } else if (select.parsed()) {
    request["recipe"] = recipe_of(a, graft::run::Purpose::select);
  } else if (retain.parsed()) {
    request.update({{"action", retain.get_subcommands().front()->get_name()},
                    {"before", a.before},
                    {"after", a.after},
                    {"model", a.model},
                    {"out", a.out},
                    {"labels", a.labels},
                    {"add", a.add},
                    {"decay", a.decay},
                    {"examples", a.examples},
                    {"max_length", a.max_length},
                    {"threads", a.threads},
                    {"device", a.device},
                    {"data", a.data},
                    {"corpus", a.corpus},
                    {"data_options", {{"text", a.text}, {"pair", a.pair}, {"label", a.label}}}});
  } else {
    request.update({{"model", a.model},
                    {"file", a.file},
                    {"text", a.text},
                    {"pair", a.pair},
                    {"max_length", a.max_length},
                    {"stream", a.stream},
                    {"generation",
                     {{"max_new_tokens", a.max_new_tokens},
                      {"temperature", a.temperature},
                      {"top_k", a.top_k},
                      {"top_p", a.top_p},
                      {"stop", a.stop},
                      {"seed", a.seed},
                      {"batch_size", a.batch_size}}},
                    {"inputs", a.inputs},
                    {"outputs", a.outputs},
                    {"gradients", a.gradients},
                    {"golden", a.golden},
                    {"tolerance", a.tolerance},
                    {"threads", a.threads},
                    {"device", a.device},
                    {"repeat", a.repeat},
                    {"data", a.data},
                    {"mistakes", a.mistakes},
                    {"images", a.images},
                    {"sixteen_bit", a.sixteen_bit},
                    {"fast_decode", a.fast_decode},
                    {"data_options", {{"text", a.text}, {"pair", a.pair}, {"label", a.label}}}});
  }
  return serve(request);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return launch(argc, argv);
  } catch (const graft::Interrupted& e) {
    fmt::print(stderr, "\ninterrupted; what arrived is kept, and the same command goes on from there.\n");
    return 128 + e.signal;
  } catch (const graft::Error& e) {
    fmt::print(stderr, "graft: {}\n", e.what());
    return static_cast<int>(e.kind);
  } catch (const std::exception& e) {
    fmt::print(stderr, "graft: this is a bug in graft, please report it: {}\n", e.what());
    return static_cast<int>(Kind::bug);
  }
}
