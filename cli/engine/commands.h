// The commands that need the engine. Each takes the launcher's request and returns what it prints.
#pragma once

#include "graft/core/json.h"

namespace graft::models {
struct Source;
}

namespace graft::cli {

/// run, adapt, finetune: recipe, resume, dry_run.
Json run_command(const Json& request);
/// select: recipe, features (a folder, or "" for a temporary one).
Json select_command(const Json& request);
/// evaluate, predict: a finished model on a file.
Json evaluate_command(const Json& request);
void predict_command(const Json& request);
/// predict on a causal model: prompts go on.
void generate_command(const models::Source& source, const Json& request);
/// forward, check: tensors in, tensors out.
Json forward_command(const Json& request);
Json check_command(const Json& request);
void tokenize_command(const Json& request);
/// retain measure and retain fisher.
Json retain_command(const Json& request);
/// preprocess: images in, the model's pixel values out.
Json preprocess_command(const Json& request);

}  // namespace graft::cli
