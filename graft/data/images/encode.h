// Pixels to a PNG.
#pragma once

#include <string>

#include "graft/data/images/image.h"

namespace graft::data {

/// One or three bands.
std::string encode_png(const Image& image);

}  // namespace graft::data
