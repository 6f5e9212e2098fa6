// What nearly every file includes, parsed once. No more than that: GCC instantiates the templates of a precompiled header
// anew in each file that uses it (torch/torch.h: 8 s a file, these: 4 s).
#include <torch/nn/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
