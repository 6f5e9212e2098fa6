// The recipe's [adapt] section: domain-adaptive pre-training on unlabelled text.
#pragma once

#include <cstdint>
#include <string>

namespace graft::adapt {

struct AdaptOptions {
  std::string corpus;
  std::string text = "text";
  std::string bad_rows = "stop";
  double held_out_fraction = 0.05;
  int64_t epochs = 3;
  int64_t patience = 0;
  int64_t head_epochs = 2;
  double head_learning_rate = 1e-3;
  double learning_rate = 1e-4;     // Gururangan et al. 2020, task-adaptive
  double mask_probability = 0.15;  // Devlin et al. 2019, sec. 3.1
  bool whole_words = false;
  int64_t max_length = 128;
  int64_t max_documents = 0;
  int64_t batch_size = 32;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("corpus", corpus, "file or folder of unlabelled text; empty: no adaptation");
    field("text", text, "column that holds the text, in JSONL and CSV");
    field("bad_rows", bad_rows, "stop at a row that cannot be used, or skip and count it");
    field("held_out_fraction", held_out_fraction, "part of the documents that perplexity is measured on");
    field("epochs", epochs, "passes over the corpus");
    field("patience", patience, "epochs without a better held-out loss before it stops; 0: never");
    field("head_epochs", head_epochs,
          "first epochs in which a fresh language head learns alone, so that its noise does not reach the encoder "
          "(Kumar et al. 2022)");
    field("head_learning_rate", head_learning_rate, "of these");
    field("learning_rate", learning_rate,
          "of AdamW (Gururangan et al. 2020, table 13: 1e-4 for task-adaptive pre-training)");
    field("mask_probability", mask_probability, "0.15 (Devlin et al. 2019, 3.1), or 0.3 (Portes et al. 2023)");
    field("whole_words", whole_words, "mask all tokens of a word together");
    field("max_length", max_length, "tokens of a packed sequence");
    field("max_documents", max_documents, "use at most this many documents; 0 for all");
    field("batch_size", batch_size, "packed sequences of one step");
  }
};

}  // namespace graft::adapt
