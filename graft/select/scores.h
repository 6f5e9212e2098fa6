// Transferability scores: how well a head on frozen features is likely to do, from the features and the labels alone.
// Features: [n, d], any floating type, computed in float64. Labels: [n] int64, classes 0 .. C-1, each with an example.
// For all scores more is better. Degenerate features (constant, more dimensions than examples) give finite numbers.
// Throws Kind::data: shapes that do not fit, values that are not finite, fewer than two classes, a class without example.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace graft::select {

using at::Tensor;

/// The mean over classes of the largest log evidence per example of a Bayesian linear model from features to the class
/// (one against the others), its two precisions found by fixed-point iteration to convergence (LogME, You et al. 2021).
double log_me(const Tensor& features, const Tensor& labels);
/// The same for real targets [n] or [n, k]: the mean over columns.
double log_me_regression(const Tensor& features, const Tensor& targets);

/// trace(cov(f)^-1 cov(E[f | y])) with the Ledoit-Wolf shrinkage of both covariances (Bao et al. 2019, Ibrahim et al.
/// 2021). The covariance of constant features is 0, and so is then the score.
double h_score(const Tensor& features, const Tensor& labels);

/// The log likelihood of the labels under the expected empirical predictor of the source's classes (Nguyen et al. 2020).
/// `probabilities`: [n, Z], what the source's own classifier says; rows sum to 1.
double leep(const Tensor& probabilities, const Tensor& labels);
/// The negative conditional entropy of the labels given the source's most likely classes (Tran et al. 2019).
double nce(const Tensor& probabilities, const Tensor& labels);

/// How many nats fewer the features of a class need than all of them: the coding rate of all minus the mean over classes,
/// at distortion `epsilon` (TransRate, Huang et al. 2022).
double trans_rate(const Tensor& features, const Tensor& labels, double epsilon = 1e-4);

/// 100 times the Spearman correlation of the pairwise distances (1 - Pearson) of features and of one-hot labels (PARC,
/// Bolya et al. 2021). Examples with constant features have distance 1 to all others. n x n values are made.
double parc(const Tensor& features, const Tensor& labels);

/// The accuracy of the majority of the k nearest other examples (cosine), ties to the nearer sum of similarities.
double nearest_neighbours(const Tensor& features, const Tensor& labels, int64_t k = 5);

/// Ridge regression onto one-hot labels on standardised features, cross-validated: 1 for each example whose class is right
/// when the others are learned from, else 0, [n]. `folds` parts that are stratified by class, in the order of the examples;
/// the penalty is the best of several, chosen within the training part by leave-one-out.
Tensor probe_classes(const Tensor& features, const Tensor& labels, int64_t folds = 5);
/// The same for real targets or marks [n] or [n, k]: of each example 1 - squared error / variance, the mean over columns,
/// [n]; its mean is the explained share of the variance. Throws Kind::data for fewer than 2 examples a part.
Tensor probe_values(const Tensor& features, const Tensor& targets, int64_t folds = 5);
/// The mean of probe_classes(): cross-validated accuracy.
double linear_probe(const Tensor& features, const Tensor& labels, int64_t folds = 5);

}  // namespace graft::select
