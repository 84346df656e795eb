// Three ways to lay out what lies under a place, by how channels and words of weights fall together.
#include <algorithm>
#include <new>

#include "conv.h"
#include "threads.h"

namespace varbnn {
namespace {

void require(bool found) {
  if (!found) throw std::bad_alloc();
}

// What the three sources have in common: where the places of a call lie.
class Under : public Source {
 protected:
  Under(const Conv& c, const TapKernel& l) : conv(c), level(l) {}

  void start(const Box& entered) { box = entered; }

  // Sets y and x to the input position of tap (0, 0) of places first … first + count - 1.
  void locate(int64_t first, int count) {
    int64_t row = first / box.columns, column = first % box.columns;
    for (int r = 0; r < count; ++r) {
      y[r] = conv.position(1, box.y + row, 0);
      x[r] = conv.position(2, box.x + column, 0);
      if (++column == box.columns) column = 0, ++row;
    }
  }

  const Conv& conv;
  const TapKernel& level;
  Box box{};
  int64_t y[MOST_ROWS], x[MOST_ROWS];
};

// Taps that point to whole pixels, whose channels fill whole words. `width` is the size of a pixel's part that meets
// one group of outputs. Derived gives `row_at(kz, z, y)`: where the pixel in column `first_column` of a row lies.
template <class T, class Derived>
class Pixels : public Under {
 protected:
  Pixels(const Conv& c, const TapKernel& l, int64_t group_width)
      : Under(c, l),
        width(group_width),
        pixel(group_width * c.groups),
        zeros(pixel),
        at(static_cast<size_t>(c.taps() * l.rows)),
        offset(static_cast<size_t>(c.taps())) {
    require(zeros.get());
    std::fill_n(zeros.get(), pixel, T(0));
  }

  // Taps under which all places see padding are left out.
  void gather(int64_t first, int count) override {
    locate(first, count);
    taps = {at.data(), offset.data(), 0, conv.fan_in() / WORD, 0, count};
    shift = 0;
    int64_t tap = 0;
    for (int64_t kz = 0; kz < conv.kernel[0]; ++kz)
      for (int64_t ky = 0; ky < conv.kernel[1]; ++ky) {
        const T* row[MOST_ROWS];
        const bool any = find_rows(kz, ky, count, row);
        for (int64_t kx = 0; kx < conv.kernel[2]; ++kx, ++tap)
          if (any && find_pixels(row, kx * conv.dilation[2], count))
            offset[static_cast<size_t>(taps.count++)] = tap * taps.words * BLOCK;
      }
  }

  // Lets the taps point to another group's channels.
  void turn_to(int64_t group) {
    const int64_t wanted = group * width;
    if (wanted == shift) return;
    for (int64_t i = 0; i < taps.count * taps.rows; ++i) at[static_cast<size_t>(i)] += wanted - shift;
    shift = wanted;
  }

  int64_t width, pixel;
  Buffer<T> zeros;  // what lies in the padding
  std::vector<const T*> at;
  std::vector<int64_t> offset;
  Taps<T> taps{};
  int64_t first_column = 0;

 private:
  bool find_rows(int64_t kz, int64_t ky, int count, const T** row) {
    const int64_t z = conv.position(0, box.z, kz);
    bool any = false;
    for (int r = 0; r < count; ++r) {
      const int64_t under = y[r] + ky * conv.dilation[1];
      if (r > 0 && y[r] == y[r - 1])
        row[r] = row[r - 1];
      else if (conv.inside(0, z) && conv.inside(1, under))
        row[r] = static_cast<Derived*>(this)->row_at(kz, z, under);
      else
        row[r] = nullptr;
      any |= row[r] != nullptr;
    }
    return any;
  }

  bool find_pixels(const T* const* row, int64_t ahead, int count) {
    const T** under = at.data() + taps.count * count;
    bool any = false;
    for (int r = 0; r < count; ++r) {
      const bool here = row[r] && conv.inside(2, x[r] + ahead);
      under[r] = here ? row[r] + (x[r] + ahead - first_column) * pixel : zeros.get();
      any |= here;
    }
    return any;
  }

  int64_t shift = 0;
};

// Real activations: every pixel is prepared once, in a ring of rows that slides down the image, and serves all taps and
// places that see it.
class Ring : public Pixels<float, Ring> {
 public:
  Ring(const Conv& c, const TapKernel& l, const float* v, const Box& largest)
      : Pixels(c, l, c.fan_in() / WORD * l.word_floats),
        values(v),
        columns(std::min(c.in[2], (largest.columns - 1) * c.stride[2] + (c.kernel[2] - 1) * c.dilation[2] + 1)),
        tag(static_cast<size_t>(c.kernel[0] * most_rows(largest))),
        needed(static_cast<size_t>(columns)),
        ring(c.kernel[0] * most_rows(largest) * columns * pixel) {
    require(ring.get());
  }

  void enter(const Box& entered) override {
    start(entered);
    rows = ring_rows(entered.rows, entered.columns);
    std::fill(tag.begin(), tag.end(), -1);
    std::fill(needed.begin(), needed.end(), 0);
    first_column = std::max<int64_t>(0, conv.position(2, box.x, 0));
    for (int64_t place = box.x; place < box.x + box.columns; ++place)
      for (int64_t kx = 0; kx < conv.kernel[2]; ++kx) {
        const int64_t column = conv.position(2, place, kx);
        if (conv.inside(2, column)) needed[static_cast<size_t>(column - first_column)] = 1;
      }
  }

  const float* row_at(int64_t kz, int64_t z, int64_t under) {
    const int64_t slot = kz * rows + under % rows;
    if (tag[static_cast<size_t>(slot)] != under) prepare_row(slot, z, under);
    return ring.get() + slot * columns * pixel;
  }

  void multiply(int64_t group, const Blocks& blocks, float* sums, int64_t stride) override {
    turn_to(group);
    level.multiply(taps, blocks, sums, stride);
  }

 private:
  // So many rows are in use at once: those under all places of one call, which are the more the narrower a box is.
  int64_t ring_rows(int64_t box_rows, int64_t box_columns) const {
    const int64_t touched = std::min(box_rows, (level.rows - 1 + box_columns - 1) / box_columns + 1);
    return std::min(conv.in[1], (touched - 1) * conv.stride[1] + (conv.kernel[1] - 1) * conv.dilation[1] + 1);
  }

  // Of all boxes: the last one across has what the others leave.
  int64_t most_rows(const Box& largest) const {
    const int64_t rest = conv.out[2] % largest.columns;
    return ring_rows(largest.rows, rest ? rest : largest.columns);
  }

  void prepare_row(int64_t slot, int64_t z, int64_t under) {
    const int64_t row = (box.image * conv.in[0] + z) * conv.in[1] + under;
    for (int64_t column = 0; column < columns; ++column)
      if (needed[static_cast<size_t>(column)])
        level.prepare(values + (row * conv.in[2] + first_column + column) * conv.channels, conv.channels,
                      ring.get() + (slot * columns + column) * pixel);
    tag[static_cast<size_t>(slot)] = under;
  }

  const float* values;
  int64_t rows = 0;  // of the box that was entered
  int64_t columns;
  std::vector<int64_t> tag;  // which row of the image lies in a slot
  std::vector<char> needed;  // columns that some tap sees
  Buffer<float> ring;
};

// Packed signs are multiplied where they lie.
class Signs : public Pixels<uint32_t, Signs> {
 public:
  Signs(const Conv& c, const TapKernel& l, const uint32_t* v)
      : Pixels(c, l, c.fan_in() / WORD), values(v), valid(static_cast<size_t>(c.taps() * l.rows)) {}

  void enter(const Box& entered) override { start(entered); }

  void gather(int64_t first, int count) override {
    Pixels::gather(first, count);
    for (int64_t i = 0; i < taps.count * count; ++i)
      valid[static_cast<size_t>(i)] = at[static_cast<size_t>(i)] == zeros.get() ? 0 : -1;
  }

  const uint32_t* row_at(int64_t, int64_t z, int64_t under) const {
    return values + ((box.image * conv.in[0] + z) * conv.in[1] + under) * conv.in[2] * pixel;
  }

  void multiply(int64_t group, const Blocks& blocks, float* sums, int64_t stride) override {
    turn_to(group);
    level.multiply_signs(taps, valid.data(), blocks, sums, stride);
  }

 private:
  const uint32_t* values;
  std::vector<int32_t> valid;
};

// Channels that do not fill words: what lies under a place is copied together, then prepared.
class Patches : public Under {
 public:
  Patches(const Conv& c, const TapKernel& l, const void* v, bool is_packed)
      : Under(c, l),
        values(v),
        packed(is_packed),
        group_floats(c.words() * l.word_floats),
        patch(static_cast<size_t>(c.words() * WORD)),
        ready(l.rows * c.groups * group_floats) {
    require(ready.get());
  }

  void enter(const Box& entered) override { start(entered); }

  void gather(int64_t first, int count) override {
    locate(first, count);
    rows = count;
    for (int r = 0; r < count; ++r)
      for (int64_t group = 0; group < conv.groups; ++group) {
        copy(r, group);
        level.prepare(patch.data(), conv.taps() * conv.fan_in(), prepared(r, group));
      }
  }

  void multiply(int64_t group, const Blocks& blocks, float* sums, int64_t stride) override {
    const float* at[MOST_ROWS];
    const int64_t offset = 0;
    for (int r = 0; r < rows; ++r) at[r] = prepared(r, group);
    level.multiply({at, &offset, 1, conv.words(), 0, rows}, blocks, sums, stride);
  }

 private:
  float* prepared(int row, int64_t group) const { return ready.get() + (row * conv.groups + group) * group_floats; }

  void copy(int row, int64_t group) {
    const int64_t width = conv.fan_in();
    float* to = patch.data();
    for (int64_t kz = 0; kz < conv.kernel[0]; ++kz)
      for (int64_t ky = 0; ky < conv.kernel[1]; ++ky) {
        const int64_t z = conv.position(0, box.z, kz), under = y[row] + ky * conv.dilation[1];
        const bool row_inside = conv.inside(0, z) && conv.inside(1, under);
        const int64_t start_of_row = ((box.image * conv.in[0] + z) * conv.in[1] + under) * conv.in[2];
        for (int64_t kx = 0; kx < conv.kernel[2]; ++kx, to += width) {
          const int64_t column = x[row] + kx * conv.dilation[2];
          if (!row_inside || !conv.inside(2, column))
            for (int64_t c = 0; c < width; ++c) to[c] = 0.0f;
          else if (packed)
            unpack(start_of_row + column, to);
          else
            copy_pixel(start_of_row + column, group, to);
        }
      }
  }

  void copy_pixel(int64_t from, int64_t group, float* to) const {
    const float* pixel = static_cast<const float*>(values) + from * conv.channels + group * conv.fan_in();
    for (int64_t c = 0; c < conv.fan_in(); ++c) to[c] = pixel[c];  // mostly three: not worth a call
  }

  void unpack(int64_t from, float* to) const {
    const uint32_t* words = static_cast<const uint32_t*>(values) + from * ceil_div(conv.channels, WORD);
    for (int64_t c = 0; c < conv.channels; ++c) to[c] = (words[c / WORD] >> (c % WORD)) & 1 ? 1.0f : -1.0f;
  }

  const void* values;
  bool packed;
  int64_t group_floats;
  int rows = 0;
  std::vector<float> patch;
  Buffer<float> ready;
};

bool fills_words(const Conv& conv) { return conv.fan_in() % WORD == 0; }

}  // namespace

std::unique_ptr<Source> make_source(const Conv& conv, const TapKernel& level, const void* values, bool packed,
                                    const Box& largest) {
  if (!fills_words(conv)) return std::make_unique<Patches>(conv, level, values, packed);
  if (packed) return std::make_unique<Signs>(conv, level, static_cast<const uint32_t*>(values));
  return std::make_unique<Ring>(conv, level, static_cast<const float*>(values), largest);
}

int64_t cached_columns(const Conv& conv, const TapKernel& level, bool packed) {
  if (packed || !fills_words(conv)) return conv.out[2];
  constexpr int64_t CACHED = 1 << 17;  // floats: half of a second-level cache of 1 MB
  const int64_t column = conv.kernel[0] * conv.kernel[1] * (conv.channels / WORD) * level.word_floats;
  const int64_t reach = (conv.kernel[2] - 1) * conv.dilation[2];
  const int64_t fitting = (CACHED / column - reach) / conv.stride[2] + 1;
  return std::min(conv.out[2], std::max<int64_t>(2 * level.rows, fitting));
}

}  // namespace varbnn
