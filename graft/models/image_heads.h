// The heads of image models: a classifier on a pooled feature, and plain features.
#pragma once

#include <string>

#include "graft/models/model.h"
#include "graft/nn/layers.h"

namespace graft::models {

/// What the end of an image chain is reduced to.
enum class Pooling {
  none,
  first,              // the class token
  patches,            // the mean of the tokens behind the special ones
  first_and_patches,  // DINOv2: both, beside each other
  map,                // the mean over a feature map (B, C, H, W)
};

struct ImageHeadOptions {
  Pooling pooling = Pooling::first;
  int64_t width = 0;           // C of the chain's end
  int64_t special_tokens = 1;  // class and register tokens, before the patches
  std::string classifier;      // key: "classifier", "head", "fc"
  std::string norm;            // key of a norm on the pooled feature (timm's fc_norm), "" for none
  double norm_eps = 1e-6;
  double dropout = 0;
};

/// logits (B, num_labels) = classifier(dropout(norm(pooled))).
std::shared_ptr<Head> image_classifier(const ImageHeadOptions& options, int64_t num_labels);

/// last_hidden_state as the chain ends, and pooler_output by `pooling`; with `pooler` (a key) tanh(dense(pooled)).
std::shared_ptr<Head> image_features(const ImageHeadOptions& options, const std::string& pooler = "");

}  // namespace graft::models
