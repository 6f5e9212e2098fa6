// A small image model as the agreed seam wants it (chain "image", slot "pixel_values"), and folders of easy images.
#pragma once

#include "graft/models/source.h"
#include "tests/fixtures.h"

namespace graft::tests {

/// Two convolutions, a mean over places, a linear head. Known to no recipe: tests hand it over.
const models::Architecture& toy_image_architecture();
/// A source of it with preprocessing to 16 x 16; nothing is on disk but transform.json.
models::Source toy_image_source(const fs::path& folder);
/// `count` PNG files of 24 x 20 noisy pixels for each of the classes 2, 10 and red; they differ by hue.
void write_toy_images(const fs::path& folder, int count, uint64_t seed);

}  // namespace graft::tests
