// What a model carries with it so that its knowledge is protected later: where each parameter stood, and how much it
// mattered (the Fisher's diagonal). One safetensors file beside the model: "anchor.<key>" and "fisher.<key>".
// Papers:  Kirkpatrick et al. 2017, https://arxiv.org/abs/1612.00796; several domains with one anchor: Schwarz et al. 2018,
//          https://arxiv.org/abs/1805.06370, sec. 4.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "graft/core/json.h"
#include "graft/models/model.h"

namespace graft::retain {

using models::Tensor;

struct Anchor {
  Tensor at;      // the parameter's value
  Tensor fisher;  // of the same shape; undefined: 1 everywhere (L2-SP)
};

struct Anchors {
  std::map<std::string, Anchor> of;  // by key
  Json domains = Json::array();      // what the Fisher is of: {model, data, examples, labels}, oldest first
};

constexpr const char* kAnchorsFile = "fisher.safetensors";

/// The values that the model's parameters have now (copies), but for those in `fresh`.
Anchors anchors_at(const models::Model& model, const std::map<std::string, Tensor>& fisher,
                   const std::vector<std::string>& fresh = {});

/// A further domain, learned after those of `before`: F = decay * F_before + F_now, anchored where the model is now
/// (Schwarz et al. 2018, eq. 9). Parameters that only one of them has keep what that one says.
Anchors accumulated(const Anchors& before, const Anchors& now, double decay);

void write_anchors(const std::filesystem::path& file, const Anchors& anchors);
/// Throws Kind::model: no such file, a damaged one, a Fisher without its anchor.
Anchors read_anchors(const std::filesystem::path& file);

}  // namespace graft::retain
