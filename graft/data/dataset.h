// Labelled examples of a task in their splits, as the recipe names them, with what a person should know before training.
#pragma once

#include "graft/data/ragged.h"
#include "graft/data/table.h"

namespace graft::data {

/// The recipe's [data] section.
struct DataOptions {
  std::string path;                     // a folder of train/validation/test files, or one file that is split
  std::string train, validation, test;  // or the files one by one
  std::string text = "text", pair, label = "label";       // column names
  std::string image = "file_name";                        // the same for images
  std::string task = "classification";                    // classification, multilabel, regression, tokens, causal_lm
  std::string label_separator = "|";                      // multilabel in CSV
  std::string bad_rows = "stop";                          // stop or skip
  double validation_fraction = 0.1, test_fraction = 0.1;  // when one file is split
  std::string split_by;                                   // column whose equal values stay in one split
  int64_t max_train = 0;                                  // 0: all; else a stratified, seeded sample

  template <class Visitor>
  void visit(Visitor&& field) {
    field("path", path, "a folder with train, validation and test files, or one file that is split");
    field("train", train, "the training file, when there is no folder");
    field("validation", validation, "the validation file");
    field("test", test, "the test file");
    field("text", text, "column that holds the text");
    field("pair", pair, "column that holds the second text of a pair");
    field("label", label, "column that holds the label");
    field("image", image, "column that holds the image's file name, relative to the table");
    field("task", task, "classification, multilabel, regression, tokens or causal_lm");
    field("label_separator", label_separator, "between the labels of one cell, for multilabel");
    field("bad_rows", bad_rows, "stop at a row that cannot be used, or skip and count it");
    field("validation_fraction", validation_fraction,
          "part of the rows that becomes validation, when there is no such file");
    field("test_fraction", test_fraction, "part of the rows that becomes test, when one file is split");
    field("split_by", split_by, "column whose equal values stay in one split, for example a document id");
    field("max_train", max_train, "train on a stratified sample of this size; 0 for all rows");
  }
};

/// One split. Row i is example i; texts are kept as the file has them, but for the task tokens: words with one blank between,
/// and for causal_lm: the row as JSON (language/language_rows.h).
struct Examples {
  Ragged<char> texts;
  Ragged<char> pairs;           // empty or as long as texts
  std::vector<int64_t> labels;  // classification: index into label names
  Ragged<int32_t> label_sets;   // multilabel: indices; tokens: one per word of the text
  std::vector<double> values;   // regression
  int64_t size() const { return static_cast<int64_t>(texts.size()); }
};

struct Dataset {
  std::string task;
  std::vector<std::string> label_names;  // order: numbers in numeric order, else as text, "10" after "2"
  Examples train, validation, test;
  SkippedRows skipped;
  std::vector<std::string> files;  // that were read
  bool of_images = false;          // texts are names of image files
  std::string hash;                // SHA-256 of what the splits hold
};

/// Reads, checks, splits (stratified by label, seeded, by split_by when given).
/// `label_names`: empty, or those of a trained model; then labels are matched by name.
/// Throws Kind::data: label unseen in training (file, row, name, the nearest known), an empty split, one class only,
/// a missing column (lists the columns there are), a label that differs only in case or blanks from another, a value of
/// split_by in two files. Kind::usage: options that no value allows. With `label_names` a training file is not needed.
Dataset read_dataset(const DataOptions& options, uint64_t seed, const std::vector<std::string>& label_names = {});

/// The examples of these rows, in this order.
Examples take(const Examples& all, const std::vector<int64_t>& rows);

/// For each example the part that samples and splits keep in proportion: its class, its rarest label, the tenth that its
/// value lies in; one part for all where the task has none of these. `labels`: how many there are.
std::vector<int64_t> strata_of(const Examples& examples, const std::string& task, size_t labels);

/// Class balance, text lengths (characters: min, median, 95 %, max), exact duplicates within and across splits.
Json summary(const Dataset& dataset);
/// The same for people.
std::string summary_text(const Json& summary);

}  // namespace graft::data
