#include "graft/data/language/language_examples.h"

#include <algorithm>
#include <mutex>
#include <optional>

#include "graft/core/error.h"
#include "graft/core/parallel.h"
#include "graft/core/threads.h"
#include "graft/data/language/chat_template.h"
#include "graft/data/language/fill_in_the_middle.h"
#include "graft/data/language/places.h"

namespace graft::data {
namespace {

constexpr int64_t kPiece = 1024;  // rows at a time, so that memory holds few encodings with their offsets

/// A row as one text with what is learned of it, in bytes.
struct Written {
  std::string text;
  std::vector<std::pair<size_t, size_t>> learned;
  bool template_tokens = false;  // the text has its special tokens in it already
  bool apart = false;            // it is taken apart to fill in the middle
  int64_t index = 0, lost_answers = 0;
  std::string problem;  // a sentence, where the template refuses it
};

/// A token counts when it holds a character of a learned part; one without characters (the first bytes of a character)
/// by its place.
std::vector<char> learned_tokens(const Written& row, const Encoding& encoding) {
  const auto starts = character_starts(row.text);
  const auto character = [&](size_t byte) {
    return static_cast<int32_t>(std::lower_bound(starts.begin(), starts.end(), byte) - starts.begin());
  };
  std::vector<char> learned(encoding.ids.size(), 0);
  for (const auto& [first, last] : row.learned) {
    const auto from = character(first), to = character(last);
    for (size_t t = 0; t < learned.size(); ++t) {
      const auto [begin, end] = encoding.offsets[t];
      if (!encoding.special[t] && begin < to && (end > from || begin >= from)) learned[t] = 1;
    }
  }
  return learned;
}

class Writer {
 public:
  Writer(const Tokenizer& tokenizer, const LanguageOptions& options) : tokenizer_(tokenizer), options_(options) {}

  /// May be called from several threads.
  Written write(const Json& row) {
    Written written;
    const bool everything = options_.learn == "everything";
    if (row.contains("messages")) {
      std::call_once(made_, [&] {
        template_ = ChatTemplate::of(tokenizer_, options_.chat_template,
                                     day_seconds(options_.date.empty() ? today() : options_.date));
      });
      auto rendered = template_->render(row);
      written.text = std::move(rendered.text);
      written.learned = std::move(rendered.answers);
      written.template_tokens = true;
      written.lost_answers = everything ? 0 : rendered.lost_answers;
    } else if (row.contains("prompt")) {
      written.text = row["prompt"];
      const auto begin = written.text.size();
      written.text += row["completion"].get_ref<const std::string&>();
      written.learned = {{begin, written.text.size()}};
    } else {
      written.text = row["text"];
      written.learned = {{0, written.text.size()}};
    }
    if (everything) written.learned = {{0, written.text.size()}};
    return written;
  }

 private:
  const Tokenizer& tokenizer_;
  const LanguageOptions& options_;
  std::once_flag made_;
  std::optional<ChatTemplate> template_;
};

}  // namespace

std::vector<int32_t> labels_of(std::span<const int32_t> ids, std::span<const char> learned) {
  std::vector<int32_t> labels(ids.size(), -100);
  for (size_t t = 0; t + 1 < ids.size(); ++t)
    if (learned[t + 1]) labels[t] = ids[t + 1];
  return labels;
}

LanguageExamples language_examples(const Tokenizer& tokenizer, const Ragged<char>& rows, const LanguageOptions& options,
                                   int64_t max_length, uint64_t seed, const std::string& split, BadRows bad_rows) {
  LanguageExamples examples;
  Writer writer(tokenizer, options);
  const FillInTheMiddle middle(tokenizer, options, seed);
  const auto end = tokenizer.special_id("eos_token");
  const auto add = [&](std::vector<int32_t> ids, std::vector<char> learned) {
    if (static_cast<int64_t>(ids.size()) > max_length) {
      ++examples.truncated;
      ids.resize(max_length);
      learned.resize(max_length);
    }
    const auto labels = labels_of(ids, learned);
    examples.without_answer += std::all_of(labels.begin(), labels.end(), [](int32_t label) { return label < 0; });
    examples.ids.push_back(ids);
    examples.labels.push_back(labels);
  };
  for (int64_t start = 0; start < rows.size(); start += kPiece) {
    std::vector<Written> written(std::min(kPiece, rows.size() - start));
    parallel_for(static_cast<int64_t>(written.size()), available_cores(), [&](int64_t i) {
      const auto row = Json::parse(rows.text(start + i));
      try {
        written[i] = writer.write(row);
      } catch (const Error& e) {
        if (e.kind != Kind::data) throw;
        written[i].problem = fmt::format("{} example {}: {}", split, start + i + 1, e.what());
      }
      written[i].index = start + i;
      written[i].apart = row.contains("text") && middle.applies(static_cast<uint64_t>(start + i));
    });
    std::erase_if(written, [&](Written& row) {
      if (row.problem.empty()) return false;
      if (bad_rows == BadRows::stop) throw Error(Kind::data, row.problem);
      if (++examples.skipped.count <= 10) examples.skipped.first.push_back(std::move(row.problem));
      return true;
    });
    std::vector<std::string_view> texts[2];  // by template_tokens
    for (const auto& row : written) {
      examples.kept.push_back(row.index);
      examples.lost_answers += row.lost_answers;
      if (!row.apart) texts[row.template_tokens].push_back(row.text);
    }
    std::vector<Encoding> encodings[2];
    for (const bool template_tokens : {false, true})
      if (!texts[template_tokens].empty())
        encodings[template_tokens] = tokenizer.encode_batch(texts[template_tokens], {},
                                                            {.add_special_tokens = !template_tokens, .details = true});
    size_t next[2] = {0, 0};
    for (const auto& row : written) {
      if (row.apart) {
        const auto parts = middle.parts(row.text, max_length);
        examples.truncated += parts.size() > 1;
        auto ids = middle.ids(parts.front(), static_cast<uint64_t>(row.index));
        std::vector<char> learned(ids.size(), 1);
        add(std::move(ids), std::move(learned));
        continue;
      }
      auto& encoding = encodings[row.template_tokens][next[row.template_tokens]++];
      auto learned = learned_tokens(row, encoding);
      if (!row.template_tokens && end && (encoding.ids.empty() || encoding.ids.back() != *end)) {
        encoding.ids.push_back(*end);
        learned.push_back(0);
      }
      if (!row.template_tokens && end) learned.back() = 1;
      add(std::move(encoding.ids), std::move(learned));
    }
  }
  return examples;
}

}  // namespace graft::data
