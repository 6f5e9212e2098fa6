// The Kullback-Leibler divergence between two language heads over the whole vocabulary without a whole matrix of logits
// (chunked_logits.h). The gradient goes to the tuned side alone.
// Gradients:  with A = log p - log q of the tuned p and the source's q, row by row and by the tuned logits,
//             of KL(p || q) = sum p A:   p (A - KL(p || q))
//             of KL(q || p) = -sum q A:  p - q, with q = exp(log p - A)
//             Both hold where the source knows tokens in groups only (the remainder behind its most likely ones): A then
//             is of the groups' masses, the same for all tokens of a group.
// Shapes:     N rows, C channels (the two sides may differ in them), V vocabulary, K tokens that are known singly.
#pragma once

#include "graft/nn/chunked_logits.h"

namespace graft::nn {

enum class KlDirection {
  tuned_source,  // KL(tuned || source): what the tuned model says must be likely to the source
  source_tuned,  // KL(source || tuned): what the source says must stay likely
};

/// The K most likely tokens of each row, and the logarithm of the mass of all others.
struct MostLikely {
  torch::Tensor ids;       // (N, K) int32
  torch::Tensor log_p;     // (N, K)
  torch::Tensor log_rest;  // (N); -inf where K = V
};

/// The sum over rows, a scalar. `chunk_rows` 0: as many as fit about 64 MB of logits.
torch::Tensor chunked_kl(const LogitsOf& tuned, const LogitsOf& source, KlDirection direction, int64_t chunk_rows = 0);

/// The same where only the source's most likely tokens are known, and the mass of the remainder as one outcome: at most
/// the divergence over the whole vocabulary, equal to it when K = V.
torch::Tensor chunked_kl(const LogitsOf& tuned, const MostLikely& source, KlDirection direction,
                         int64_t chunk_rows = 0);

/// Either of each chunk, to be joined with others.
ChunkLoss kl_to(const LogitsOf& source, KlDirection direction);
ChunkLoss kl_to(const MostLikely& source, KlDirection direction);

/// Without gradient. `k` above V counts as V.
MostLikely most_likely(const LogitsOf& logits, int64_t k, int64_t chunk_rows = 0);

}  // namespace graft::nn
