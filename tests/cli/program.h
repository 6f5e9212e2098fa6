// The whole program as a user starts it, on a tiny model and made-up texts: seconds a run.
#pragma once

#include <sys/wait.h>

#include <functional>
#include <string>
#include <vector>

#include "graft/core/json.h"
#include "graft/core/random.h"
#include "tests/fixtures.h"

namespace graft::tests {

struct Outcome {
  int code = 0;  // exit code; 128 + signal when it was killed
  std::string out, err;
};

/// build/graft at work; killed when this goes away.
class Started {
 public:
  explicit Started(const std::vector<std::string>& arguments, const std::string& input = "",
                   const std::vector<std::string>& environment = {});
  ~Started();
  Started(const Started&) = delete;
  Started& operator=(const Started&) = delete;
  void send(int signal) const;
  /// Whether it has ended.
  bool ended() { return wait(WNOHANG); }
  /// Waits until it stops itself (GRAFT_TEST_FAULT=stop:...); false when it ended instead.
  bool stopped() { return !wait(WUNTRACED); }
  Outcome finish();
  std::string err() const { return read_text(scratch_ / "err"); }

 private:
  bool wait(int options);
  Scratch scratch_;
  pid_t child_ = 0;
  int status_ = 0;
  bool ended_ = false;
};

/// Runs build/graft with these arguments; `environment` as "NAME=value".
Outcome graft(const std::vector<std::string>& arguments, const std::string& input = "",
              const std::vector<std::string>& environment = {});

/// A BERT of two layers with a vocabulary of its own: config.json, model.safetensors, vocab.txt.
void write_tiny_source(const fs::path& folder);
/// A DeBERTa v3 of two layers with random weights: config.json, model.safetensors, spm.model.
void write_tiny_deberta(const fs::path& folder);
/// A RoBERTa of two layers with random weights: config.json, model.safetensors, vocab.json, merges.txt.
void write_tiny_roberta(const fs::path& folder);
/// A LLaMA of two layers with a tokenizer.json of whole words.
void write_tiny_decoder(const fs::path& folder);
/// Three to ten words that the tiny BERT knows, one of which is `telling`.
std::string tiny_sentence(Random& random, const std::string& telling);
/// train, validation and test of two labels that hang on one word, and corpus.txt.
void write_tiny_data(const fs::path& folder);

/// Arguments of a short run with all stages; saves after each epoch.
std::vector<std::string> short_run(const Scratch& scratch, const std::string& out);

/// SHA-256 of the model and the journal without its times: what a resumed run must share with the unbroken one.
std::string run_fingerprint(const fs::path& run);

/// Expects that a run, killed inside its n-th write for each n of `operations` and brought to its end by a second call, has
/// the fingerprint of the unbroken run `whole`, beside which it lies. `arguments` are a run's by its name. Returns how
/// many were killed; a run that needs fewer writes is none.
int expect_same_after_kills(const fs::path& whole, const std::vector<int>& operations,
                            const std::function<std::vector<std::string>(const std::string&)>& arguments,
                            const std::function<std::string(const fs::path&)>& fingerprint = run_fingerprint);

}  // namespace graft::tests
