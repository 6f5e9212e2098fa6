// What kind of data a user brings, and for which domain it looks made: from file types, the headers of images and the
// words of texts. No model decides; every conclusion comes with what was seen.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "graft/core/json.h"

namespace graft::select {

struct DataFinding {
  std::string modality;              // "text", "image", "multimodal"
  std::string domain;                // a name of domains(), "" when the data show none
  std::vector<std::string> reasons;  // sentences, the deciding one first
  Json json() const;
};

/// A table (JSONL, CSV, TSV, TXT) of texts or of paths to images, or a folder of tables or of images; images also in zip
/// and tar archives. Throws Kind::data when there is neither text nor image, naming what was found and which archive is
/// damaged.
DataFinding find_modality(const std::filesystem::path& data);

/// What the first bytes of an image file tell; empty fields where they do not.
struct ImageHeader {
  std::string format;  // "tiff", "dicom", "png", "jpeg"
  int64_t bands = 0, bits = 0, width = 0, height = 0;
  bool placed = false;  // it has geographic coordinates (GeoTIFF)
  bool tiled = false;
};
ImageHeader read_image_header(const std::filesystem::path& file);

/// The share of texts that show the words of a domain: the largest, when it stands out; why in `reason`.
std::string domain_of_texts(const std::vector<std::string>& texts, std::string& reason);

}  // namespace graft::select
