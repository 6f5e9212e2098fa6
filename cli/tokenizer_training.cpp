// graft tokenize --train: a tokenizer of one's own from texts, for a model that is trained from scratch.
#include "graft/data/tokenizers/training.h"

#include <fmt/format.h>

#include <filesystem>
#include <iostream>

#include "cli/commands.h"
#include "graft/core/error.h"
#include "graft/data/corpus.h"
#include "graft/data/tokenizers/tokenizer.h"
#include "graft/io/file.h"

namespace graft::cli {

int train_tokenizer_command(const TokenizerTrainingArguments& a) {
  GRAFT_CHECK(usage, !a.out.empty(), "tokenize --train: give the folder for the tokenizer by --out.");
  const std::filesystem::path folder = a.out;
  GRAFT_CHECK(usage, !std::filesystem::exists(folder / "tokenizer.json"),
              "{}: holds a tokenizer already. Give another folder, or remove its tokenizer.json.", a.out);
  std::vector<std::string> texts;
  uint64_t bytes = 0;
  for (const auto& corpus : a.corpora)
    bytes +=
        data::for_each_document({.path = corpus, .text = a.text, .held_out_fraction = 0}, [&](std::string_view text,
                                                                                              bool) {
          texts.emplace_back(text);
        }).bytes;
  const auto files = data::train_tokenizer(texts, {.vocab_size = a.vocab_size, .special_tokens = a.special_tokens});
  io::make_folder(folder);
  for (auto file = files.rbegin(); file != files.rend(); ++file) io::write_file(folder / file->first, file->second);
  const auto size = data::Tokenizer::load(folder).vocab_size();
  if (a.json)
    std::cout << Json{{"folder", a.out}, {"vocab_size", size}, {"documents", texts.size()}, {"bytes", bytes}}.dump()
              << "\n";
  else
    fmt::print("{} ids learned from {} documents ({:.1f} MB), in {}\n", size, texts.size(),
               static_cast<double>(bytes) / 1e6, a.out);
  return 0;
}

}  // namespace graft::cli
