// Random views of a training image: crop, flips, rotation, colours, RandAugment, erasing. A view is a function of the
// image, the options and the seed alone, so a resumed run and any number of threads see the same.
#pragma once

#include "graft/data/images/augment_options.h"
#include "graft/data/images/preprocessing.h"

namespace graft::data {

/// One view, width() x height() of `p`, 8 bits.
Image augmented(const Image& image, const Preprocessing& p, const AugmentOptions& options, uint64_t seed);

/// In place: each colour goes so many turns round the circle of hues; its value and saturation stay. Gray stays gray.
void turn_hue(Image& image, double turns);

}  // namespace graft::data
