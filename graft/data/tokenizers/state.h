// What a Tokenizer holds; shared by tokenizer.cpp and export.cpp.
#pragma once

#include <memory>

#include "graft/data/tokenizers/source_files.h"
#include "graft/data/tokenizers/tokenizer.h"
#include "tokenizers_c.h"

namespace graft::data {

struct Tokenizer::State {
  struct Free {
    void operator()(TokenizersC* tokenizer) const { tokenizers_c_free(tokenizer); }
  };

  SourceFiles source;
  std::string document;    // the tokenizer.json in force
  nlohmann::json outline;  // the same without its model
  std::unique_ptr<TokenizersC, Free> handle;
};

}  // namespace graft::data
