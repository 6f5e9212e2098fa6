#include "graft/data/language/fill_in_the_middle.h"

#include <algorithm>

#include "graft/core/error.h"
#include "graft/core/random.h"
#include "graft/data/language/places.h"

namespace graft::data {
namespace {

struct Names {
  const char *prefix, *suffix, *middle;
};
/// StarCoder, SantaCoder, Qwen and CodeGemma, CodeLlama (twice), DeepSeek.
constexpr Names kNames[] = {
    {"<fim_prefix>", "<fim_suffix>", "<fim_middle>"},
    {"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},
    {"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
    {"\xe2\x96\x81<PRE>", "\xe2\x96\x81<SUF>", "\xe2\x96\x81<MID>"},
    {"<PRE>", "<SUF>", "<MID>"},
    {"<\xef\xbd\x9c"
     "fim\xe2\x96\x81"
     "begin\xef\xbd\x9c>",
     "<\xef\xbd\x9c"
     "fim\xe2\x96\x81hole\xef\xbd\x9c>",
     "<\xef\xbd\x9c"
     "fim\xe2\x96\x81"
     "end\xef\xbd\x9c>"},
};
constexpr int64_t kAdded = 8;  // room for three tokens, begin, end, and what cuts inside of words add

void append(std::vector<int32_t>& to, const std::vector<int32_t>& ids) { to.insert(to.end(), ids.begin(), ids.end()); }

}  // namespace

FillInTheMiddle::FillInTheMiddle(const Tokenizer& tokenizer, const LanguageOptions& options, uint64_t seed)
    : tokenizer_(tokenizer), rate_(options.fill_in_the_middle), suffix_first_(options.suffix_first), seed_(seed) {
  if (rate_ <= 0) return;
  std::vector<std::string> looked_for;
  for (const auto& names : kNames) {
    const auto prefix = tokenizer.id_of(names.prefix), suffix = tokenizer.id_of(names.suffix),
               middle = tokenizer.id_of(names.middle);
    looked_for.push_back(names.prefix);
    if (!prefix || !suffix || !middle) continue;
    prefix_ = *prefix, suffix_ = *suffix, middle_ = *middle;
    break;
  }
  GRAFT_CHECK(
      model, prefix_ >= 0,
      "language.fill_in_the_middle: the tokenizer has no tokens for it; looked for {} and their partners. Set it "
      "to 0, or take a source that was trained so.",
      listed(looked_for));
  end_ = tokenizer.special_id("eos_token");
  begin_ = tokenizer.encode("", {}).ids;
  if (!begin_.empty() && end_ && begin_.back() == *end_ && tokenizer.special_id("bos_token") != end_) begin_.pop_back();
}

bool FillInTheMiddle::applies(uint64_t index) const {
  return rate_ > 0 && Random(seed_of(seed_, {"fill in the middle"}, {index})).uniform() < rate_;
}

std::vector<int32_t> FillInTheMiddle::ids(std::string_view text, uint64_t index) const {
  Random random(seed_of(seed_, {"fill in the middle", "cuts"}, {index}));
  const auto starts = character_starts(text);  // the end of the text is the last
  auto first = random.below(starts.size()), second = random.below(starts.size());
  if (first > second) std::swap(first, second);
  const bool suffix_first = random.uniform() < suffix_first_;
  const auto a = starts[first], b = starts[second];
  const auto suffix = text.substr(b);
  auto ids = begin_;
  const Tokenizer::Options plain{.add_special_tokens = false};
  if (suffix_first) {
    const auto parts = tokenizer_.encode_batch({suffix, text.substr(0, b)}, {}, plain);
    append(ids, {prefix_, suffix_});
    append(ids, parts[0].ids);
    append(ids, {middle_});
    append(ids, parts[1].ids);
  } else {
    const auto parts = tokenizer_.encode_batch({text.substr(0, a), suffix, text.substr(a, b - a)}, {}, plain);
    append(ids, {prefix_});
    append(ids, parts[0].ids);
    append(ids, {suffix_});
    append(ids, parts[1].ids);
    append(ids, {middle_});
    append(ids, parts[2].ids);
  }
  if (end_) ids.push_back(*end_);
  return ids;
}

std::vector<std::string_view> FillInTheMiddle::parts(std::string_view text, int64_t max_length) const {
  const auto encoding = tokenizer_.encode(text, {.add_special_tokens = false, .details = true});
  const auto room =
      static_cast<size_t>(std::max<int64_t>(1, max_length - kAdded - static_cast<int64_t>(begin_.size())));
  if (encoding.ids.size() <= room) return {text};
  const auto starts = character_starts(text);
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t t = room; t < encoding.ids.size(); t += room) {
    const auto end = starts[std::min(static_cast<size_t>(encoding.offsets[t].first), starts.size() - 1)];
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = std::max(begin, end);
  }
  if (begin < text.size()) parts.push_back(text.substr(begin));
  return parts;
}

}  // namespace graft::data
