// The chains from their boundaries to their ends, before any head: what several heads can read.
#pragma once

#include "graft/train/stream.h"

namespace graft::train {

using Ends = std::map<std::string, Activations>;

/// As forward_behind(), without the head.
Ends ends_behind(models::Model& model, std::map<std::string, Activations> entering, const std::optional<Reads>& reads,
                 bool checkpointed = false);

}  // namespace graft::train
