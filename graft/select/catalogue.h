// What there is to start from: the sources of the selection tree with the checkpoints that people use of each.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "graft/core/json.h"

namespace graft::select {

namespace fs = std::filesystem;

/// One checkpoint. Every field is there; `evidence` says of each where it is from.
struct CatalogueRow {
  std::string system;    // of the tree: "BERT"
  std::string id;        // ORG/NAME; on the hub where origin is "hub"
  std::string origin;    // "hub", "url" (one file), "zip" (an archive with the files), "folder" (rows of users)
  std::string url;       // of a file or archive; a folder's path
  std::string sha256;    // of what the URL gives; "" when it is not known
  std::string revision;  // on the hub
  std::vector<std::string> files, formats, tasks, caveats;
  Json transform;  // of files by URL: how images are prepared, what transform.json is to hold; null for none
  std::string architecture, licence, modality, domain, trained_on, input;
  int64_t parameters = 0;  // 0: unknown
  double download_mb = 0;  // in 10^6 bytes; 0: unknown
  bool gated = false;
  std::map<std::string, std::string> evidence;  // field -> counted, code, page, arithmetic, memory, unknown, choice
  std::string from;                             // the file of a user's row; "" for graft's own

  bool runs() const;  // graft runs this architecture
  bool verified(const std::string& field) const;
  Json json() const;
};

/// The names that the fields `modality` and `domain` take, in the tree's order.
const std::vector<std::string>& modalities();
const std::vector<std::string>& domains();

/// model_type of every architecture that graft runs, from graft/models at build time.
std::vector<std::string> running_architectures();

/// Rows of a TOML text with [[source]] tables. `strict`: graft's own, whose rows must be complete with evidence;
/// a user's row needs id and architecture or modality, and what it leaves out is unknown.
/// Throws Kind::usage with every mistake of the text at once.
std::vector<CatalogueRow> read_catalogue(const std::string& toml, const std::string& name, bool strict);

/// graft's rows, and those of each file that exists. A user's row takes the place of graft's of the same id.
std::vector<CatalogueRow> catalogue(const std::vector<fs::path>& user_files);
/// $XDG_CONFIG_HOME/graft/sources.toml (~/.config/graft/sources.toml), and sources.toml beside the recipe when one is given.
std::vector<fs::path> user_catalogues(const fs::path& recipe = {});

struct CatalogueFilter {
  std::string modality, domain, licence;  // "" for all; licence: a part of its name ("mit", "apache")
  double max_mb = 0;                      // 0 for all
};
/// In the tree's order: by modality, then domain, general models first, then as listed. A domain keeps the general rows.
/// Throws Kind::usage for a modality or domain that does not exist (with the nearest), or when nothing is left, naming
/// the nearest candidates.
std::vector<CatalogueRow> filtered(const std::vector<CatalogueRow>& rows, const CatalogueFilter& filter);

/// "500", "500MB", "1.5GB", "1.5 GiB": in 10^6 bytes. Throws Kind::usage.
double parse_megabytes(const std::string& text);

}  // namespace graft::select
