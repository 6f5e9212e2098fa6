#include "graft/select/catalogue.h"

#include <algorithm>
#include <cstdlib>
#include <set>

#include "graft/core/error.h"
#include "graft/core/text.h"
#include "graft/hub/cache.h"
#include "graft/io/file.h"
#include "graft/io/toml.h"
#include "graft/models/timm.h"

namespace graft::select {

extern const char* const catalogue_text;  // made at build time from catalogue.toml

namespace {

const std::set<std::string> kEvidence{"counted", "code", "page", "arithmetic", "memory", "unknown", "choice"};
// What graft says of its own: no fact that somebody else could have verified.
const std::set<std::string> kClassification{"system", "modality", "domain", "tasks", "revision", "origin"};
const std::vector<std::string> kFields{"system",  "id",        "origin",       "url",        "sha256",      "revision",
                                       "files",   "formats",   "architecture", "parameters", "download_mb", "licence",
                                       "gated",   "modality",  "domain",       "trained_on", "input",       "tasks",
                                       "caveats", "transform", "evidence"};
// May be left out of a complete row: there is none.
const std::set<std::string> kOptional{"origin", "url", "sha256", "files", "caveats", "transform"};

class RowReader {
 public:
  RowReader(const Json& json, std::string where, std::vector<std::string>& mistakes)
      : json_(json), where_(std::move(where)), mistakes_(mistakes) {}

  void read(const char* key, std::string& value) {
    if (!json_.contains(key)) return;
    if (json_[key].is_string()) value = json_[key].get<std::string>();
    else wrong(key, "a text in quotes");
  }
  void read(const char* key, std::vector<std::string>& value) {
    if (!json_.contains(key)) return;
    const auto& list = json_[key];
    const bool good =
        list.is_array() && std::all_of(list.begin(), list.end(), [](auto& item) { return item.is_string(); });
    if (good) value = list.get<std::vector<std::string>>();
    else wrong(key, "a list of texts");
  }
  template <class Number>
  void read_number(const char* key, Number& value) {
    if (!json_.contains(key)) return;
    const bool good = std::is_integral_v<Number> ? json_[key].is_number_integer() : json_[key].is_number();
    if (good && json_[key].template get<double>() >= 0) value = json_[key].template get<Number>();
    else wrong(key, "a number of at least 0");
  }
  void read(const char* key, bool& value) {
    if (!json_.contains(key)) return;
    if (json_[key].is_boolean()) value = json_[key].get<bool>();
    else wrong(key, "true or false");
  }
  void one_of(const char* key, const std::string& value, const std::vector<std::string>& known) {
    if (std::find(known.begin(), known.end(), value) == known.end())
      mistakes_.push_back(fmt::format("{}: {} is `{}`, expected one of {}", where_, key, value, listed(known)));
  }
  void wrong(const char* key, const char* expected) {
    mistakes_.push_back(fmt::format("{}: {}: expected {}, found {}", where_, key, expected, json_[key].dump()));
  }
  void say(const std::string& sentence) { mistakes_.push_back(where_ + ": " + sentence); }

 private:
  const Json& json_;
  std::string where_;
  std::vector<std::string>& mistakes_;
};

void read_evidence(const Json& json, CatalogueRow& row, RowReader& reader) {
  if (!json.contains("evidence")) return;
  if (!json["evidence"].is_object()) return reader.wrong("evidence", "a table of lists");
  for (const auto& item : json["evidence"].items()) {
    if (!kEvidence.contains(item.key())) {
      reader.say(fmt::format("evidence: `{}` is none of {}", item.key(), listed({kEvidence.begin(), kEvidence.end()})));
      continue;
    }
    if (!item.value().is_array()) return reader.wrong("evidence", "a table of lists");
    for (const auto& field : item.value()) {
      const auto name = field.is_string() ? field.get<std::string>() : field.dump();
      if (std::find(kFields.begin(), kFields.end(), name) == kFields.end())
        reader.say(fmt::format("evidence: there is no field `{}`", name));
      if (!row.evidence.emplace(name, item.key()).second)
        reader.say(fmt::format("evidence: `{}` is named twice", name));
    }
  }
}

void complete_or_say(const Json& json, const CatalogueRow& row, RowReader& reader) {
  for (const auto& field : kFields) {
    if (!json.contains(field)) {
      if (!kOptional.contains(field)) reader.say(fmt::format("`{}` is missing", field));
      continue;
    }
    if (field != "evidence" && !row.evidence.contains(field))
      reader.say(fmt::format("evidence: nothing says where `{}` is from", field));
  }
  if (row.formats.empty() || row.tasks.empty()) reader.say("formats and tasks need at least one entry");
  if (row.parameters == 0 || row.download_mb == 0 || row.licence.empty() || row.trained_on.empty() ||
      row.input.empty() || row.architecture.empty() || row.system.empty())
    reader.say("a field is empty; what is not known says `unknown`");
}

CatalogueRow read_row(const Json& json, const std::string& where, bool strict, std::vector<std::string>& mistakes) {
  CatalogueRow row;
  RowReader reader(json, where, mistakes);
  for (const auto& item : json.items()) {
    if (std::find(kFields.begin(), kFields.end(), item.key()) != kFields.end()) continue;
    const auto guess = nearest(item.key(), kFields);
    reader.say(
        fmt::format("there is no field `{}`{}", item.key(), guess.empty() ? "" : "; did you mean `" + guess + "`?"));
  }
  row.origin = "hub";
  row.revision = "main";
  if (!strict)
    for (auto* field : {&row.system, &row.architecture, &row.licence, &row.trained_on, &row.input}) *field = "unknown";
  reader.read("system", row.system);
  reader.read("id", row.id);
  reader.read("origin", row.origin);
  reader.read("url", row.url);
  reader.read("sha256", row.sha256);
  reader.read("revision", row.revision);
  reader.read("files", row.files);
  reader.read("formats", row.formats);
  reader.read("architecture", row.architecture);
  reader.read_number("parameters", row.parameters);
  reader.read_number("download_mb", row.download_mb);
  reader.read("licence", row.licence);
  reader.read("gated", row.gated);
  row.domain = "general";
  row.modality = "text";
  reader.read("modality", row.modality);
  reader.read("domain", row.domain);
  reader.read("trained_on", row.trained_on);
  reader.read("input", row.input);
  reader.read("tasks", row.tasks);
  reader.read("caveats", row.caveats);
  if (json.contains("transform")) {
    if (json["transform"].is_object()) row.transform = json["transform"];
    else reader.wrong("transform", "a table such as { resize_size = 256, crop_size = 224 }");
  }
  read_evidence(json, row, reader);
  if (!hub::is_repository_id(row.id) || row.id.find('/') == std::string::npos)
    reader.say(fmt::format("id is `{}`, expected ORG/NAME", row.id));
  if (row.system.empty() || row.system == "unknown") row.system = row.id;
  reader.one_of("origin", row.origin, {"hub", "url", "zip", "folder"});
  reader.one_of("modality", row.modality, modalities());
  if (strict) reader.one_of("domain", row.domain, domains());
  if (row.origin != "hub" && row.url.empty())
    reader.say(fmt::format("origin is {}, so `url` must say where", row.origin));
  if (!row.sha256.empty() &&
      (row.sha256.size() != 64 || row.sha256.find_first_not_of("0123456789abcdef") != std::string::npos))
    reader.say("sha256: expected 64 lower-case hexadecimal digits");
  for (const auto& field : kClassification) row.evidence.emplace(field, "choice");
  if (strict) complete_or_say(json, row, reader);
  return row;
}

size_t place(const std::vector<std::string>& order, const std::string& name) {
  return std::find(order.begin(), order.end(), name) - order.begin();
}

void check_name(const char* option, const std::string& name, const std::vector<std::string>& known) {
  if (name.empty() || std::find(known.begin(), known.end(), name) != known.end()) return;
  const auto guess = nearest(name, known);
  fail(Kind::usage, "{} {}: there is none; known are {}{}.", option, name, listed(known, 20),
       guess.empty() ? "" : "; did you mean " + guess + "?");
}

}  // namespace

bool CatalogueRow::runs() const {
  static const auto running = running_architectures();
  const auto slash = architecture.find('/');
  // Names of an ecosystem's own (timm/resnet50): what graft makes of them is one of its families.
  const auto ecosystem = architecture.substr(0, slash == std::string::npos ? 0 : slash);
  auto family = architecture;
  if (ecosystem == "timm" || ecosystem == "torchvision") family = models::timm_family(architecture.substr(slash + 1));
  if (ecosystem == "torchvision" && family != "resnet" && family != "efficientnet") return false;  // other key names
  return std::find(running.begin(), running.end(), family) != running.end();
}

bool CatalogueRow::verified(const std::string& field) const {
  const auto found = evidence.find(field);
  return found != evidence.end() && found->second != "memory" && found->second != "unknown";
}

Json CatalogueRow::json() const {
  Json where = Json::object();
  for (const auto& [field, kind] : evidence) where[field] = kind;
  const auto known = [](auto value) { return value > 0 ? Json(value) : Json(nullptr); };
  Json row{{"system", system},
           {"id", id},
           {"origin", origin},
           {"url", url},
           {"sha256", sha256},
           {"revision", revision},
           {"files", files},
           {"formats", formats},
           {"architecture", architecture},
           {"runs", runs()},
           {"parameters", known(parameters)},
           {"download_mb", known(download_mb)},
           {"licence", licence},
           {"gated", gated},
           {"modality", modality},
           {"domain", domain},
           {"trained_on", trained_on},
           {"input", input},
           {"tasks", tasks},
           {"caveats", caveats},
           {"evidence", where},
           {"from", from}};
  if (!transform.is_null()) row["transform"] = transform;
  return row;
}

const std::vector<std::string>& modalities() {
  static const std::vector<std::string> kNames{"image", "text", "multimodal"};
  return kNames;
}

const std::vector<std::string>& domains() {
  static const std::vector<std::string> kNames{"general",    "medical", "satellite", "microscopy",
                                               "scientific", "legal",   "code"};
  return kNames;
}

std::vector<CatalogueRow> read_catalogue(const std::string& toml, const std::string& name, bool strict) {
  const auto json = io::parse_toml(toml, name);
  std::vector<std::string> mistakes;
  std::vector<CatalogueRow> rows;
  for (const auto& item : json.items())
    if (item.key() != "source")
      mistakes.push_back(fmt::format("{}: expected [[source]], found `{}`", name, item.key()));
  if (json.contains("source") && !json["source"].is_array())
    mistakes.push_back(name + ": expected [[source]], not [source]");
  std::set<std::string> ids;
  if (json.contains("source") && json["source"].is_array())
    for (const auto& entry : json["source"]) {
      const auto id =
          entry.contains("id") && entry["id"].is_string() ? entry["id"].get<std::string>() : "without an id";
      rows.push_back(read_row(entry, fmt::format("{}: {}", name, id), strict, mistakes));
      // One repository may hold two systems (BioViL and its text tower).
      if (!ids.insert(rows.back().system + " " + id).second)
        mistakes.push_back(fmt::format("{}: {} stands there twice", name, id));
    }
  if (mistakes.empty()) return rows;
  std::string text = fmt::format("{}: {} {} in the list of sources:", name, mistakes.size(),
                                 mistakes.size() == 1 ? "mistake" : "mistakes");
  for (const auto& mistake : mistakes) text += "\n  " + mistake;
  throw Error(Kind::usage, text);
}

std::vector<CatalogueRow> catalogue(const std::vector<fs::path>& user_files) {
  auto rows = read_catalogue(catalogue_text, "catalogue.toml", true);
  for (const auto& file : user_files) {
    std::error_code ignored;
    if (!fs::exists(file, ignored)) continue;
    for (auto& row : read_catalogue(io::read_file(file), file.string(), false)) {
      row.from = file.string();
      std::erase_if(rows, [&](const CatalogueRow& other) { return other.id == row.id; });
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

std::vector<fs::path> user_catalogues(const fs::path& recipe) {
  std::vector<fs::path> files;
  const char *config = std::getenv("XDG_CONFIG_HOME"), *home = std::getenv("HOME");
  if (config && *config) files.push_back(fs::path(config) / "graft/sources.toml");
  else if (home && *home) files.push_back(fs::path(home) / ".config/graft/sources.toml");
  if (!recipe.empty()) files.push_back(recipe.parent_path() / "sources.toml");
  return files;
}

std::vector<CatalogueRow> filtered(const std::vector<CatalogueRow>& rows, const CatalogueFilter& filter) {
  auto known_domains = domains();
  for (const auto& row : rows)
    if (std::find(known_domains.begin(), known_domains.end(), row.domain) == known_domains.end())
      known_domains.push_back(row.domain);
  check_name("--modality", filter.modality, modalities());
  check_name("--domain", filter.domain, known_domains);
  std::vector<CatalogueRow> kept;
  for (const auto& row : rows) {
    if (!filter.modality.empty() && row.modality != filter.modality) continue;
    if (!filter.domain.empty() && row.domain != filter.domain && row.domain != "general") continue;
    if (!filter.licence.empty() && lower(row.licence).find(lower(filter.licence)) == std::string::npos) continue;
    if (filter.max_mb > 0 && (row.download_mb == 0 || row.download_mb > filter.max_mb)) continue;
    kept.push_back(row);
  }
  if (kept.empty() && !rows.empty()) {
    auto nearest_rows = rows;
    std::erase_if(nearest_rows, [&](const CatalogueRow& row) {
      return (!filter.modality.empty() && row.modality != filter.modality) || row.download_mb == 0;
    });
    std::stable_sort(nearest_rows.begin(), nearest_rows.end(),
                     [](const auto& a, const auto& b) { return a.download_mb < b.download_mb; });
    std::vector<std::string> near;
    for (const auto& row : nearest_rows)
      near.push_back(fmt::format("{} ({:.0f} MB, {})", row.id, row.download_mb, row.licence));
    fail(Kind::usage, "no source fits these wishes. Nearest are {}. Widen --max-size, --licence or --domain.",
         listed(near, 5));
  }
  std::stable_sort(kept.begin(), kept.end(), [&](const CatalogueRow& a, const CatalogueRow& b) {
    return std::pair(place(modalities(), a.modality), place(known_domains, a.domain)) <
           std::pair(place(modalities(), b.modality), place(known_domains, b.domain));
  });
  return kept;
}

double parse_megabytes(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  std::string unit = lower(end);
  std::erase(unit, ' ');
  const std::map<std::string, double> units{{"", 1},      {"mb", 1},         {"m", 1},
                                            {"kb", 1e-3}, {"gb", 1e3},       {"g", 1e3},
                                            {"tb", 1e6},  {"mib", 1.048576}, {"gib", 1073.741824}};
  const auto found = units.find(unit);
  GRAFT_CHECK(usage, end != text.c_str() && number > 0 && found != units.end(),
              "`{}` is not a size. Expected a number with MB or GB, as in 500MB or 1.5GB.", text);
  return number * found->second;
}

}  // namespace graft::select
