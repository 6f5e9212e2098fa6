// torch/torch.h costs about 20 s of parsing per file; precompiled once, a file takes about 5 s.
#include <torch/torch.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
