// A convolution in boxes of output places, which threads take one by one; no result depends on how they are cut.
#include "conv.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "pages.h"
#include "threads.h"

namespace varbnn {
namespace {

struct Job {
  const Conv& conv;
  const TapKernel& level;
  const void* values;
  bool packed;
  const uint32_t* weight;
  const float* scale;
  int64_t own_scale;  // 1 where each network has its own
  const float* shift;
  int64_t own_shift;
  void* out;
  int activation;

  bool shares_input() const { return conv.input_samples == 1; }
  double work() const {
    return double(conv.samples) * double(conv.batch) * double(conv.places()) * double(conv.outputs) *
           double(conv.taps() * conv.fan_in());
  }
  int64_t row_bytes() const {
    return 4 * (activation == SIGN ? ceil_div(conv.outputs, WORD) : conv.outputs);
  }
  Finish finish(int64_t sample) const {
    return {scale ? scale + sample * own_scale * conv.outputs : nullptr,
            shift ? shift + sample * own_shift * conv.outputs : nullptr, activation};
  }
};

// How the places of all images are cut: along x so that prepared input stays cached, along y and x so that every thread
// finds work.
struct Cut {
  int64_t rows, columns;  // of a box
  int64_t across, down;   // boxes per plane

  Cut(const Conv& conv, int64_t widest, int threads) {
    columns = widest;
    const int64_t planes = conv.input_samples * conv.batch * conv.out[0];
    const int64_t wanted = threads > 1 ? 4 * int64_t(threads) : 1;
    const int64_t found = planes * ceil_div(conv.out[2], columns);
    rows = found < wanted ? ceil_div(conv.out[1], std::min(conv.out[1], ceil_div(wanted, found))) : conv.out[1];
    down = ceil_div(conv.out[1], rows);
    if (conv.out[1] == 1 && found < wanted)  // one dimension of space
      columns = std::min(columns, std::max<int64_t>(32, ceil_div(conv.out[2], ceil_div(wanted, planes))));
    across = ceil_div(conv.out[2], columns);
  }

  int64_t boxes(const Conv& conv) const { return conv.input_samples * conv.batch * conv.out[0] * down * across; }

  Box box(const Conv& conv, int64_t number) const {
    const int64_t x = number % across * columns;
    number /= across;
    const int64_t y = number % down * rows;
    number /= down;
    return {number / conv.out[0],
            number % conv.out[0],
            y,
            std::min(rows, conv.out[1] - y),
            x,
            std::min(columns, conv.out[2] - x)};
  }
};

class Worker {
 public:
  Worker(const Job& j, const Cut& cut)
      : job(j),
        group_width(j.conv.group_blocks() * BLOCK),
        width(j.conv.groups * group_width),
        source(make_source(j.conv, j.level, j.values, j.packed, {0, 0, 0, cut.rows, 0, cut.columns})),
        sums(static_cast<size_t>(j.level.rows * width)) {}

  int compute(const Box& box) {
    const Conv& conv = job.conv;
    source->enter(box);
    int status = OK;
    for (int64_t first = 0; first < box.places(); first += job.level.rows) {
      const int count = static_cast<int>(std::min<int64_t>(job.level.rows, box.places() - first));
      source->gather(first, count);
      if (job.shares_input())
        for (int64_t s = 0; s < conv.samples; ++s) status |= compute_sample(box, first, count, s, box.image);
      else
        status |= compute_sample(box, first, count, box.image / conv.batch, box.image % conv.batch);
    }
    return status;
  }

 private:
  int compute_sample(const Box& box, int64_t first, int count, int64_t sample, int64_t image) {
    const Conv& conv = job.conv;
    const int64_t block = conv.words() * BLOCK, blocks = conv.group_blocks();
    for (int64_t group = 0; group < conv.groups; ++group) {
      const uint32_t* weight = job.weight + (sample * conv.groups + group) * blocks * block;
      source->multiply(group, {weight, blocks, block}, sums.data() + group * group_width, width);
    }
    const Finish finish = job.finish(sample);
    int status = OK;
    for (int r = 0; r < count; ++r) {
      float* row = sums.data() + r * width;
      if (group_width != conv.group_outputs()) close_gaps(row);
      const int64_t y = box.y + (first + r) / box.columns, x = box.x + (first + r) % box.columns;
      const int64_t place = (((sample * conv.batch + image) * conv.out[0] + box.z) * conv.out[1] + y) * conv.out[2] + x;
      status |= job.level.finish(row, conv.outputs, finish, static_cast<char*>(job.out) + place * job.row_bytes());
    }
    return status;
  }

  // The outputs of a group end within its last block.
  void close_gaps(float* row) const {
    const int64_t outputs = job.conv.group_outputs();
    for (int64_t group = 1; group < job.conv.groups; ++group)
      std::memmove(row + group * outputs, row + group * group_width, static_cast<size_t>(outputs) * sizeof(float));
  }

  const Job& job;
  int64_t group_width, width;
  std::unique_ptr<Source> source;
  std::vector<float> sums;
};

int run(const Job& job, int threads) {
  const Cut cut(job.conv, cached_columns(job.conv, job.level, job.packed), threads);
  const int64_t boxes = cut.boxes(job.conv);
  expect_writes(job.out, job.conv.samples * job.conv.batch * job.conv.places() * job.row_bytes());
  return over_threads(useful_threads(threads, job.work(), boxes), boxes, [&](int64_t first, int64_t last) -> int {
    try {
      Worker worker(job, cut);
      int status = OK;
      for (int64_t number = first; number < last; ++number) status |= worker.compute(cut.box(job.conv, number));
      return status;
    } catch (const std::bad_alloc&) {  // no exception may leave a thread
      return OUT_OF_MEMORY;
    }
  });
}

}  // namespace
}  // namespace varbnn

// `sizes` is a varbnn::Conv as numbers. `values` are float or, where `packed`, words of signs; `out` is float or, where
// the activation is SIGN, words.
VARBNN_API int varbnn_cpu_conv(const void* values, int packed, const uint32_t* weight, const float* scale,
                           int64_t own_scale, const float* shift, int64_t own_shift, void* out, int activation,
                           const int64_t* sizes, int threads) {
  using namespace varbnn;
  static_assert(sizeof(Conv) == 24 * sizeof(int64_t), "a Conv is 24 numbers");
  Conv conv;
  std::memcpy(&conv, sizes, sizeof conv);
  return run({conv, tap_kernel(), values, packed != 0, weight, scale, own_scale, shift, own_shift, out,
              activation},
             threads);
}
