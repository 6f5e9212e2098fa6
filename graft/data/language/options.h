// The recipe's [language] section: how examples become sequences for causal language modelling.
#pragma once

#include <string>

namespace graft::data {

struct LanguageOptions {
  std::string learn = "answers";
  std::string chat_template;
  std::string date;
  double fill_in_the_middle = 0;
  double suffix_first = 0.5;

  template <class Visitor>
  void visit(Visitor&& field) {
    field(
        "learn", learn,
        "answers: the loss counts what the assistant says (messages) and completions (prompt, completion); everything: "
        "every token");
    field("chat_template", chat_template, "a Jinja file for rows of messages; empty: the one beside the tokenizer");
    field("date", date, "YYYY-MM-DD, for templates that state the day; empty: the day on which the run is started");
    field("fill_in_the_middle", fill_in_the_middle,
          "part of the plain texts that is taken apart so that the middle comes last, for code models (Bavarian et al. "
          "2022: 0.5 costs nothing left to right)");
    field("suffix_first", suffix_first, "part of these in which what follows the middle comes before what precedes it");
  }
};

}  // namespace graft::data
