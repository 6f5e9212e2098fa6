#include "graft/run/pipeline.h"

#include <chrono>

#include "graft/adapt/adaptation.h"
#include "graft/core/error.h"
#include "graft/core/hash.h"
#include "graft/core/interrupt.h"
#include "graft/core/process.h"
#include "graft/core/random.h"
#include "graft/data/language/chat_template.h"
#include "graft/finetune/schedule.h"
#include "graft/io/commit.h"
#include "graft/io/safetensors.h"
#include "graft/models/device.h"
#include "graft/models/lora.h"
#include "graft/models/weight_type.h"
#include "graft/report/journal.h"
#include "graft/retain/ewc.h"
#include "graft/retain/fisher.h"
#include "graft/retain/interpolation.h"
#include "graft/retain/lwf.h"
#include "graft/retain/own_labels.h"
#include "graft/run/export.h"
#include "graft/run/find_source.h"
#include "graft/run/machine.h"
#include "graft/run/retention.h"
#include "graft/run/selection.h"
#include "graft/run/task_inputs.h"
#include "graft/train/batch_norm_statistics.h"

namespace graft::run {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using models::Source;
using models::Tensor;
using Tensors = std::map<std::string, Tensor>;

constexpr const char* kHoldsARun =
    "{}: holds a run already. Resume it with --resume {}, or give another output folder.";

struct Runner {
  Runner(const Recipe& recipe, const FoundSource& origin, Purpose purpose, report::Progress& progress)
      : recipe(recipe),
        origin(origin),
        purpose(purpose),
        progress(progress),
        folder(recipe.output),
        journal(folder / "journal.jsonl"),
        sessions(folder / "sessions.jsonl"),
        checkpoints(folder / "checkpoints") {}

  // --- saving and resuming -------------------------------------------------------------------------------------

  void save(const std::string& stage, const Json& state, const Tensors& tensors, bool must) {
    const double since = std::chrono::duration<double>(Clock::now() - last_saved).count();
    if (!must && since < recipe.train.checkpoint_seconds) return;
    const Json all{{"stage", stage},
                   {"state", state},
                   {"results", results},
                   {"journal_bytes", journal.size()},
                   {"identity", identity}};
    checkpoints.write(++checkpoint, {{"tensors.safetensors", models::to_views(tensors)}}, all);
    last_saved = Clock::now();
  }

  /// The newest checkpoint; the journal is cut to what it remembers.
  void load_checkpoint() {
    checkpoints.sweep();
    const auto latest = checkpoints.latest();
    for (const auto& sentence : latest.skipped) progress.line("note: " + sentence);
    if (!latest.found) {
      journal.cut(0);
      return;
    }
    const auto& state = latest.found->state;
    checkpoint = latest.found->index;
    saved_stage = state.at("stage");
    saved_state = state.at("state");
    results = state.at("results");
    saved_identity = state.at("identity");
    journal.cut(state.at("journal_bytes").get<uint64_t>());
    const auto file = io::read_safetensors(latest.found->path / "tensors.safetensors");
    for (const auto& [name, view] : file.tensors) saved_tensors[name] = models::to_tensor(name, view);
    progress.line(fmt::format("resuming from checkpoint {} ({})", checkpoint, saved_stage));
  }

  void check_identity() {
    if (saved_identity.is_null()) return;
    for (const auto* key : {"source", "data"})
      if (saved_identity.contains(key) && identity.contains(key))
        GRAFT_CHECK(usage, saved_identity[key] == identity[key],
                    "{}: the {} has changed since the run was started, so it cannot be resumed. Start a new run.",
                    folder.string(), key);
    if (saved_identity.contains("device") && saved_identity["device"] != identity["device"])
      progress.line(fmt::format(
          "warning: the run was started on {} and goes on on {}; results will agree to rounding, not to the "
          "bit.",
          saved_identity["device"].get<std::string>(), identity["device"].get<std::string>()));
    if (saved_identity["threads"] != identity["threads"])
      progress.line(
          fmt::format("warning: the run was started with {} threads and goes on with {}; results will agree to "
                      "rounding, not to the bit.",
                      saved_identity["threads"].dump(), identity["threads"].dump()));
  }

  // --- stages --------------------------------------------------------------------------------------------------

  void start() {
    io::make_folder(folder);
    io::sweep_temporaries(folder);
    io::write_file(folder / "recipe.toml", recipe_text(recipe));
    sessions.write("started", {{"threads", at::get_num_threads()}});
  }

  /// Refuses a run whose checkpoints and result would not fit, before anything learns. `trained`: the groups of the
  /// largest phase, of which a checkpoint holds the weights, the best weights and AdamW's two moments. `folders`: of models
  /// that will be written.
  void require_room(const models::Model& model, const std::set<std::string>& trained, int folders) const {
    constexpr uint64_t kFloat = 4, kCopies = 4, kCheckpoints = 3;  // two are kept while the next is written
    uint64_t all = 0, learning = 0;
    for (const auto& item : model.parameters_by_key()) {
      all += item.value().numel();
      if (trained.contains(model.group_of(item.key()))) learning += item.value().numel();
    }
    uint64_t there = 0;  // a resumed run's own checkpoints make room for the next
    if (const auto saved = folder / "checkpoints"; fs::exists(saved))
      for (const auto& file : fs::recursive_directory_iterator(saved))
        if (file.is_regular_file()) there += file.file_size();
    const auto wanted = kFloat * (kCheckpoints * kCopies * learning + folders * all);
    io::require_space(folder, wanted > there ? wanted - there : 0,
                      fmt::format("a run that trains {:.1f} of {:.1f} million parameters, for its checkpoints and its "
                                  "result,",
                                  learning / 1e6, all / 1e6));
  }

  fs::path adapted_folder() const { return folder / "adapted"; }

  Source open_source() const {
    auto source = Source::open(origin.folder);
    source.name = origin.name;
    return source;
  }

  torch::Dtype weights() const { return models::weight_type_named(recipe.train.weights); }

  /// `source`, when the adapters are to stand beside it in the end; `fresh`: keys of the head that were not in it.
  void attach_adapters(models::Model& model, const char* stage, const Source* beside,
                       const std::vector<std::string>& fresh) const {
    if (recipe.lora.rank == 0) return;
    GRAFT_CHECK(
        usage, !beside || beside->adapter_config.is_null(),
        "lora.merge: {} is an adapter itself, and PEFT opens no adapter upon another. Set lora.merge = true, so "
        "that the result is a whole model.",
        origin.name);
    const auto layers = models::attach_lora(model, recipe.lora, seed_of(recipe.seed, {stage, "lora"}), fresh);
    progress.line(fmt::format("{} linear layers learn through adapters of rank {}", layers.size(), recipe.lora.rank));
  }

  /// Stage `adapt`: leaves a complete model folder, which is the source of what follows.
  void adapt() {
    if (recipe.adapt.corpus.empty() || (!saved_stage.empty() && saved_stage != "adapt")) return;
    auto source = open_source();
    const models::Task task{source.architecture->language_task};
    GRAFT_CHECK(model, !task.kind.empty(),
                "{}: graft has no objective to adapt a {} with; masked autoencoding is for ViT and ViT-MAE. Leave "
                "adapt.corpus out, or take another source.",
                source.name, source.architecture->model_type);
    const auto kind = task_inputs(source, recipe.adapt.max_length, recipe.images, recipe.language);
    kind->settle_adaptation(source, recipe.adapt);
    const auto loaded = models::load(source, task, seed_of(recipe.seed, {"adapt", "head"}), true, weights());
    // The stages share model folders and nothing else, so what finetuning starts from is whole.
    const bool beside = recipe.lora.rank > 0 && !recipe.lora.merge && purpose == Purpose::adapt;
    attach_adapters(*loaded.model, "adapt", beside ? &source : nullptr, loaded.report.fresh);
    require_room(*loaded.model, loaded.model->all_groups(), purpose == Purpose::run ? 2 : 1);
    if (saved_stage.empty()) {
      journal.write("start", {{"source", source.name}, {"source_hash", identity["source"]}, {"seed", recipe.seed}});
      if (!loaded.report.fresh.empty())
        progress.line(fmt::format(
            "the source has no {}; it gets a fresh one{}: {}", kind->of_images() ? "decoder" : "language head",
            recipe.adapt.head_epochs > 0 ? ", which first learns alone" : "", listed(loaded.report.fresh, 3)));
    }
    const auto objective =
        kind->objective(*loaded.model, source, recipe.adapt, recipe.seed,
                        [&](int64_t done, int64_t total) { progress.step("reading the corpus", done, total); });
    adapt::Hooks hooks;
    hooks.journal = [&](const std::string& event, Json fields) { journal.write(event, std::move(fields)); };
    hooks.save = [&](const Json& state, const Tensors& tensors, bool must) { save("adapt", state, tensors, must); };
    hooks.progress = &progress;
    const auto knowledge = adaptation_knowledge();
    // The language head that the source had goes on learning; a fresh one is none of the source's.
    const bool own_head = knowledge && knowledge->task().kind == task.kind && loaded.report.fresh.empty();
    if (knowledge) {
      check_source_data(*knowledge);
      hooks.terms = retaining_in_adapt(*knowledge, *loaded.model, loaded.report.fresh, own_head, objective);
      if (recipe.retain.report && knowledge->has_data())
        hooks.retained = [&] { return report_adaptation(*knowledge, *loaded.model, own_head); };
    }
    adapt::Adaptation stage(*loaded.model, objective, recipe.adapt, recipe.train, recipe.seed,
                            !loaded.report.fresh.empty(), hooks);
    if (saved_stage == "adapt") stage.resume(saved_state, std::exchange(saved_tensors, {}));
    stage.run();
    results["adapt"] = stage.result();
    if (objective.write_samples) objective.write_samples(folder / "reconstructions");
    const auto target = purpose == Purpose::adapt ? folder / "model" : adapted_folder();
    if (recipe.lora.rank > 0 && !beside) models::merge_lora(*loaded.model);
    const std::string measure = objective.perplexity ? "perplexity" : "loss";
    export_model(target, source, *loaded.model, task, {}, kind->files(*loaded.model),
                 {source.name,
                  task.kind,
                  kind->of_images(),
                  {{"held_out",
                    {{measure + " before", stage.result()["before"][measure]},
                     {measure + " after", stage.result()["after"][measure]}}}}},
                 beside ? &recipe.lora : nullptr);
    save("adapted", Json::object(), {}, true);
  }

  void finetune() {
    if (saved_stage == "done") return;
    const bool adapted = !recipe.adapt.corpus.empty() && purpose != Purpose::finetune;
    auto source = adapted ? Source::open(adapted_folder()) : open_source();
    const auto kind = task_inputs(source, recipe.max_length, recipe.images, recipe.language);
    kind->settle(source);
    auto dataset = kind->read(recipe.data, recipe.seed, {});
    const models::Task task{dataset.task,
                            dataset.task == "regression" ? 1 : static_cast<int64_t>(dataset.label_names.size())};
    const auto loaded = models::load(source, task, seed_of(recipe.seed, {"finetune", "head"}),
                                     task.kind == "causal_lm" ||  // the language head itself is what learns
                                         models::label_names(source.config) == dataset.label_names,
                                     weights());
    auto& model = *loaded.model;
    const bool beside = recipe.lora.rank > 0 && !recipe.lora.merge;
    attach_adapters(model, "finetune", beside ? &source : nullptr, loaded.report.fresh);
    require_room(model, finetune::most_trained(model, recipe.finetune), 1);
    const auto train = prepare(*kind, model, dataset, dataset.train, "training");
    const auto validation = prepare(*kind, model, dataset, dataset.validation, "validation");
    identity["data"] =
        kind->of_images() ? sha256(dataset.hash + train.inputs->hash() + validation.inputs->hash()) : dataset.hash;
    check_identity();
    const auto summary = data::summary(dataset);
    if (saved_stage != "finetune") {
      journal.write("data", {{"summary", summary},
                             {"hash", dataset.hash},
                             {"inputs", kind->settings(model)},
                             {"source", source.description(model)},
                             {"fresh", loaded.report.fresh}});
      progress.title(source.description(model) + (adapted ? ", adapted from " + origin.name : ""));
      progress.line(data::summary_text(summary));
    }
    if (!train.note.empty()) progress.line(train.note);

    finetune::Setting setting{.model = model};
    setting.random_copy = [&] {
      return models::random_copy(source, task, seed_of(recipe.seed, {"finetune", "random copy"}), weights());
    };
    setting.task = dataset.task;
    setting.label_names = dataset.label_names;
    setting.train = {train.inputs.get(), train.repeated ? &*train.repeated : &dataset.train, train.alignment};
    setting.validation = {validation.inputs.get(), &dataset.validation, validation.alignment};
    setting.options = recipe.finetune;
    setting.training = recipe.train;
    setting.store = recipe.features;
    setting.features_folder = recipe.features.folder.empty() ? folder / "features" : fs::path(recipe.features.folder);
    setting.seed = recipe.seed;
    if (!adapted && results.contains("select"))
      setting.measured = measured_part(results["select"], recipe, dataset, train);
    const auto knowledge = source_knowledge();
    // The same labels in the same order: the model goes on with the source's own head.
    const bool same_head = knowledge && knowledge->task().kind == task.kind && loaded.report.fresh.empty();
    const auto first_look = [&] {
      if (recipe.retain.report || recipe.retain.chooses()) knowledge->compare_on(*validation.inputs);
      if (recipe.retain.report) report_source(*knowledge, model, same_head, adapted);
    };
    // Where nothing is held, the source is asked when the head has learned: training begins that much sooner.
    bool may_wait = recipe.retain.report && !retains() && !watches() && !adapted;
    if (knowledge) {
      check_source_data(*knowledge);
      if (!may_wait) first_look();
      setting.terms = retaining(*knowledge, model, loaded.report.fresh, same_head, *train.inputs, setting, adapted);
      if (auto* replayed = knowledge->replayed()) {
        const auto fraction = recipe.retain.replay.fraction;
        setting.beside.push_back({&replayed->inputs(), replayed, fraction / (1 - fraction)});
      }
      if (watches() && !results["retained"].contains("at_first"))
        results["retained"]["at_first"] = knowledge->original(Asked::choice);
      if (!may_wait) knowledge->release(model, same_head);
    }
    finetune::Hooks hooks;
    hooks.journal = [&](const std::string& event, Json fields) { journal.write(event, std::move(fields)); };
    hooks.save = [&](const Json& state, const Tensors& tensors, bool must) { save("finetune", state, tensors, must); };
    hooks.reached = [&](const std::string& event) {
      sessions.write(event, {{"seconds_since_start", process_seconds()}});
    };
    hooks.progress = &progress;
    if (knowledge && recipe.retain.report)
      hooks.retained = [&](const std::string& phase) {
        if (std::exchange(may_wait, false)) {
          first_look();
          knowledge->release(model, same_head);
        }
        return report_phase(*knowledge, model, same_head, phase);
      };
    const auto terms = setting.terms;
    setting.keep_head = walks();
    if (knowledge && watches())
      hooks.watched = [&](const finetune::EpochEnd& end) { watch(*knowledge, model, same_head, adapted, terms, end); };
    finetune::Schedule schedule(std::move(setting), hooks);
    if (saved_stage == "finetune") schedule.resume(saved_state, std::exchange(saved_tensors, {}));
    schedule.run();
    results["finetune"] = schedule.result();
    if (walks()) walk_back(*knowledge, model, same_head, schedule.head_alone(), dataset, validation);

    evaluate_test(model, dataset, *kind);
    if (recipe.lora.rank > 0 && !beside) models::merge_lora(model);
    auto card = results["finetune"];
    if (results.contains("test")) card["test"] = results["test"];
    results["model_sha256"] =
        export_model(folder / "model", source, model, task, dataset.label_names, kind->files(model),
                     {origin.name, dataset.task, kind->of_images(), card}, beside ? &recipe.lora : nullptr);
    if (recipe.retain.ewc.strength > 0 && recipe.retain.ewc.carry) {
      const auto& examples = train.repeated ? *train.repeated : dataset.train;
      carry_protection(model, loaded.report.fresh, dataset, *train.inputs, examples, train.alignment);
    }
    if (recipe.features.folder.empty()) io::remove_all(folder / "features");
  }

  // --- what the source knew ------------------------------------------------------------------------------------

  bool retains() const {
    const auto& r = recipe.retain;
    return r.ewc.strength > 0 || r.l2sp > 0 || r.lwf.weight > 0 || r.replay.fraction > 0 || r.kl.coefficient > 0 ||
           r.interpolate || r.max_forgetting >= 0;
  }

  bool walks() const { return recipe.retain.interpolate || recipe.retain.max_forgetting >= 0; }

  /// Whether the source is asked after each epoch.
  bool watches() const { return (recipe.retain.report && recipe.retain.curve) || recipe.retain.max_forgetting >= 0; }

  /// nullptr when nothing is to be kept or measured.
  std::unique_ptr<SourceKnowledge> source_knowledge() {
    if (!recipe.retain.report && !retains()) return nullptr;
    auto knowledge = std::make_unique<SourceKnowledge>(open_source(), recipe.retain, recipe.max_length, recipe.images,
                                                       recipe.seed, progress);
    if (recipe.lora.rank > 0)
      models::attach_lora(knowledge->probe(), recipe.lora, seed_of(recipe.seed, {"retain", "lora"}));
    return knowledge;
  }

  /// The same for adaptation, which alone has no examples to compare features on.
  std::unique_ptr<SourceKnowledge> adaptation_knowledge() {
    const auto& r = recipe.retain;
    const bool terms = r.ewc.strength > 0 || r.l2sp > 0 || r.replay.fraction > 0 || r.kl.coefficient > 0;
    if (!terms && !(r.report && (r.has_source_data() || !r.corpus.empty()))) return nullptr;
    return source_knowledge();
  }

  void check_source_data(const SourceKnowledge& knowledge) {
    identity["source_data"] = knowledge.data_hash();
    GRAFT_CHECK(
        usage, !saved_identity.contains("source_data") || saved_identity["source_data"] == identity["source_data"],
        "{}: retain.source_data or retain.corpus has changed since the run was started, so it cannot be resumed. "
        "Start a new run.",
        folder.string());
  }

  /// The source before and after its adaptation.
  Json report_adaptation(SourceKnowledge& knowledge, const models::Model& model, bool own_head) {
    const auto source = knowledge.original();
    const auto after = knowledge.measure(model, own_head);
    progress.line("kept of the source after adapt: " + retained_text(after, source));
    return {{"source", source}, {"after", after}};
  }

  std::vector<std::shared_ptr<train::LossTerm>> retaining_in_adapt(SourceKnowledge& knowledge, models::Model& model,
                                                                   const std::vector<std::string>& fresh, bool own_head,
                                                                   const adapt::Objective& objective) {
    const auto probe_stream = [&]() -> std::shared_ptr<train::Stream> {
      const bool fits = knowledge.task().kind == objective.name || knowledge.task().kind == "features";
      GRAFT_CHECK(usage, fits && objective.stream_on,
                  "retain.ewc: the Fisher of {} cannot be taken on the corpus, which its head does not fit. Give "
                  "retain.source_data, or a file of `graft retain fisher` as retain.ewc.fisher.",
                  origin.name);
      return objective.stream_on(knowledge.probe(), false);
    };
    auto terms = pulls(knowledge, model, fresh,
                       [&] { return knowledge.fisher(knowledge.has_data() ? nullptr : probe_stream().get()); });
    if (recipe.retain.kl.coefficient > 0) {
      GRAFT_CHECK(
          usage, objective.stream_on && fresh.empty(),
          "retain.kl: {} has no trained language head, so it says nothing of a token that could be held. Leave the "
          "section out, or take a source with its language head.",
          origin.name);
      const bool masks = objective.name == "masked_lm";
      if (auto kl = knowledge.kl(
              model, own_head, [&objective](models::Model& other) { return objective.stream_on(other, false); },
              !masks))
        terms.push_back(std::move(kl));
    }
    if (auto replay = knowledge.replay(model, own_head)) terms.push_back(std::move(replay));
    return terms;
  }

  /// EWC and L2-SP. `fisher` computes what no file has.
  std::vector<std::shared_ptr<train::LossTerm>> pulls(SourceKnowledge& knowledge, const models::Model& model,
                                                      const std::vector<std::string>& fresh,
                                                      const std::function<retain::Anchors()>& fisher) {
    const auto& options = recipe.retain;
    std::vector<std::shared_ptr<train::LossTerm>> terms;
    const auto free = [&](retain::Anchors anchors) {  // a new head of the old one's name is not held
      for (const auto& key : fresh) anchors.of.erase(key);
      return anchors;
    };
    if (options.ewc.strength > 0)
      terms.push_back(std::make_shared<retain::Ewc>(model, free(protection(fisher)), options.ewc.strength));
    if (options.l2sp > 0)
      terms.push_back(
          std::make_shared<retain::Ewc>(model, free(retain::anchors_at(knowledge.probe(), {})), options.l2sp, "l2sp"));
    return terms;
  }

  /// The source before anything of the new task is learned; with an adaptation before it and after it.
  void report_source(SourceKnowledge& knowledge, models::Model& model, bool same_head, bool adapted) {
    if (results.contains("retained") && results["retained"].contains("source")) return;
    results["retained"]["source"] = knowledge.original();
    if (adapted) results["retained"]["adapt"] = knowledge.measure(model, same_head);
    journal.write("retained", results["retained"]);
    if (results["retained"]["source"].contains("value"))
      progress.line(fmt::format("the source on its own data: {} {:.4f} ({} examples)",
                                results["retained"]["source"]["metric"].get<std::string>(),
                                results["retained"]["source"]["value"].get<double>(),
                                results["retained"]["source"]["examples"].get<int64_t>()));
    if (adapted)
      progress.line("kept of the source after adapt: " +
                    retained_text(results["retained"]["adapt"], results["retained"]["source"]));
  }

  Json report_phase(SourceKnowledge& knowledge, models::Model& model, bool same_head, const std::string& phase) {
    const auto& source = results["retained"]["source"];
    if (phase == "head" && !same_head)  // its blocks are what they were
      return results["retained"].contains("adapt") ? results["retained"]["adapt"] : source;
    const auto now = knowledge.measure(model, same_head);
    progress.line(fmt::format("kept of the source after {}: {}", phase, retained_text(now, source)));
    return now;
  }

  /// After an epoch: a point of the curve of gain against loss. Over the budget, terms are strengthened.
  void watch(SourceKnowledge& knowledge, const models::Model& model, bool same_head, bool adapted,
             const std::vector<std::shared_ptr<train::LossTerm>>& terms, const finetune::EpochEnd& end) {
    auto& told = results["retained"];
    const double at_first = kept(told["at_first"]), sign = train::smaller_is_better(end.metric) ? -1 : 1;
    const bool untouched = end.epoch == 0 && !same_head && !adapted;  // a new head on the source's own blocks
    const auto started = Clock::now();
    const double now = untouched ? at_first : kept(knowledge.measure(model, same_head, Asked::choice));
    auto& curve = told["curve"];
    const double start = curve.empty() ? end.validation : curve[0][end.metric].get<double>(), lost = at_first - now;
    const Json point{{"phase", end.phase},
                     {"epoch", end.epoch},
                     {end.metric, end.validation},
                     {"gain", sign * (end.validation - start)},
                     {"kept", now},
                     {"lost", lost},
                     {"seconds", std::chrono::duration<double>(Clock::now() - started).count()}};
    curve.push_back(point);
    journal.write("watched", point);
    const double budget = recipe.retain.max_forgetting;
    if (end.epoch == 0 || budget < 0 || lost <= budget) return;
    const auto& chosen = recipe.retain.strengthened;
    Json strengths = Json::object();
    if (recipe.retain.strengthen_by > 1)
      for (const auto& term : terms)
        if (chosen.empty() || std::find(chosen.begin(), chosen.end(), term->name()) != chosen.end())
          if (const auto strength = term->strengthen(recipe.retain.strengthen_by)) strengths[term->name()] = *strength;
    std::vector<std::string> words;
    for (const auto& [name, strength] : strengths.items())
      words.push_back(fmt::format("{} to {:g}", name, strength.get<double>()));
    const auto reason = fmt::format(
        "{}, epoch {}, has lost {:.4f} of what the source knew, more than the {:g} of retain.max_forgetting: {}",
        end.phase, end.epoch, lost, budget,
        words.empty() ? "no term is there that could be strengthened" : "strengthened " + listed(words));
    journal.write(
        "decision",
        {{"about", "forgetting"}, {"lost", lost}, {"budget", budget}, {"strengthened", strengths}, {"reason", reason}});
    progress.line(reason);
  }

  /// The training split as a stream for any model of the family.
  static SourceKnowledge::StreamOn training_on(const features::Inputs& inputs, const finetune::Setting& setting) {
    return [&inputs, task = setting.task, names = setting.label_names, split = setting.train](models::Model& model) {
      struct Fed {
        Fed(models::Model& model, const features::Inputs& inputs) : feed(model, inputs) {}
        features::Feed feed;
        std::unique_ptr<train::Stream> stream;
      };
      const auto fed = std::make_shared<Fed>(model, inputs);
      fed->stream = train::task_stream(model, fed->feed, task, names, *split.examples, split.alignment);
      return std::shared_ptr<train::Stream>(fed, fed->stream.get());
    };
  }

  std::vector<std::shared_ptr<train::LossTerm>> retaining(SourceKnowledge& knowledge, models::Model& model,
                                                          const std::vector<std::string>& fresh, bool same_head,
                                                          const features::Inputs& inputs,
                                                          const finetune::Setting& setting, bool adapted) {
    const auto& options = recipe.retain;
    auto terms = pulls(knowledge, model, fresh, [&] {
      auto& probe = knowledge.probe();
      const features::Feed feed(probe, inputs);
      const auto proxy = train::task_stream(probe, feed, setting.task, setting.label_names, *setting.train.examples,
                                            setting.train.alignment);
      return knowledge.fisher(proxy.get(), &inputs);
    });
    if (options.lwf.weight > 0) {
      const auto started = Clock::now();
      auto answers = source_answers(knowledge, model, inputs, setting, adapted);
      progress.line(answers.logits ? "the source has answered the new examples once; its answers are held (LwF)"
                                   : "the source has no task to answer with; its features are held (LwF)");
      terms.push_back(std::make_shared<retain::Lwf>(std::move(answers), knowledge.task().kind,
                                                    same_head ? nullptr : knowledge.probe().head, options.lwf));
      prepared("lwf", started);
    }
    const bool held_in_adapt = !recipe.adapt.corpus.empty() && purpose == Purpose::run && setting.task != "causal_lm";
    if (options.kl.coefficient > 0 && !options.kl.corpus && held_in_adapt)
      progress.line("note: the KL to the source was for adapt; the new task's head gives no distribution over tokens");
    else if (auto kl = knowledge.kl(model, same_head, training_on(inputs, setting), true))
      terms.push_back(std::move(kl));
    if (auto replay = knowledge.replay(model, same_head)) terms.push_back(std::move(replay));
    if (knowledge.task().kind == setting.task && !same_head && setting.task == "classification" && retains() &&
        options.replay.fraction == 0 && grows(knowledge.label_names(), setting.label_names))
      progress.line(
          "note: the new labels contain the source's. EWC, L2-SP and LwF cannot hold old classes when the class set "
          "grows; "
          "replay can (retain.replay.fraction with retain.source_data).");
    if (!terms.empty() && setting.options.batch_norm != "held" && train::has_batch_norm(model))
      progress.line(
          "note: batch norms that learn take the new images' statistics, which no term of [retain] holds; "
          "finetune.batch_norm = \"held\" keeps the source's.");
    return terms;
  }

  /// Where the model starts from the source as it is, one pass gives the answers and the stores of the head phase.
  retain::Answers source_answers(SourceKnowledge& knowledge, models::Model& model, const features::Inputs& inputs,
                                 const finetune::Setting& setting, bool adapted) {
    auto& probe = knowledge.probe();
    features::Feed feed(probe, inputs);
    const auto file = knowledge.answers_file(inputs, model.head->reads(), setting.features_folder, setting.store);
    const bool shares =
        !adapted && setting.options.batch_norm != "target" && recipe.lora.rank == 0 && !setting.measured;
    if (shares && !fs::exists(file))
      for (const auto& chain : probe.chains) {
        const auto ahead = finetune::boundaries_ahead(model, chain.name, setting.options, setting.store);
        const std::vector<int64_t> boundaries(ahead.begin(), ahead.end());
        const auto captured = features::capture(
            probe, chain.name, boundaries, model.head->reads(), inputs, setting.features_folder, setting.store,
            [&](int64_t done, int64_t total) { progress.step("the source's answers", done, total); });
        for (size_t i = 0; i < boundaries.size(); ++i)
          if (captured.stores[i]) feed.use(chain.name, boundaries[i], *captured.stores[i]);
      }
    return knowledge.answers(feed, model.head->reads(), file);
  }

  /// Looks at the path between the source's weights and the result, and takes the point that the recipe asks for.
  /// It begins at the source's blocks with the head that learned on them (`head_alone`; the source's own where that goes on).
  void walk_back(SourceKnowledge& knowledge, models::Model& model, bool same_head, const Tensors& head_alone,
                 const data::Dataset& dataset, const Prepared& validation) {
    constexpr int kSteps = 10;
    const auto metric = results["finetune"]["metric"].get<std::string>();
    const double sign = train::smaller_is_better(metric) ? -1 : 1;
    auto from = knowledge.weights(same_head);
    from.insert(head_alone.begin(), head_alone.end());
    std::map<std::string, Tensor> to;
    for (const auto& items : {model.parameters_by_key(), model.buffers_by_key()})
      for (const auto& item : items) to[item.key()] = item.value().detach().clone();
    model.unfreeze_only(model.all_groups());  // no store holds what these weights compute
    const features::Feed feed(model, *validation.inputs);
    const auto stream =
        train::task_stream(model, feed, dataset.task, dataset.label_names, dataset.validation, validation.alignment);
    std::vector<retain::PathPoint> path;
    Json curve = Json::array();
    progress.title("Between the source and the result");
    for (int step = 0; step <= kSteps; ++step) {
      const double share = static_cast<double>(step) / kSteps;
      retain::interpolate(model, from, to, share);
      const auto target = train::metric_of(
          metric, train::evaluate(model, *stream, recipe.train.micro_batch_tokens, recipe.train.bf16()));
      const auto measure = knowledge.measure(model, same_head, Asked::choice);
      path.push_back({share, sign * target, kept(measure)});
      curve.push_back({{"share", share}, {metric, target}, {"retained", measure}});
      progress.line(
          fmt::format("{:.1f} of the way: validation {} {:.4f}, kept {:.4f}", share, metric, target, kept(measure)));
    }
    const auto budget = recipe.retain.max_forgetting >= 0 ? std::optional(recipe.retain.max_forgetting) : std::nullopt;
    const auto best = retain::best_point(path, recipe.finetune.min_improvement, budget);
    retain::interpolate(model, from, to, path[best].share);
    const bool none = budget && std::all_of(path.begin() + 1, path.end(), [&](const auto& point) {
                        return path.front().source - point.source > *budget + 1e-12;
                      });
    const auto reason =
        none ? fmt::format(
                   "no point but the source's own blocks with the head that learned on them loses at most {:g}; give a "
                   "larger max_forgetting, or protect more (retain.ewc, retain.replay)",
                   *budget)
        : budget ? fmt::format("the best of the points that lose at most {:g}", *budget)
                 : std::string("it keeps most of the source among those that are not worse on the new task");
    progress.line(fmt::format("taken: {:.1f} of the way ({})", path[best].share, reason));
    auto& told = results["retained"];
    told["path"] = curve;
    told["taken"] = curve[best];
    told["taken"]["reason"] = reason;
    if (budget) told["taken"]["none_but_the_source"] = none;
    if (recipe.retain.report) {  // of examples that had no part in the choice
      told["result"] = knowledge.measure(model, same_head);
      progress.line("kept of the source by the result: " + retained_text(told["result"], told["source"]));
    }
    journal.write("path", {{"points", curve}, {"taken", path[best].share}, {"reason", reason}});
  }

  static bool grows(const std::vector<std::string>& old, const std::vector<std::string>& now) {
    return !old.empty() && now.size() > old.size() && std::all_of(old.begin(), old.end(), [&](const auto& name) {
      return std::find(now.begin(), now.end(), name) != now.end();
    });
  }

  /// The file that the recipe names, what the source carries with it, or the Fisher computed once for this run.
  retain::Anchors protection(const std::function<retain::Anchors()>& fisher) {
    const auto file = protection_file();
    if (file == origin.folder / retain::kAnchorsFile) progress.line("the source brings its Fisher: " + file.string());
    if (file != folder / retain::kAnchorsFile || fs::exists(file)) return retain::read_anchors(file);
    const auto started = Clock::now();
    auto anchors = fisher();
    retain::write_anchors(file, anchors);
    prepared("ewc", started);
    return anchors;
  }

  fs::path protection_file() const {
    if (!recipe.retain.ewc.fisher.empty()) return recipe.retain.ewc.fisher;
    const auto carried = origin.folder / retain::kAnchorsFile;
    return fs::exists(carried) ? carried : folder / retain::kAnchorsFile;
  }

  /// Seconds that something took before the first step, or behind the last.
  void prepared(const std::string& name, Clock::time_point started) {
    results["retained"]["prepared"][name]["seconds"] = std::chrono::duration<double>(Clock::now() - started).count();
  }

  /// Online EWC (Schwarz et al. 2018): to what was held, weaker by `decay`, the Fisher of the new task is added, and all is
  /// anchored at the result. Beside its weights the next run finds it.
  void carry_protection(models::Model& model, const std::vector<std::string>& fresh, const data::Dataset& dataset,
                        const features::Inputs& inputs, const data::Examples& examples,
                        const train::Alignment& alignment) {
    const auto started = Clock::now();
    auto before = retain::read_anchors(protection_file());
    for (const auto& key : fresh) before.of.erase(key);  // of a head of the same name
    model.unfreeze_only(model.all_groups());             // examples enter at the first block
    const features::Feed feed(model, inputs);
    const auto stream = train::task_stream(model, feed, dataset.task, dataset.label_names, examples, alignment);
    retain::FisherWork work{.batch_rows = dataset.task == "causal_lm" ? 512 : 2048};
    work.progress = [&](int64_t done, int64_t total) { progress.step("Fisher of the result", done, total); };
    const auto some =
        train::sample(inputs.size(), recipe.retain.ewc.examples, seed_of(recipe.seed, {"retain", "carried"}));
    const retain::OwnLabels drawn(*stream, dataset.task, recipe.seed);
    const bool own = recipe.retain.ewc.labels == "own";
    const auto fisher = retain::fisher(model, own ? static_cast<const train::Stream&>(drawn) : *stream, some, work);
    auto now = retain::anchors_at(model, fisher.diagonal);
    now.domains.push_back({{"model", (folder / "model").string()},
                           {"examples", fisher.examples},
                           {"labels", own ? "own" : "given"},
                           {"task", dataset.task}});
    const auto all = retain::accumulated(before, now, recipe.retain.ewc.decay);
    retain::write_anchors(folder / "model" / retain::kAnchorsFile, all);
    prepared("carried", started);
    journal.write("carried", {{"domains", all.domains.size()}, {"decay", recipe.retain.ewc.decay}});
    progress.line(fmt::format("the result carries its protection: {} domains in {}", all.domains.size(),
                              (folder / "model" / retain::kAnchorsFile).string()));
  }

  /// Skipped examples are counted with those that reading skipped.
  Prepared prepare(TaskInputs& kind, const models::Model& model, data::Dataset& dataset, data::Examples& examples,
                   const std::string& split) {
    Wanted wanted{.split = split, .task = dataset.task};
    if (recipe.data.bad_rows == "skip") wanted.bad_rows = data::BadRows::skip;
    if (&examples == &dataset.train) wanted.training_seed = recipe.seed;
    wanted.progress = [&](int64_t done, int64_t total) { progress.step("reading, " + split, done, total); };
    auto prepared = kind.prepare(model, examples, wanted);
    dataset.skipped.count += prepared.skipped.count;
    for (const auto& sentence : prepared.skipped.first)
      if (dataset.skipped.first.size() < 10) dataset.skipped.first.push_back(sentence);
    return prepared;
  }

  void evaluate_test(models::Model& model, data::Dataset& dataset, TaskInputs& kind) {
    if (dataset.test.size() == 0) return;
    const auto test = prepare(kind, model, dataset, dataset.test, "test");
    const features::Feed feed(model, *test.inputs);
    model.unfreeze_only(model.all_groups());  // nothing is stored for the test split
    const auto stream =
        train::task_stream(model, feed, dataset.task, dataset.label_names, dataset.test, test.alignment);
    results["test"] =
        train::all_metrics(train::evaluate(model, *stream, recipe.train.micro_batch_tokens, recipe.train.bf16()));
    results["test"]["examples"] = dataset.test.size();
    journal.write("test", results["test"]);
    std::string text = "test:";
    for (const auto& item : results["test"].items())
      if (item.value().is_number_float()) text += fmt::format(" {} {:.4f}", item.key(), item.value().get<double>());
    progress.line(text);
  }

  Json run(bool resume) {
    use_machine(recipe.train.threads, recipe.train.device);
    const bool begun = fs::exists(folder / "recipe.toml");
    GRAFT_CHECK(usage, resume || !begun, kHoldsARun, folder.string(), folder.string());
    start();
    identity["threads"] = at::get_num_threads();
    identity["device"] = models::device_name();
    if (models::compute_device().is_cuda()) progress.line("computing on " + models::device_name());
    else if (recipe.train.bf16() && !__builtin_cpu_supports("avx512bf16"))
      progress.line("note: this processor has no bfloat16 arithmetic; bfloat16 is slower here than float32.");
    identity["source"] = io::checkpoint_hash(io::read_checkpoint(origin.folder));
    if (resume) load_checkpoint();
    check_identity();
    if (const auto record = folder / "selection.json"; saved_stage.empty() && fs::exists(record)) {
      results["select"] = Json::parse(io::read_file(record));
      journal.write("select", results["select"]);
    }
    if (saved_stage == "done") {
      progress.line("the run is finished already");
      return results;
    }
    try {
      if (purpose != Purpose::finetune) adapt();
      if (purpose != Purpose::adapt) finetune();
    } catch (const Interrupted& e) {
      sessions.write("interrupted", {{"signal", e.signal}});
      throw;
    } catch (const Error& e) {
      sessions.write("stopped", {{"reason", e.what()}});
      throw;
    }
    results["model"] = (folder / "model").string();
    journal.write("done",
                  {{"test", results.value("test", Json())}, {"model_sha256", results.value("model_sha256", Json())}});
    save("done", Json::object(), {}, true);
    sessions.write("finished", {});
    return results;
  }

  const Recipe& recipe;
  const FoundSource& origin;
  Purpose purpose;
  report::Progress& progress;
  fs::path folder;
  report::Journal journal, sessions;
  io::CommittedFolders checkpoints;
  Clock::time_point last_saved = Clock::now();
  uint64_t checkpoint = 0;
  Json results = Json::object(), identity = Json::object(), saved_identity, saved_state;
  std::string saved_stage;
  Tensors saved_tensors;
};

/// `source = "auto"`: the candidates are measured with the run's own stores, so that what the winner's frozen blocks gave
/// is what the head phase reads. A kill here costs at most one candidate's pass.
std::string selected_source(const Recipe& recipe, bool resume, report::Progress& progress) {
  const fs::path folder = recipe.output;
  const auto record = folder / "selection.json", own = folder / "features" / "select";
  GRAFT_CHECK(usage, resume || !fs::exists(folder / "recipe.toml"), kHoldsARun, folder.string(), folder.string());
  io::make_folder(folder);
  io::write_file(folder / "recipe.toml", recipe_text(recipe));
  if (!fs::exists(record)) {
    const auto selection = select_source(recipe, own, true, progress);
    if (recipe.features.folder.empty())
      for (const auto& store : fs::directory_iterator(own / selection.at("place").dump()))
        fs::rename(store.path(), folder / "features" / store.path().filename());
    io::write_file(record, selection.dump(2));
  }
  io::remove_all(own);
  return Json::parse(io::read_file(record)).at("pinned");
}

}  // namespace

Json run_recipe(const Recipe& recipe, Purpose purpose, bool resume, report::Progress& progress) {
  auto pinned = recipe;  // the recipe in the run's folder names the commit
  if (recipe.source == "auto") {
    pinned.source = selected_source(recipe, resume, progress);
    resume = true;  // the folder is this run's
  }
  const auto origin = find_source(pinned.source, recipe.sources, progress);
  pinned.source = origin.pinned;
  if (purpose != Purpose::adapt && recipe.data.task == "causal_lm" && recipe.language.date.empty())
    pinned.language.date = data::today();  // a resume on another day must see the same texts
  return Runner(pinned, origin, purpose, progress).run(resume);
}

}  // namespace graft::run
