// Which files of a repository graft needs: one copy of the weights, the configuration, the tokenizer or preprocessor.
#pragma once

#include <string>
#include <vector>

#include "graft/hub/cache.h"

namespace graft::hub {

/// Weights in this order: model.safetensors, its shards, open_clip's safetensors, pytorch_model.bin, its shards,
/// open_clip's .bin: the first that is there. `more`: further files by name or pattern ("*.pt").
/// Throws Kind::model when there are no weights (listing what there is), Kind::usage for a pattern that nothing matches.
std::vector<RemoteFile> wanted_files(const std::vector<RemoteFile>& all, const std::vector<std::string>& more,
                                     const std::string& id);

/// The same for a folder whose listing is not known (a cache by an older program): does it hold weights, with every
/// shard that an index names?
bool has_weights(const fs::path& folder);

}  // namespace graft::hub
