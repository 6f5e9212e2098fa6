// Texts without labels for domain-adaptive pre-training, streamed: a corpus may be larger than memory.
#pragma once

#include "graft/data/table.h"

namespace graft::data {

struct CorpusOptions {
  std::string path;                 // a file, or a folder whose files are read in the order of their names
  std::string text = "text";        // column of JSONL, CSV and TSV; a .txt file has one document a line
  std::string bad_rows = "stop";    // stop or skip
  double held_out_fraction = 0.05;  // of the documents, by their text

  template <class Visitor>
  void visit(Visitor&& field) {
    field("path", path, "a file or folder of texts: .txt with one document a line, .jsonl, .csv or .tsv");
    field("text", text, "column that holds the text");
    field("bad_rows", bad_rows, "stop at a row that cannot be used, or skip and count it");
    field("held_out_fraction", held_out_fraction, "part of the documents that is not trained on but measures the loss");
  }
};

struct CorpusSummary {
  int64_t documents = 0, held_out = 0;
  uint64_t bytes = 0;
  SkippedRows skipped;
  std::vector<std::string> files;
};

/// Calls `use(document, held_out)` for each document in order. Whether one is held out depends on its text alone, so equal
/// documents are on one side, and a corpus that grows keeps its sides.
/// Throws Kind::data for no files, no documents and bad rows; Kind::usage for options that no value allows.
CorpusSummary for_each_document(const CorpusOptions& options,
                                const std::function<void(std::string_view document, bool held_out)>& use);

}  // namespace graft::data
