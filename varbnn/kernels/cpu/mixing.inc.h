// The sweep of mixing.h; included once for every instruction set.
#include <cmath>

#include "mixing.h"

namespace varbnn {
namespace VARBNN_LEVEL {
namespace {

// sum_j row_j v_j over `count` vectors, for ranks of WIDTH * 8: the sums stay in registers.
template <int WIDTH>
void weighted_sum(const double* __restrict row, const double* __restrict vectors, int64_t count, double* __restrict out) {
  constexpr int K = WIDTH * 8;
  double even[K] = {}, odd[K] = {};
  int64_t j = 0;
  for (; j + 1 < count; j += 2) {
    const double *first = vectors + j * K, *second = first + K;
#pragma omp simd
    for (int k = 0; k < K; ++k) even[k] += row[j] * first[k];
#pragma omp simd
    for (int k = 0; k < K; ++k) odd[k] += row[j + 1] * second[k];
  }
  for (int k = 0; k < K; ++k) out[k] = even[k] + odd[k] + (j < count ? row[j] * vectors[j * K + k] : 0.0);
}

// Any rank: pieces of 64 entries.
void weighted_sum_of(int64_t rank, const double* row, const double* vectors, int64_t count, double* out) {
  for (int64_t k = 0; k < rank; ++k) out[k] = 0.0;
  for (int64_t j = 0; j < count; ++j) {
    const double weight = row[j];
    const double* __restrict vector = vectors + j * rank;
#pragma omp simd
    for (int64_t k = 0; k < rank; ++k) out[k] += weight * vector[k];
  }
}

void gather(int64_t rank, const double* row, const double* vectors, int64_t count, double* out) {
  switch (rank) {
    case 8: return weighted_sum<1>(row, vectors, count, out);
    case 16: return weighted_sum<2>(row, vectors, count, out);
    case 24: return weighted_sum<3>(row, vectors, count, out);
    case 32: return weighted_sum<4>(row, vectors, count, out);
    case 40: return weighted_sum<5>(row, vectors, count, out);
    case 48: return weighted_sum<6>(row, vectors, count, out);
    default: return weighted_sum_of(rank, row, vectors, count, out);
  }
}

double sweep(const Mixing& p, double* vectors, double* lengths) {
  constexpr int64_t MOST = 1024;
  double gradient[MOST];
  double total = 0.0;
  for (int64_t i = 0; i < p.count; ++i) {
    const double* row = p.gram + i * p.count;
    double* __restrict own = vectors + i * p.rank;
    gather(p.rank, row, vectors, p.count, gradient);
    const double self = row[i];
    double square = 0.0;
    gradient[0] += p.linear[i];
    for (int64_t k = 0; k < p.rank; ++k) {
      gradient[k] -= self * own[k];
      square += gradient[k] * gradient[k];
    }
    const double length = std::sqrt(square);
    total += length;
    lengths[i] = length;
    if (!(length > 1e-300)) continue;  // nothing asks for another direction
    const double scale = -(1.0 + p.momentum) / length;
    double norm = 0.0;
    for (int64_t k = 0; k < p.rank; ++k) {
      gradient[k] = gradient[k] * scale - p.momentum * own[k];
      norm += gradient[k] * gradient[k];
    }
    const double unit = 1.0 / std::sqrt(norm);
    for (int64_t k = 0; k < p.rank; ++k) own[k] = gradient[k] * unit;
  }
  return total;
}

}  // namespace

const Sweep SWEEP = sweep;

}  // namespace VARBNN_LEVEL
}  // namespace varbnn
