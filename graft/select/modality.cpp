#include "graft/select/modality.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "graft/core/error.h"
#include "graft/core/text.h"
#include "graft/data/table.h"
#include "graft/select/archive_entries.h"

namespace graft::select {
namespace {

namespace fs = std::filesystem;

const std::set<std::string> kImages{".jpg",  ".jpeg", ".png",   ".webp", ".bmp",  ".gif", ".tif",
                                    ".tiff", ".dcm",  ".dicom", ".svs",  ".ndpi", ".scn", ".bif",
                                    ".vms",  ".vmu",  ".mrxs",  ".hdf",  ".jp2"};
const std::set<std::string> kSlides{".svs", ".ndpi", ".scn", ".bif", ".vms", ".vmu", ".mrxs"};
const std::set<std::string> kTables{".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt"};

constexpr int64_t kMostFiles = 20'000, kMostHeaders = 50, kMostRows = 1000;

std::string extension(const std::string& path) { return lower(fs::path(path).extension().string()); }

bool is_image(const std::string& path) { return kImages.contains(extension(path)); }

// Words and short phrases that belong to one domain and are rare elsewhere. Lower case; a word of the text counts when it
// is one of these, a phrase when it stands in the text.
struct Vocabulary {
  const char* domain;
  std::set<std::string> words;
  std::vector<const char*> phrases;
};

const std::vector<Vocabulary>& vocabularies() {
  static const std::vector<Vocabulary> kAll{
      {"medical",
       {"patient",      "patients", "diagnosis", "diagnosed",    "symptoms",   "chest",       "lung",        "lungs",
        "pleural",      "effusion", "pneumonia", "pneumothorax", "opacity",    "opacities",   "atelectasis", "cardiac",
        "dose",         "mg",       "hospital",  "discharged",   "discharge",  "surgery",     "biopsy",      "lesion",
        "lesions",      "chronic",  "acute",     "edema",        "oedema",     "radiograph",  "ct",          "mri",
        "hypertension", "diabetes", "carcinoma", "metastasis",   "bilateral",  "clinical",    "therapy",     "blood",
        "impression",   "findings", "fracture",  "cardiomegaly", "medication", "tachycardia", "dyspnea",     "ecg"},
       {"chest x-ray", "no acute", "year-old", "history of", "blood pressure", "presents with"}},
      {"scientific",
       {"hypothesis",    "experiments", "experimental", "propose",       "proposed",   "methods",
        "dataset",       "datasets",    "algorithm",    "theorem",       "empirical",  "protein",
        "proteins",      "gene",        "genes",        "cells",         "mice",       "molecular",
        "enzyme",        "kinase",      "receptor",     "statistically", "baseline",   "abstract",
        "significantly", "correlation", "binding",      "expression",    "et",         "al",
        "assay",         "genome",      "quantum",      "neural",        "simulation", "evaluated",
        "inhibitor",     "inhibitors",  "in-vitro",     "phylogenetic"},
       {"et al", "in this paper", "we propose", "we show that", "our results", "state of the art", "state-of-the-art",
        "in vitro", "in vivo", "p <", "these results suggest"}},
      {"legal",
       {"plaintiff",  "defendant",    "plaintiffs", "defendants", "court",      "courts",   "herein",      "hereby",
        "thereof",    "hereto",       "hereunder",  "pursuant",   "shall",      "statute",  "appellant",   "appellee",
        "respondent", "jurisdiction", "liability",  "indemnify",  "licensee",   "licensor", "covenant",    "tort",
        "judgment",   "contract",     "agreement",  "clause",     "lessee",     "lessor",   "arbitration", "breach",
        "article",    "directive",    "regulation", "provision",  "provisions", "parties",  "counsel",     "damages"},
       {"shall not", "subject to", "in accordance with", "the parties", "governed by", "set forth", "supreme court",
        "member states", "terms and conditions"}},
      {"code",
       {"def",     "elif",    "printf", "endif",  "nullptr", "void",       "struct", "const", "fn",
        "println", "argv",    "argc",   "stdout", "stderr",  "async",      "await",  "impl",  "typedef",
        "lambda",  "foreach", "bool",   "std",    "self",    "isinstance", "malloc", "sizeof"},
       {"();", "){", ") {", "};", "->", "!=", "==", "//", "/*", "#include", "import ", "return ", "function(",
        "public ", "def ", "self.", "std::", "= new ", "</"}}};
  return kAll;
}

/// How many different words and phrases of the vocabulary the text holds; the first of them go into `seen`.
int64_t hits(const std::string& text, const Vocabulary& vocabulary, std::map<std::string, int64_t>& seen) {
  std::set<std::string> found;
  std::string word;
  for (size_t i = 0; i <= text.size(); ++i) {
    const auto c = i < text.size() ? static_cast<unsigned char>(text[i]) : ' ';
    if (std::isalnum(c) || c == '_' || c >= 0x80 || (c == '-' && !word.empty())) word += static_cast<char>(c);
    else {
      if (vocabulary.words.contains(word)) found.insert(word);
      word.clear();
    }
  }
  for (const auto* phrase : vocabulary.phrases)
    if (text.find(phrase) != std::string::npos) found.insert(phrase);
  for (const auto& term : found) ++seen[term];
  return static_cast<int64_t>(found.size());
}

std::string most_frequent(const std::map<std::string, int64_t>& counts, size_t number) {
  std::vector<std::pair<int64_t, std::string>> order;
  for (const auto& [term, count] : counts) order.emplace_back(-count, term);
  std::sort(order.begin(), order.end());
  std::vector<std::string> terms;
  for (size_t i = 0; i < std::min(order.size(), number); ++i) terms.push_back("\"" + order[i].second + "\"");
  return listed(terms, number);
}

// --- images -----------------------------------------------------------------------------------------------------

class Bytes {
 public:
  Bytes(std::string text, bool little) : text_(std::move(text)), little_(little) {}
  uint64_t number(uint64_t at, int size) const {
    uint64_t value = 0;
    for (int i = 0; i < size; ++i) {
      const auto place = at + static_cast<uint64_t>(little_ ? size - 1 - i : i);
      value = value << 8 | (place < text_.size() ? static_cast<unsigned char>(text_[place]) : 0u);
    }
    return value;
  }
  uint64_t size() const { return text_.size(); }

 private:
  std::string text_;
  bool little_;
};

/// The tags of the first directory of a TIFF or BigTIFF (TIFF 6.0; GeoTIFF's key directory is tag 34735).
void read_tiff(std::istream& file, const std::string& head, ImageHeader& header) {
  const bool little = head[0] == 'I';
  const Bytes start(head, little);
  const bool big = start.number(2, 2) == 43;
  const auto offset = big ? start.number(8, 8) : start.number(4, 4);
  std::string text(64 << 10, '\0');
  file.clear();
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  const Bytes directory(text, little);
  const auto count = std::min<uint64_t>(directory.number(0, big ? 8 : 2), 1000);
  const uint64_t entry_size = big ? 20 : 12, first = big ? 8 : 2;
  for (uint64_t i = 0; i < count; ++i) {
    const auto at = first + i * entry_size;
    if (at + entry_size > directory.size()) break;
    const auto tag = directory.number(at, 2), type = directory.number(at + 2, 2);
    const auto values = directory.number(at + 4, big ? 8 : 4);
    const auto place = at + (big ? 12 : 8);
    const auto value = static_cast<int64_t>(type == 3 ? directory.number(place, 2) : directory.number(place, 4));
    if (tag == 256) header.width = value;
    if (tag == 257) header.height = value;
    if (tag == 258 && values * 2 <= (big ? 8u : 4u)) header.bits = value;
    if (tag == 277) header.bands = value;
    if (tag == 322) header.tiled = true;
    if (tag == 33550 || tag == 33922 || tag == 34735) header.placed = true;
  }
  if (header.bands == 0) header.bands = 1;
}

ImageHeader header_in(std::istream& file);

using Headers = std::vector<std::pair<fs::path, ImageHeader>>;

Headers headers_of(const std::vector<fs::path>& files) {
  Headers headers;
  for (size_t i = 0; i < files.size() && static_cast<int64_t>(headers.size()) < kMostHeaders;
       i += std::max<size_t>(1, files.size() / kMostHeaders))
    headers.emplace_back(files[i], read_image_header(files[i]));
  return headers;
}

Headers headers_of(const ArchiveEntries& entries) {
  Headers headers;
  for (const auto& start : entries.starts) {
    std::istringstream bytes(start.bytes);
    headers.emplace_back(start.name, header_in(bytes));
  }
  return headers;
}

/// Domain of a sample of image files, and what their headers show.
void judge_images(const Headers& headers, DataFinding& finding) {
  int64_t slides = 0, dicom = 0, placed = 0, many_bands = 0;
  const auto read = static_cast<int64_t>(headers.size());
  ImageHeader example;
  std::string example_name;
  for (const auto& [file, header] : headers) {
    if (kSlides.contains(extension(file.string()))) ++slides;
    dicom += header.format == "dicom";
    placed += header.placed;
    many_bands += header.bands > 4;
    if (header.bands > 4 || header.placed) example = header, example_name = file.filename().string();
  }
  const auto most = [&](int64_t count) { return read > 0 && 2 * count >= read; };
  if (most(dicom)) {
    finding.domain = "medical";
    finding.reasons.push_back(fmt::format("{} of {} files looked at are DICOM", dicom, read));
  } else if (most(slides)) {
    finding.domain = "microscopy";
    finding.reasons.push_back(
        fmt::format("{} of {} files looked at have the extension of whole-slide scans", slides, read));
  } else if (most(placed) || most(many_bands)) {
    finding.domain = "satellite";
    finding.reasons.push_back(
        fmt::format("{} of {} files looked at have geographic coordinates, {} more than 4 bands "
                    "({}: {} bands of {} bits)",
                    placed, read, many_bands, example_name, example.bands, example.bits));
  } else if (read > 0) {
    finding.reasons.push_back(fmt::format(
        "nothing in the headers of {} images (format, bands, coordinates) tells a domain; give it by --domain", read));
  }
}

// --- tables -----------------------------------------------------------------------------------------------------

struct TableSample {
  std::vector<std::string> texts;
  std::vector<fs::path> images;
  std::string image_column, text_column;
};

struct Enough {};  // ends the reading of a large file

/// All that is said in a conversation.
std::string said_in(const Json& messages) {
  std::string text;
  for (const auto& message : messages)
    if (message.is_object() && message.contains("content") && message["content"].is_string())
      text += message["content"].get<std::string>() + "\n";
  return text;
}

/// Sorts the columns of the first rows into texts and paths of images.
TableSample sample_table(const fs::path& file) {
  std::map<std::string, std::vector<std::string>> columns;
  int64_t rows = 0;
  try {
    data::for_each_row(file, data::BadRows::skip, [&](const data::Row& row) {
      for (const auto& cell : row.cells.items())
        if (cell.value().is_string()) columns[cell.key()].push_back(cell.value().get<std::string>());
        else if (cell.key() == "messages") columns[cell.key()].push_back(said_in(cell.value()));
      if (++rows >= kMostRows) throw Enough();
    });
  } catch (const Enough&) {
  }
  TableSample sample;
  double longest = 0;
  for (const auto& [name, values] : columns) {
    int64_t images = 0;
    double length = 0;
    std::set<std::string> different;
    for (const auto& value : values) {
      images += kImages.contains(extension(value)) && value.find('\n') == std::string::npos;
      length += static_cast<double>(value.size());
      different.insert(value);
    }
    length /= static_cast<double>(std::max<size_t>(1, values.size()));
    if (10 * images >= 9 * static_cast<int64_t>(values.size()) && !values.empty()) {
      sample.image_column = name;
      for (const auto& value : values) sample.images.push_back(file.parent_path() / value);
      continue;
    }
    // A label is short and repeats; a text does neither. A column named as text is one.
    const bool repeats = different.size() * 5 < values.size() && length < 40;
    if (name != "text" && name != "messages" && (repeats || length < 15)) continue;
    if (length > longest) {
      longest = length;
      sample.text_column = name;
      sample.texts = values;
    }
  }
  return sample;
}

std::vector<fs::path> files_below(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code unreadable;
  for (fs::recursive_directory_iterator item(folder, fs::directory_options::skip_permission_denied, unreadable), end;
       item != end && static_cast<int64_t>(files.size()) < kMostFiles; item.increment(unreadable)) {
    std::error_code ignored;
    if (item->path().filename().string().starts_with(".")) continue;
    if (item->is_regular_file(ignored)) files.push_back(item->path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

Json DataFinding::json() const { return {{"modality", modality}, {"domain", domain}, {"reasons", reasons}}; }

ImageHeader read_image_header(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return header_in(file);
}

namespace {

ImageHeader header_in(std::istream& file) {
  ImageHeader header;
  std::string head(512, '\0');
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  if (head.size() >= 132 && head.substr(128, 4) == "DICM") header.format = "dicom";
  else if (head.size() >= 16 &&
           (head.starts_with(std::string("II*\0", 4)) || head.starts_with(std::string("MM\0*", 4)) ||
            head.starts_with(std::string("II+\0", 4)) || head.starts_with(std::string("MM\0+", 4)))) {
    header.format = "tiff";
    read_tiff(file, head, header);
  } else if (head.size() >= 26 && head.starts_with("\x89PNG")) {
    const Bytes bytes(head, false);
    header.format = "png";
    header.width = static_cast<int64_t>(bytes.number(16, 4));
    header.height = static_cast<int64_t>(bytes.number(20, 4));
    header.bits = static_cast<int64_t>(bytes.number(24, 1));
    const std::map<uint64_t, int64_t> bands{{0, 1}, {2, 3}, {3, 1}, {4, 2}, {6, 4}};
    const auto found = bands.find(bytes.number(25, 1));
    header.bands = found == bands.end() ? 0 : found->second;
  } else if (head.starts_with("\xff\xd8\xff")) {
    header.format = "jpeg";
  }
  return header;
}

}  // namespace

std::string domain_of_texts(const std::vector<std::string>& texts, std::string& reason) {
  // A text shows a domain when it has several of its terms; one alone is chance.
  constexpr int64_t kTerms = 3;
  constexpr double kShare = 0.3, kAhead = 1.5;
  std::vector<std::pair<double, std::string>> shares;
  std::map<std::string, std::map<std::string, int64_t>> seen;
  for (const auto& vocabulary : vocabularies()) {
    int64_t shown = 0;
    for (const auto& text : texts) shown += hits(lower(text), vocabulary, seen[vocabulary.domain]) >= kTerms;
    shares.emplace_back(texts.empty() ? 0 : static_cast<double>(shown) / static_cast<double>(texts.size()),
                        vocabulary.domain);
  }
  std::sort(shares.rbegin(), shares.rend());
  const auto& [share, domain] = shares[0];
  const auto& [next_share, next] = shares[1];
  if (share >= kShare && share >= kAhead * next_share) {
    reason = fmt::format(
        "{:.0f} % of {} texts have at least {} terms of the {} vocabulary, most often {} (next: {}, {:.0f} %)",
        100 * share, texts.size(), kTerms, domain, most_frequent(seen[domain], 5), next, 100 * next_share);
    return domain;
  }
  reason = fmt::format(
      "the words of {} texts show no domain clearly ({} {:.0f} %, {} {:.0f} %; wanted: {:.0f} % and {:g} times the "
      "next); "
      "give it by --domain",
      texts.size(), domain, 100 * share, next, 100 * next_share, 100 * kShare, kAhead);
  return "";
}

DataFinding find_modality(const fs::path& data) {
  GRAFT_CHECK(data, fs::exists(data), "{}: there is no such file or folder.", data.string());
  const auto files = fs::is_directory(data) ? files_below(data) : std::vector<fs::path>{data};
  std::map<std::string, int64_t> kinds;
  std::vector<fs::path> images, tables;
  std::vector<ArchiveEntries> archives;
  size_t image_count = 0;
  std::string damage;  // of an archive, in words
  for (const auto& file : files) {
    const auto kind = extension(file.string());
    ++kinds[kind.empty() ? "no extension" : kind];
    if (kImages.contains(kind)) images.push_back(file), ++image_count;
    if (kTables.contains(kind)) tables.push_back(file);
    if (!can_look_into(file)) continue;
    try {
      archives.push_back(look_into(file, is_image));
    } catch (const Error& e) {  // what else is there may tell
      damage = std::string(" ") + e.what();
      continue;
    }
    for (const auto& name : archives.back().names) {
      const auto inner = extension(name);
      ++kinds[(inner.empty() ? "no extension" : inner) + " in " + file.filename().string()];
      image_count += is_image(name);
    }
  }
  std::vector<std::string> counts;
  for (const auto& [kind, count] : kinds) counts.push_back(fmt::format("{} {}", count, kind));
  DataFinding finding;
  TableSample sample;
  for (const auto& table : tables) {
    auto part = sample_table(table);
    if (static_cast<int64_t>(sample.texts.size()) < kMostRows)
      sample.texts.insert(sample.texts.end(), part.texts.begin(), part.texts.end());
    sample.images.insert(sample.images.end(), part.images.begin(), part.images.end());
    if (!part.text_column.empty()) sample.text_column = part.text_column;
    if (!part.image_column.empty()) sample.image_column = part.image_column;
  }
  // A table beside many images may be their labels; texts of a table with a column of images are captions.
  const bool texts = !sample.texts.empty();
  if (!sample.image_column.empty()) {
    finding.modality = texts ? "multimodal" : "image";
    finding.reasons.push_back(texts ? fmt::format("a table with images in column `{}` and texts in column `{}`",
                                                  sample.image_column, sample.text_column)
                                    : fmt::format("a table with images in column `{}`", sample.image_column));
    judge_images(headers_of(sample.images), finding);
  } else if (image_count > tables.size()) {
    finding.modality = "image";
    finding.reasons.push_back(fmt::format("{} image files ({})", image_count, listed(counts, 6)));
    auto headers = headers_of(images);
    for (const auto& archive : archives) {
      const auto more = headers_of(archive);
      headers.insert(headers.end(), more.begin(), more.end());
    }
    judge_images(headers, finding);
  } else if (texts) {
    finding.modality = "text";
    finding.reasons.push_back(
        fmt::format("texts in column `{}` of {}", sample.text_column,
                    tables.size() == 1 ? tables[0].filename().string() : fmt::format("{} tables", tables.size())));
    std::string reason;
    finding.domain = domain_of_texts(sample.texts, reason);
    finding.reasons.push_back(reason);
  }
  if (finding.modality == "multimodal" && finding.domain.empty()) {
    std::string reason;
    finding.domain = domain_of_texts(sample.texts, reason);
    finding.reasons.push_back(reason);
  }
  GRAFT_CHECK(
      data, !finding.modality.empty(),
      "{}: neither texts nor images were found; it holds {}. Give a table with a column `text` or with paths of "
      "images, or a folder of images.{}",
      data.string(), counts.empty() ? "nothing" : listed(counts, 8), damage);
  return finding;
}

}  // namespace graft::select
