#include "tests/cli/program.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "graft/core/hash.h"
#include "graft/io/safetensors.h"
#include "graft/models/architectures.h"
#include "graft/models/loading.h"
#include "graft/report/journal.h"

namespace graft::tests {
namespace {

const std::vector<std::string> kWords{"film",   "story",  "actor",   "scene", "plot", "music", "camera",
                                      "ending", "script", "picture", "the",   "a",    "this",  "was",
                                      "is",     "very",   "quite",   "of",    "and",  "with"};

void write_random_weights(const fs::path& folder, const Json& config) {
  torch::manual_seed(1);
  const auto model = models::find_architecture(config).create(config, {"masked_lm"});
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& item : model->parameters_by_key()) tensors[item.key()] = item.value();
  io::write_safetensors(folder / "model.safetensors", models::to_views(tensors));
}

}  // namespace

Started::Started(const std::vector<std::string>& arguments, const std::string& input,
                 const std::vector<std::string>& environment) {
  write_text(scratch_ / "in", input);
  child_ = fork();
  if (child_ == 0) {
    for (const auto& setting : environment) putenv(strdup(setting.c_str()));
    dup2(open((scratch_ / "in").c_str(), O_RDONLY), 0);
    dup2(open((scratch_ / "out").c_str(), O_WRONLY | O_CREAT, 0644), 1);
    dup2(open((scratch_ / "err").c_str(), O_WRONLY | O_CREAT, 0644), 2);
    std::vector<char*> argv{strdup(GRAFT_PROGRAM)};
    for (const auto& argument : arguments) argv.push_back(strdup(argument.c_str()));
    argv.push_back(nullptr);
    execv(GRAFT_PROGRAM, argv.data());
    _exit(127);
  }
}

Started::~Started() {
  if (ended_) return;
  kill(child_, SIGKILL);
  waitpid(child_, nullptr, 0);
}

void Started::send(int signal) const { kill(child_, signal); }

bool Started::wait(int options) {
  if (!ended_) ended_ = waitpid(child_, &status_, options) == child_ && !WIFSTOPPED(status_);
  return ended_;
}

Outcome Started::finish() {
  wait(0);
  return {WIFSIGNALED(status_) ? 128 + WTERMSIG(status_) : WEXITSTATUS(status_), read_text(scratch_ / "out"),
          read_text(scratch_ / "err")};
}

Outcome graft(const std::vector<std::string>& arguments, const std::string& input,
              const std::vector<std::string>& environment) {
  return Started(arguments, input, environment).finish();
}

void write_tiny_source(const fs::path& folder) {
  fs::create_directories(folder);
  for (const auto* name : {"config.json", "model.safetensors"})
    fs::copy_file(fixture("parity/bert-mlm/model") / name, folder / name);
  std::string vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\n";
  for (const auto& word : kWords) vocabulary += word + "\n";
  for (char c = 'a'; c <= 'z'; ++c) vocabulary += c == 'a' ? "" : std::string(1, c) + "\n";
  for (char c = 'a'; c <= 'z'; ++c) vocabulary += "##" + std::string(1, c) + "\n";
  write_text(folder / "vocab.txt", vocabulary);
  write_text(folder / "tokenizer_config.json",
             R"({"do_lower_case": true, "tokenizer_class": "BertTokenizer", "model_max_length": 24})");
}

void write_tiny_deberta(const fs::path& folder) {
  fs::create_directories(folder);
  auto config = Json::parse(read_text(fixture("parity/deberta-v2-mlm/model/config.json")));
  config["vocab_size"] = 2010;  // the tokenizer has 2001; published tables have spare rows too
  write_text(folder / "config.json", config.dump());
  write_random_weights(folder, config);
  fs::copy_file(fixture("parity/tokenizers/spm-unigram/spm.model"), folder / "spm.model");
  write_text(folder / "tokenizer_config.json", R"({"do_lower_case": false, "vocab_type": "spm"})");
}

void write_tiny_roberta(const fs::path& folder) {
  fs::create_directories(folder);
  for (const auto* name : {"vocab.json", "merges.txt"})
    fs::copy_file(fixture("parity/tokenizers/bytebpe-roberta") / name, folder / name);
  auto config = Json::parse(read_text(fixture("parity/roberta-mlm/model/config.json")));
  config["vocab_size"] = Json::parse(read_text(folder / "vocab.json")).size();
  write_text(folder / "config.json", config.dump());
  write_random_weights(folder, config);
}

void write_tiny_decoder(const fs::path& folder) {
  fs::create_directories(folder);
  for (const auto* name : {"config.json", "model.safetensors"})
    fs::copy_file(fixture("parity/llama-causal/model") / name, folder / name);
  const std::vector<std::string> specials{"<unk>", "<s>", "</s>"};
  Json vocabulary = Json::object(), added = Json::array();
  for (const auto& token : specials) {
    added.push_back({{"id", vocabulary.size()},
                     {"content", token},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocabulary[token] = vocabulary.size();
  }
  for (const auto& word : {"good", "bad"}) vocabulary[word] = vocabulary.size();
  for (const auto& word : kWords) vocabulary[word] = vocabulary.size();
  const Json begin{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
      text{{"Sequence", {{"id", "A"}, {"type_id", 0}}}}, second{{"Sequence", {{"id", "B"}, {"type_id", 1}}}};
  const Json tokenizer{{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", added},
                       {"normalizer", nullptr},
                       {"pre_tokenizer", {{"type", "Whitespace"}}},
                       {"post_processor",
                        {{"type", "TemplateProcessing"},
                         {"single", {begin, text}},
                         {"pair", {begin, text, second}},
                         {"special_tokens", {{"<s>", {{"id", "<s>"}, {"ids", {1}}, {"tokens", {"<s>"}}}}}}}},
                       {"decoder", nullptr},
                       {"model", {{"type", "WordLevel"}, {"vocab", vocabulary}, {"unk_token", "<unk>"}}}};
  write_text(folder / "tokenizer.json", tokenizer.dump());
  write_text(folder / "tokenizer_config.json",
             R"({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
                 "unk_token": "<unk>", "model_max_length": 24})");
}

std::string tiny_sentence(Random& random, const std::string& telling) {
  std::string text;
  const auto length = 3 + random.below(8), place = random.below(length);
  for (uint64_t i = 0; i < length; ++i)
    text += (i ? " " : "") + (i == place ? telling : kWords[random.below(kWords.size())]);
  return text;
}

void write_tiny_data(const fs::path& folder) {
  Random random(7);
  std::string corpus;
  for (const auto& [name, rows] : {std::pair{"train", 64}, {"validation", 32}, {"test", 16}}) {
    std::string text;
    for (int i = 0; i < rows; ++i) {
      const bool good = i % 2 == 0;
      text += Json{{"text", tiny_sentence(random, good ? "good" : "bad")}, {"label", good ? "positive" : "negative"}}
                  .dump() +
              "\n";
      corpus += tiny_sentence(random, kWords[random.below(kWords.size())]) + "\n";
    }
    write_text(folder / (std::string(name) + ".jsonl"), text);
  }
  write_text(folder.parent_path() / "corpus.txt", corpus);
}

std::vector<std::string> short_run(const Scratch& scratch, const std::string& out) {
  if (!fs::exists(scratch / "source")) {
    write_tiny_source(scratch / "source");
    write_tiny_data(scratch / "data");
  }
  return {"run",
          "--quiet",
          "--json",
          "--source",
          (scratch / "source").string(),
          "--data",
          (scratch / "data").string(),
          "--corpus",
          (scratch / "corpus.txt").string(),
          "--out",
          (scratch / out).string(),
          "--set",
          "adapt.epochs=2",
          "--set",
          "adapt.max_length=24",
          "--set",
          "adapt.held_out_fraction=0.2",
          "--set",
          "finetune.head.epochs=3",
          "--set",
          "finetune.head.min_epochs=1",
          "--set",
          "finetune.head.learning_rates=[1e-3, 1e-2]",
          "--set",
          "finetune.head.weight_decays=[0.01]",
          "--set",
          "finetune.unfreeze.max_units=2",
          "--set",
          "finetune.unfreeze.epochs=2",
          "--set",
          "finetune.unfreeze.patience_units=0",
          "--set",
          "finetune.full.when=always",
          "--set",
          "finetune.full.epochs=2",
          "--set",
          "train.checkpoint_seconds=0",
          "--set",
          "train.batch_size=16",
          "--set",
          "train.threads=1"};
}

std::string run_fingerprint(const fs::path& run) {
  return sha256(read_text(run / "model/model.safetensors")) + "\n" +
         report::without_times(report::Journal(run / "journal.jsonl").entries());
}

int expect_same_after_kills(const fs::path& whole, const std::vector<int>& operations,
                            const std::function<std::vector<std::string>(const std::string&)>& arguments,
                            const std::function<std::string(const fs::path&)>& fingerprint) {
  const auto expected = fingerprint(whole);
  int killed = 0;
  for (const int operation : operations) {
    const auto name = whole.filename().string() + std::to_string(operation);
    const auto folder = whole.parent_path() / name;
    const auto first = graft(arguments(name), "", {"GRAFT_TEST_FAULT=kill:" + std::to_string(operation)});
    if (first.code == 0) continue;
    EXPECT_EQ(first.code, 128 + SIGKILL) << "operation " << operation << ": " << first.err;
    ++killed;
    auto again = arguments(name);
    if (fs::exists(folder / "recipe.toml")) again = {"run", "--quiet", "--resume", folder.string()};
    const auto second = graft(again);
    EXPECT_EQ(second.code, 0) << "operation " << operation << ": " << second.err;
    if (second.code == 0) {
      EXPECT_EQ(fingerprint(folder), expected) << "operation " << operation;
    }
  }
  return killed;
}

}  // namespace graft::tests
