// The last layer of S networks with its softmax: a few rows at a time meet all networks, and only their averages stay.
#include <algorithm>
#include <new>
#include <vector>

#include "taps.h"
#include "threads.h"

namespace varbnn {
namespace {

// The order of the fields is that of the numbers the library is called with.
struct Sizes {
  int64_t samples;
  int64_t input_samples;  // 1 where the networks share their input
  int64_t rows;
  int64_t inputs;
  int64_t outputs;
  int64_t own_scale;  // 1 where each network has its own
  int64_t own_shift;

  int64_t words() const { return ceil_div(inputs, WORD); }
  int64_t blocks() const { return ceil_div(outputs, BLOCK); }
};

struct Job {
  const Sizes& sizes;
  const TapKernel& level;
  const void* values;
  bool packed;
  const uint32_t* weight;
  const float* scale;
  const float* shift;
  float* mean;
  float* entropy;
};

class Worker {
 public:
  explicit Worker(const Job& j)
      : job(j),
        width(j.sizes.blocks() * BLOCK),
        row_floats(j.sizes.words() * j.level.word_floats),
        prepared(j.packed ? 0 : j.level.rows * row_floats),
        sums(static_cast<size_t>(j.level.rows * width)),
        logits(static_cast<size_t>(j.sizes.outputs)),
        mean(static_cast<size_t>(j.level.rows * j.sizes.outputs)) {
    if (!prepared.get()) throw std::bad_alloc();
  }

  void compute(int64_t first, int count) {
    const Sizes& sizes = job.sizes;
    double entropy[MOST_ROWS] = {};
    std::fill(mean.begin(), mean.end(), 0.0);
    for (int64_t s = 0; s < sizes.samples; ++s) {
      if (s < sizes.input_samples) lay_out((s * sizes.rows) + first, count);
      multiply(s, count);
      const Finish finish = {job.scale ? job.scale + s * sizes.own_scale * sizes.outputs : nullptr,
                             job.shift ? job.shift + s * sizes.own_shift * sizes.outputs : nullptr, NONE};
      for (int r = 0; r < count; ++r) {
        job.level.finish(sums.data() + r * width, sizes.outputs, finish, logits.data());
        entropy[r] += job.level.softmax(logits.data(), sizes.outputs, mean.data() + r * sizes.outputs);
      }
    }
    const double share = 1.0 / static_cast<double>(sizes.samples);
    for (int r = 0; r < count; ++r) job.entropy[first + r] = static_cast<float>(entropy[r] * share);
    float* out = job.mean + first * sizes.outputs;
    for (int64_t i = 0; i < count * sizes.outputs; ++i)
      out[i] = static_cast<float>(mean[static_cast<size_t>(i)] * share);
  }

 private:
  void lay_out(int64_t first, int count) {
    for (int r = 0; r < count; ++r) {
      if (job.packed) {
        signs[r] = static_cast<const uint32_t*>(job.values) + (first + r) * job.sizes.words();
      } else {
        float* to = prepared.get() + r * row_floats;
        job.level.prepare(static_cast<const float*>(job.values) + (first + r) * job.sizes.inputs, job.sizes.inputs, to);
        tables[r] = to;
      }
    }
  }

  void multiply(int64_t sample, int count) {
    static const int32_t valid[MOST_ROWS] = {-1, -1, -1, -1, -1, -1, -1, -1};
    const int64_t words = job.sizes.words(), blocks = job.sizes.blocks(), block = words * BLOCK, offset = 0;
    const Blocks weight = {job.weight + sample * blocks * block, blocks, block};
    if (job.packed)
      job.level.multiply_signs({signs, &offset, 1, words, words * WORD - job.sizes.inputs, count}, valid, weight,
                               sums.data(), width);
    else
      job.level.multiply({tables, &offset, 1, words, 0, count}, weight, sums.data(), width);
  }

  const Job& job;
  int64_t width, row_floats;
  Buffer<float> prepared;
  std::vector<float> sums, logits;
  std::vector<double> mean;
  const float* tables[MOST_ROWS];
  const uint32_t* signs[MOST_ROWS];
};

int run(const Job& job, int threads) {
  const Sizes& sizes = job.sizes;
  const int64_t most = job.level.rows, tiles = ceil_div(sizes.rows, most);
  const double work = double(sizes.samples) * double(sizes.rows) * double(sizes.outputs) * double(sizes.inputs);
  return over_threads(useful_threads(threads, work, tiles), tiles, [&](int64_t first, int64_t last) -> int {
    try {
      Worker worker(job);
      for (int64_t row = first * most; row < std::min(last * most, sizes.rows); row += most)
        worker.compute(row, static_cast<int>(std::min(most, sizes.rows - row)));
      return OK;
    } catch (const std::bad_alloc&) {  // no exception may leave a thread
      return OUT_OF_MEMORY;
    }
  });
}

}  // namespace
}  // namespace varbnn

// `sizes` is a varbnn::Sizes as numbers; `values` are float (input_samples, rows, inputs) or words of signs.
VARBNN_API int varbnn_cpu_predictive(const void* values, int packed, const uint32_t* weight, const float* scale,
                                 const float* shift, float* mean, float* entropy, const int64_t* sizes, int threads) {
  using namespace varbnn;
  const Sizes own = {sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], sizes[5], sizes[6]};
  return run({own, tap_kernel(), values, packed != 0, weight, scale, shift, mean, entropy}, threads);
}
