// The recipe's [select] section: which sources compete, and how they are measured.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace graft::select {

struct SelectOptions {
  std::vector<std::string> candidates;
  std::string domain, licence;
  double max_mb = 600;
  int64_t sample = 10000;
  double seconds = 0;
  bool halving = false;

  template <class Visitor>
  void visit(Visitor&& field) {
    field("candidates", candidates, "sources that compete, as `source` names them; empty: those of the list that fit");
    field("domain", domain, "of the data (medical, legal, code, ...); empty: what the data show");
    field("licence", licence, "a part of the licence's name that candidates of the list must have: mit, apache");
    field("max_mb", max_mb, "largest download of a candidate of the list, in 10^6 bytes; 0: any");
    field("sample", sample, "most training examples that candidates are measured on, a stratified sample");
    field("seconds", seconds,
          "most seconds for the passes through all candidates: the sample is made as large as a few timed batches of "
          "each allow; 0: as large as `sample`");
    field("halving", halving, "let the better half train heads on its stored features, twice as long in each round");
  }
};

}  // namespace graft::select
