// Reading a published config.json: keys that graft does not know are allowed there, wrong types of known keys are not.
#pragma once

#include "graft/io/fields.h"

namespace graft::models {

/// Fills a described struct from the keys that `json` has; null counts as absent.
/// Throws Kind::model with all mistakes, each naming its key.
template <class Config>
Config read_config(const Json& json, Config config = {}) {
  Json known = Json::object();
  config.visit([&](const char* name, auto&, const char*) {
    if (json.contains(name) && !json[name].is_null()) known[name] = json[name];
  });
  std::vector<std::string> mistakes;
  io::read_value(known, config, "", mistakes);
  GRAFT_CHECK(model, mistakes.empty(), "config.json: {}. Correct the file, or download the model again.",
              listed(mistakes));
  return config;
}

}  // namespace graft::models
