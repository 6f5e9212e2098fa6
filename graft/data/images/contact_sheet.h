// Many small images with captions on one page, for people.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "graft/data/images/image.h"

namespace graft::data {

struct Tile {
  Image image;          // of any size; shown 144 pixels large
  std::string caption;  // lines, under it
};

/// A PNG with the tiles in rows of six. Throws Kind::disk when it cannot be written.
void write_contact_sheet(const std::filesystem::path& file, const std::vector<Tile>& tiles);

}  // namespace graft::data
