// All scores of one candidate on one sample of labelled data.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "graft/select/scores.h"

namespace graft::select {

/// Of the sample's examples (of its labelled words, for the task tokens).
struct Targets {
  Tensor classes;  // [n] int64, for classes; each of 0 .. C-1 occurs
  Tensor values;   // [n, k], for regression and for several labels (0 or 1); one of the two is defined
};

/// Whether a score is part of the combined one. TransRate's determinants differ by the features' spectrum far more than by
/// the labels, and the H-score whitens, so that it counts directions of noise as much as any: docs/architecture.md says
/// what both are worth as rankings.
bool counts(const std::string& score);

struct Measured {
  std::map<std::string, double> scores;  // by name; all of them: more is better
  Tensor probe;                          // [n] float64: the linear probe's success on each example
  /// How the scores that count vary with the sample: 20 draws of what they might differ by, each the same draw for all
  /// candidates. From subsamples of at most 250 examples without replacement (Politis and Romano 1994; an example twice
  /// would be its own nearest neighbour), a score's deviation from its mean over them times sqrt(m / (n - m)).
  std::vector<std::map<std::string, double>> deviations = {};
};

/// LogME, H-score, TransRate, PARC, nearest neighbours and the linear probe for classes, LEEP and NCE where the source's
/// own classifier gives `probabilities` [n, Z]; LogME and the linear probe for values. PARC is measured on at most 1,000
/// examples and nearest neighbours on at most 4,000, for their cost grows with the square, and what does not count on at
/// most 2,000.
/// Features [n, d]. Throws as the scores do.
Measured measure(const Tensor& features, const Targets& targets, const std::optional<Tensor>& probabilities,
                 uint64_t seed);

}  // namespace graft::select
