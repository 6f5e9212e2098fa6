// The engine for SentencePiece models: DeBERTa v2 and v3 (spm.model), LLaMA 1 and 2 (tokenizer.model).
// Source: transformers 4.57: the Python classes DebertaV2Tokenizer and LlamaTokenizer for the ids, the crate for
// truncation and offsets. 5.x rebuilds both from a class and drops normalisation map and byte fallback, with which the
// models were trained, so it is not followed (tests/parity/tokenizers has its ids beside these).
#include <sentencepiece_processor.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <set>
#include <thread>

#include "graft/core/error.h"
#include "graft/core/threads.h"
#include "graft/data/table.h"
#include "graft/data/tokenizers/build.h"
#include "graft/data/tokenizers/state.h"

namespace graft::data {
namespace {

/// U+2581, SentencePiece's blank.
constexpr std::string_view kBlank = "\xe2\x96\x81";

struct AddedToken {
  std::string content;
  int32_t id;
  bool special, lstrip, rstrip, single_word;
};

/// The special tokens around a text and around its pair.
struct Template {
  std::vector<int32_t> before, after, before_pair, after_pair;
};

/// A piece of a text: bytes [begin, end) that SentencePiece sees, or an added token.
struct Segment {
  size_t begin, end;
  const AddedToken* token = nullptr;
};

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// The number of characters before each byte of the text, and before its end.
std::vector<int32_t> characters_before(std::string_view text) {
  std::vector<int32_t> count(text.size() + 1, 0);
  for (size_t i = 0; i < text.size(); ++i) count[i + 1] = count[i] + ((text[i] & 0xC0) != 0x80);
  // A byte inside a character belongs to that character.
  for (size_t i = 1; i < text.size(); ++i)
    if ((text[i] & 0xC0) == 0x80) count[i] = count[i] - 1;
  return count;
}

/// Whether a piece begins with exactly one blank.
bool one_blank(std::string_view piece) {
  return piece.starts_with(kBlank) && !piece.substr(kBlank.size()).starts_with(kBlank);
}

/// Bytes of the character that begins with this byte.
size_t character_size(char byte) {
  const auto c = static_cast<unsigned char>(byte);
  return c < 0xC0 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/// What the model's map makes of a character that is more to a computer than to a reader.
enum class Made { itself, blank, nothing };

class OddCharacters {
 public:
  explicit OddCharacters(const sentencepiece::SentencePieceProcessor& model) {
    const auto ask = [&](int first, int last) {
      for (auto c = first; c <= last; ++c) add(model, c);
    };
    ask(0x1, 0x20), ask(0x7F, 0xA0), ask(0xAD, 0xAD), ask(0x1680, 0x1680), ask(0x180E, 0x180E), ask(0x2000, 0x200F);
    ask(0x2028, 0x202F), ask(0x205F, 0x2064), ask(0x3000, 0x3000), ask(0xFEFF, 0xFEFF), ask(0xFFFD, 0xFFFD);
  }

  /// The blank before a text: none of it is the first piece's, unless the map made it from no blank (a byte-order mark).
  size_t first_blank(std::string_view text, size_t begin) const {
    size_t i = 0, last = begin;
    while (i < begin && !kNoBlanks.contains(text.substr(i, character_size(text[i])))) i = at(text, i).second;
    for (; i < begin; i = at(text, i).second)
      if (at(text, i).first == Made::blank) last = i;
    return last;
  }

  /// Where the crate says that a piece stands whose characters SentencePiece takes from bytes [begin, end): of several
  /// blanks that become one the last is the piece's, what becomes nothing is nobody's, and \r\n is one character.
  std::pair<size_t, size_t> span(std::string_view text, size_t begin, size_t end, bool one_blank) const {
    while (begin < end) {
      const auto [made, next] = at(text, begin);
      if (next >= end) break;
      const auto after = at(text, next).first;
      if (made != Made::nothing && !(one_blank && made == Made::blank && after != Made::itself)) break;
      begin = next;
    }
    auto last = begin;  // the end of the last character that remains
    for (auto i = begin; i < end;) {
      const auto [made, next] = at(text, i);
      if (made != Made::nothing) last = next;
      i = next;
    }
    return {begin, last == begin ? end : last};
  }

 private:
  void add(const sentencepiece::SentencePieceProcessor& model, int code) {
    std::string c;
    if (code < 0x80) c = {static_cast<char>(code)};
    else if (code < 0x800) c = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
    else
      c = {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
           static_cast<char>(0x80 | (code & 0x3F))};
    std::string pieces;
    for (const auto& piece : model.EncodeAsPieces("a" + c + "a")) pieces += piece;
    if (pieces.ends_with(std::string("a") + std::string(kBlank) + "a")) made_[c] = Made::blank;
    else if (pieces.ends_with("aa")) made_[c] = Made::nothing;
  }

  std::pair<Made, size_t> at(std::string_view text, size_t at) const {
    if (text.substr(at, 2) == "\r\n" && made_.contains("\r")) return {made_.at("\r"), at + 2};
    const auto size = character_size(text[at]);
    const auto found = made_.find(std::string(text.substr(at, size)));
    return {found == made_.end() ? Made::itself : found->second, at + size};
  }

  /// Of those that become blanks: U+200B to U+200F, U+FEFF, U+FFFD.
  inline static const std::set<std::string_view> kNoBlanks{
      "\xe2\x80\x8b", "\xe2\x80\x8c", "\xe2\x80\x8d", "\xe2\x80\x8e", "\xe2\x80\x8f", "\xef\xbb\xbf", "\xef\xbf\xbd"};
  std::map<std::string, Made> made_;
};

template <class Items>
void keep(Items& items, size_t count, bool from_left) {
  if (items.size() <= count) return;
  if (from_left) items.erase(items.begin(), items.end() - static_cast<std::ptrdiff_t>(count));
  else items.resize(count);
}

void keep(Encoding& e, size_t count, bool from_left) {
  keep(e.ids, count, from_left);
  keep(e.offsets, count, from_left);
  keep(e.words, count, from_left);
}

/// As the crate cuts: with longest_first both parts end equally long, the odd token in the second.
std::string truncate(Encoding& first, Encoding* second, size_t room, Tokenizer::Truncation strategy, bool from_left) {
  const auto n1 = first.ids.size(), n2 = second ? second->ids.size() : 0;
  if (n1 + n2 <= room) return "";
  const auto excess = n1 + n2 - room;
  if (strategy == Tokenizer::Truncation::longest_first) {
    if (!second) return keep(first, room, from_left), "";
    auto shorter = std::min(n1, n2), longer = std::max(shorter, shorter > room ? shorter : room - shorter);
    if (shorter + longer > room) {
      shorter = room / 2;
      longer = shorter + room % 2;
    }
    keep(first, n1 > n2 ? longer : shorter, from_left);
    keep(*second, n1 > n2 ? shorter : longer, from_left);
    return "";
  }
  const bool cut_first = strategy == Tokenizer::Truncation::only_first;
  if (!cut_first && !second) return "only the second text may be cut, but there is none";
  auto& cut = cut_first ? first : *second;
  if (cut.ids.size() <= excess)
    return fmt::format("the {} text has {} tokens, too few to remove {} of them", cut_first ? "first" : "second",
                       cut.ids.size(), excess);
  keep(cut, cut.ids.size() - excess, from_left);
  return "";
}

class SentencePieceEngine final : public TokenizerEngine {
 public:
  /// `prefix_once`: a blank stands before the whole text, not before each part between added tokens (LLaMA's
  /// `legacy: false`).
  SentencePieceEngine(std::unique_ptr<sentencepiece::SentencePieceProcessor> model, std::vector<AddedToken> added,
                      Template special, bool prefix_once)
      : model_(std::move(model)),
        added_(std::move(added)),
        special_(std::move(special)),
        prefix_once_(prefix_once),
        odd_(*model_) {
    // The longest token that fits counts.
    std::sort(added_.begin(), added_.end(),
              [](const auto& a, const auto& b) { return a.content.size() > b.content.size(); });
    vocab_size_ = model_->GetPieceSize();
    for (const auto& token : added_) vocab_size_ = std::max<int64_t>(vocab_size_, token.id + 1);
  }

  int64_t added_tokens(bool pair) const override {
    const auto single = special_.before.size() + special_.after.size();
    return static_cast<int64_t>(single + (pair ? special_.before_pair.size() + special_.after_pair.size() : 0));
  }

  Result encode(const std::vector<std::string_view>& texts, const std::vector<std::string_view>& pairs,
                const Tokenizer::Options& options, bool truncate_left) const override {
    Result result;
    result.encodings.resize(texts.size());
    std::vector<std::string> problems(texts.size());
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      for (size_t row; (row = next++) < texts.size();)
        problems[row] = encode_row(texts[row], pairs.empty() ? nullptr : &pairs[row], options, truncate_left,
                                   result.encodings[row]);
    };
    const auto threads = std::min<size_t>(available_cores(), texts.size() / 16 + 1);
    {
      std::vector<std::jthread> others;
      for (size_t i = 1; i < threads; ++i) others.emplace_back(work);
      work();
    }
    for (size_t row = 0; row < texts.size() && result.problem.empty(); ++row)
      if (!problems[row].empty()) result.problem = fmt::format("text {}: {}", row, problems[row]);
    return result;
  }

  int64_t vocab_size() const override { return vocab_size_; }

  std::optional<int32_t> id_of(const std::string& token) const override {
    for (const auto& added : added_)
      if (added.content == token) return added.id;
    const auto id = model_->PieceToId(token);
    if (id == model_->unk_id() && model_->IdToPiece(id) != token) return std::nullopt;
    return id;
  }

  std::optional<std::string> token_of(int32_t id) const override {
    if (const auto* added = added_with(id)) return added->content;
    if (id >= model_->GetPieceSize()) return std::nullopt;
    return model_->IdToPiece(id);
  }

  std::string decode(const std::string& where, const std::vector<int32_t>& ids,
                     bool skip_special_tokens) const override {
    std::string text;
    std::vector<int> pieces;
    const auto flush = [&] {
      if (!pieces.empty()) text += model_->DecodeIds(pieces);
      pieces.clear();
    };
    for (const auto id : ids) {
      if (const auto* added = added_with(id)) {
        flush();
        if (!added->special || !skip_special_tokens) text += added->content;
        continue;
      }
      GRAFT_CHECK(model, id >= 0 && id < model_->GetPieceSize(),
                  "{}: the ids cannot be decoded: there is no token with id {}; they end at {}", where, id,
                  vocab_size_ - 1);
      pieces.push_back(id);
    }
    flush();
    return text;
  }

 private:
  const AddedToken* added_with(int32_t id) const {
    const auto found = std::find_if(added_.begin(), added_.end(), [&](const auto& token) { return token.id == id; });
    return found == added_.end() ? nullptr : &*found;
  }

  const AddedToken* added_at(std::string_view text, size_t at) const {
    for (const auto& token : added_) {
      if (!text.substr(at).starts_with(token.content)) continue;
      const auto end = at + token.content.size();
      const bool alone = (at == 0 || is_blank(text[at - 1])) && (end == text.size() || is_blank(text[end]));
      if (!token.single_word || alone) return &token;
    }
    return nullptr;
  }

  /// Added tokens, and what stands between them.
  std::vector<Segment> segments(std::string_view text) const {
    std::vector<Segment> found;
    size_t begin = 0;
    const auto text_until = [&](size_t end) {
      if (end > begin) found.push_back({begin, end});
    };
    for (size_t i = 0; i < text.size();) {
      const auto* token = added_at(text, i);
      if (!token) {
        ++i;
        continue;
      }
      auto end = i;
      if (token->lstrip)
        while (end > begin && is_blank(text[end - 1])) --end;
      text_until(end);
      begin = i + token->content.size();
      found.push_back({i, begin, token});
      if (token->rstrip)
        while (begin < text.size() && is_blank(text[begin])) ++begin;
      i = begin;
    }
    text_until(text.size());
    return found;
  }

  /// Pieces of one text without special tokens of the template.
  std::string tokens(std::string_view text, bool details, Encoding& encoding) const {
    if (size_t bad = 0; !is_utf8(text, &bad)) return fmt::format("not UTF-8 at byte {}", bad);
    const auto characters = details ? characters_before(text) : std::vector<int32_t>();
    int32_t word = -1;
    bool first = true;
    for (const auto& segment : segments(text)) {
      if (segment.token) {
        encoding.ids.push_back(segment.token->id);
        if (details) {
          encoding.offsets.emplace_back(characters[segment.begin], characters[segment.end]);
          encoding.words.push_back(++word);
        }
        first = false;
        continue;
      }
      const auto part = text.substr(segment.begin, segment.end - segment.begin);
      const bool prefixed = prefix_once_ && first;
      first = false;
      sentencepiece::ImmutableSentencePieceText pieces;
      const auto status =
          model_->Encode(prefixed ? " " + std::string(part) : std::string(part), pieces.mutable_proto());
      if (!status.ok()) return status.ToString();
      const auto count = pieces.pieces_size();
      for (size_t i = 0; i < count; ++i) {
        const auto piece = pieces.pieces(static_cast<int>(i));
        encoding.ids.push_back(static_cast<int32_t>(piece.id()));
        if (!details) continue;
        // The bytes of one character: only the last of them has its place.
        auto placed = i;
        while (placed + 1 < count && model_->IsByte(static_cast<int>(piece.id())) &&
               pieces.pieces(static_cast<int>(placed)).begin() == pieces.pieces(static_cast<int>(placed)).end())
          ++placed;
        size_t begin = pieces.pieces(static_cast<int>(placed)).begin(),
               end = pieces.pieces(static_cast<int>(placed)).end();
        if (prefixed) begin -= begin > 0, end -= end > 0;
        if (i == 0 && one_blank(piece.piece())) begin = odd_.first_blank(part, begin);
        std::tie(begin, end) = odd_.span(part, begin, end, one_blank(piece.piece()));
        if (begin == end && end < part.size())  // a blank that stands before the text: its first character
          do ++end;
          while (end < part.size() && (part[end] & 0xC0) == 0x80);
        encoding.offsets.emplace_back(characters[segment.begin + begin], characters[segment.begin + end]);
        word += i == 0 || std::string_view(piece.piece()).starts_with(kBlank);
        encoding.words.push_back(word);
      }
    }
    return "";
  }

  std::string encode_row(std::string_view text, const std::string_view* pair, const Tokenizer::Options& options,
                         bool truncate_left, Encoding& into) const {
    Encoding first, second;
    for (const auto& [part, encoding] : {std::pair<const std::string_view*, Encoding*>{&text, &first}, {pair, &second}})
      if (part)
        if (auto problem = tokens(*part, options.details, *encoding); !problem.empty()) return problem;
    if (options.max_length) {
      const auto special = options.add_special_tokens ? added_tokens(pair != nullptr) : 0;
      const auto room = static_cast<size_t>(*options.max_length - special);
      if (auto problem = truncate(first, pair ? &second : nullptr, room, options.truncation, truncate_left);
          !problem.empty())
        return problem;
    }
    const auto add = [&](const std::vector<int32_t>& ids, const Encoding* tokens, int32_t type) {
      into.ids.insert(into.ids.end(), ids.begin(), ids.end());
      into.type_ids.resize(into.ids.size(), type);
      if (!options.details) return;
      if (tokens) {
        into.offsets.insert(into.offsets.end(), tokens->offsets.begin(), tokens->offsets.end());
        into.words.insert(into.words.end(), tokens->words.begin(), tokens->words.end());
      }
      into.offsets.resize(into.ids.size(), {0, 0});
      into.words.resize(into.ids.size(), -1);
      into.special.resize(into.ids.size(), tokens == nullptr);
    };
    const auto add_special = [&](const std::vector<int32_t>& ids, int32_t type) {
      if (options.add_special_tokens) add(ids, nullptr, type);
    };
    add_special(special_.before, 0);
    add(first.ids, &first, 0);
    add_special(special_.after, 0);
    if (!pair) return "";
    add_special(special_.before_pair, 1);
    add(second.ids, &second, 1);
    add_special(special_.after_pair, 1);
    return "";
  }

  std::unique_ptr<sentencepiece::SentencePieceProcessor> model_;
  std::vector<AddedToken> added_;
  Template special_;
  bool prefix_once_;
  OddCharacters odd_;
  int64_t vocab_size_ = 0;
};

std::vector<AddedToken> read_added(const nlohmann::json& entries) {
  std::vector<AddedToken> added;
  for (const auto& entry : entries)
    if (!entry.value("content", "").empty())
      added.push_back({entry["content"], entry["id"], entry.value("special", false), entry.value("lstrip", false),
                       entry.value("rstrip", false), entry.value("single_word", false)});
  return added;
}

}  // namespace

std::string sentencepiece_file(const SourceFiles& source) {
  if (source.has("tokenizer.json") || source.has("vocab.txt") || (source.has("vocab.json") && source.has("merges.txt")))
    return "";
  for (const auto* name : {"spm.model", "tokenizer.model"})
    if (source.has(name)) return name;
  return "";
}

SentencePieceParts make_sentencepiece_engine(const SourceFiles& source) {
  const auto path = (source.folder / sentencepiece_file(source)).string();
  const auto& family = source.family.name;
  GRAFT_CHECK(model, family == "deberta-v2" || family == "llama",
              "{}: a SentencePiece model whose special tokens are not known to graft: tokenizer_config.json says `{}`, "
              "config.json's model_type `{}`; known are DebertaV2Tokenizer and LlamaTokenizer. The tokenizer may not "
              "belong to this model; use the files of one model, or add its tokenizer.json",
              path, source.text_setting("tokenizer_class", ""), source.model_type);
  GRAFT_CHECK(model, !source.flag("do_lower_case", false),
              "{}: do_lower_case with a SentencePiece model is not computed by graft; add the model's tokenizer.json",
              (source.folder / "tokenizer_config.json").string());
  // LLaMA's newer rule: the model itself puts no blank before a text. Appended fields of a protobuf message overrule
  // those before: normalizer_spec { add_dummy_prefix: false }.
  const bool prefix_once = family == "llama" && !source.flag("legacy", true);
  const auto bytes =
      source.files.at(sentencepiece_file(source)) + (prefix_once ? std::string("\x1a\x02\x18\x00", 4) : "");
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  const auto status = processor->LoadFromSerializedProto({bytes.data(), bytes.size()});
  GRAFT_CHECK(model, status.ok() && processor->GetPieceSize() > 0,
              "{}: not a SentencePiece model ({}); fetch the file again. LLaMA 3 has no such model but tokenizer.json",
              path, status.ToString());

  auto vocabulary = nlohmann::json::object();
  for (int id = 0; id < processor->GetPieceSize(); ++id) vocabulary[processor->IdToPiece(id)] = id;
  auto added = added_tokens(source, vocabulary);
  const auto id_of = [&](const char* role) {
    return static_cast<int32_t>(required_id(source, role, vocabulary, added));
  };
  Template special;
  if (family == "deberta-v2") {
    special = {{id_of("cls_token")}, {id_of("sep_token")}, {}, {id_of("sep_token")}};
  } else {
    if (source.flag("add_bos_token", true)) special.before = special.before_pair = {id_of("bos_token")};
    if (source.flag("add_eos_token", false)) special.after = special.after_pair = {id_of("eos_token")};
  }
  SentencePieceParts parts;
  parts.engine =
      std::make_unique<SentencePieceEngine>(std::move(processor), read_added(added), std::move(special), prefix_once);
  parts.added_tokens = std::move(added);
  return parts;
}

}  // namespace graft::data
