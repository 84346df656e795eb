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

struct Place {
  int64_t y, x;
};

// What the three have in common: where places and taps are.
class Under : public Source {
 protected:
  Under(const Conv& c, const TapKernel& l) : conv(c), level(l) {}

  void start(const Box& entered) { box = entered; }

  Place place(int64_t index) const { return {box.y + index / box.columns, box.x + index % box.columns}; }

  // The pixel under tap (kz, ky, kx) of a place, counted within its image; -1 where there is padding.
  int64_t pixel(const Place& at, int64_t kz, int64_t ky, int64_t kx) const {
    const int64_t z = conv.position(0, box.z, kz), y = conv.position(1, at.y, ky), x = conv.position(2, at.x, kx);
    if (!conv.inside(0, z) || !conv.inside(1, y) || !conv.inside(2, x)) return -1;
    return (z * conv.in[1] + y) * conv.in[2] + x;
  }

  template <class F>
  void each_tap(F&& visit) const {
    int64_t tap = 0;
    for (int64_t kz = 0; kz < conv.kernel[0]; ++kz)
      for (int64_t ky = 0; ky < conv.kernel[1]; ++ky)
        for (int64_t kx = 0; kx < conv.kernel[2]; ++kx) visit(tap++, kz, ky, kx);
  }

  const Conv& conv;
  const TapKernel& level;
  Box box{};
};

// Real activations whose channels fill whole words: every pixel is prepared once, in a ring of rows that slides down
// the image, and serves all taps and places that see it.
class Ring : public Under {
 public:
  Ring(const Conv& c, const TapKernel& l, const float* v, const Box& largest)
      : Under(c, l),
        values(v),
        pixel_floats(c.channels / WORD * l.word_floats),
        rows(ring_rows(largest)),
        columns(std::min(c.in[2], (largest.columns - 1) * c.stride[2] + (c.kernel[2] - 1) * c.dilation[2] + 1)),
        tag(static_cast<size_t>(c.kernel[0] * rows)),
        needed(static_cast<size_t>(columns)),
        ring(c.kernel[0] * rows * columns * pixel_floats),
        zeros(pixel_floats),
        at(static_cast<size_t>(c.taps() * l.rows)),
        offset(static_cast<size_t>(c.taps())) {
    require(ring.get() && zeros.get());
    std::fill_n(zeros.get(), pixel_floats, 0.0f);
  }

  void enter(const Box& entered) override {
    start(entered);
    std::fill(tag.begin(), tag.end(), -1);
    std::fill(needed.begin(), needed.end(), 0);
    first_column = std::max<int64_t>(0, conv.position(2, box.x, 0));
    for (int64_t x = box.x; x < box.x + box.columns; ++x)
      for (int64_t kx = 0; kx < conv.kernel[2]; ++kx) {
        const int64_t column = conv.position(2, x, kx);
        if (conv.inside(2, column)) needed[static_cast<size_t>(column - first_column)] = 1;
      }
  }

  void gather(int64_t first, int count) override {
    Place places[16];
    for (int r = 0; r < count; ++r) places[r] = place(first + r);
    taps = {at.data(), offset.data(), 0, conv.fan_in() / WORD, 0, count};
    each_tap([&](int64_t tap, int64_t kz, int64_t ky, int64_t kx) {
      const float** under = at.data() + taps.count * count;
      bool any = false;
      for (int r = 0; r < count; ++r) {
        under[r] = prepared(places[r], kz, ky, kx);
        any |= under[r] != zeros.get();
      }
      if (any) offset[static_cast<size_t>(taps.count++)] = tap * taps.words * BLOCK;
    });
    shift = 0;
  }

  void multiply(int64_t group, const Blocks& blocks, float* sums, int64_t stride) override {
    const int64_t wanted = group * taps.words * level.word_floats;
    if (wanted != shift)
      for (int64_t i = 0; i < taps.count * taps.rows; ++i) at[static_cast<size_t>(i)] += wanted - shift;
    shift = wanted;
    level.multiply(taps, blocks, sums, stride);
  }

 private:
  // So many rows are in use at once: those under all places of one call.
  int64_t ring_rows(const Box& largest) const {
    const int64_t touched = std::min(largest.rows, (level.rows - 1 + largest.columns - 1) / largest.columns + 1);
    return std::min(conv.in[1], (touched - 1) * conv.stride[1] + (conv.kernel[1] - 1) * conv.dilation[1] + 1);
  }

  const float* prepared(const Place& at_place, int64_t kz, int64_t ky, int64_t kx) {
    const int64_t z = conv.position(0, box.z, kz), y = conv.position(1, at_place.y, ky);
    const int64_t x = conv.position(2, at_place.x, kx);
    if (!conv.inside(0, z) || !conv.inside(1, y) || !conv.inside(2, x)) return zeros.get();
    const int64_t slot = kz * rows + y % rows;
    if (tag[static_cast<size_t>(slot)] != y) prepare_row(slot, z, y);
    return ring.get() + (slot * columns + x - first_column) * pixel_floats;
  }

  void prepare_row(int64_t slot, int64_t z, int64_t y) {
    const int64_t row = (box.image * conv.in[0] + z) * conv.in[1] + y;
    for (int64_t column = 0; column < columns; ++column)
      if (needed[static_cast<size_t>(column)])
        level.prepare(values + (row * conv.in[2] + first_column + column) * conv.channels, conv.channels,
                      ring.get() + (slot * columns + column) * pixel_floats);
    tag[static_cast<size_t>(slot)] = y;
  }

  const float* values;
  int64_t pixel_floats, rows, columns, first_column = 0, shift = 0;
  std::vector<int64_t> tag;  // which row of the image lies in a slot
  std::vector<char> needed;  // columns that some tap sees
  Buffer<float> ring, zeros;
  std::vector<const float*> at;
  std::vector<int64_t> offset;
  Taps<float> taps{};
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
    rows = count;
    for (int r = 0; r < count; ++r)
      for (int64_t group = 0; group < conv.groups; ++group) {
        copy(place(first + r), group);
        level.prepare(patch.data(), conv.taps() * conv.fan_in(), ready.get() + (r * conv.groups + group) * group_floats);
      }
  }

  void multiply(int64_t group, const Blocks& blocks, float* sums, int64_t stride) override {
    const float* at[16];
    const int64_t offset = 0;
    for (int r = 0; r < rows; ++r) at[r] = ready.get() + (r * conv.groups + group) * group_floats;
    level.multiply({at, &offset, 1, conv.words(), 0, rows}, blocks, sums, stride);
  }

 private:
  void copy(const Place& at_place, int64_t group) {
    const int64_t width = conv.fan_in();
    each_tap([&](int64_t tap, int64_t kz, int64_t ky, int64_t kx) {
      float* to = patch.data() + tap * width;
      const int64_t under = pixel(at_place, kz, ky, kx);
      if (under < 0)
        std::fill_n(to, width, 0.0f);
      else if (packed)
        unpack(box.image * conv.pixels() + under, to);
      else
        std::copy_n(static_cast<const float*>(values) + (box.image * conv.pixels() + under) * conv.channels + group * width,
                    width, to);
    });
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

// Packed signs whose channels fill whole words are multiplied where they lie.
class Signs : public Under {
 public:
  Signs(const Conv& c, const TapKernel& l, const uint32_t* v)
      : Under(c, l),
        values(v),
        at(static_cast<size_t>(c.taps() * l.rows)),
        valid(static_cast<size_t>(c.taps() * l.rows)),
        offset(static_cast<size_t>(c.taps())) {}

  void enter(const Box& entered) override { start(entered); }

  void gather(int64_t first, int count) override {
    Place places[16];
    for (int r = 0; r < count; ++r) places[r] = place(first + r);
    taps = {at.data(), offset.data(), 0, conv.fan_in() / WORD, 0, count};
    const uint32_t* image = values + box.image * conv.pixels() * (conv.channels / WORD);
    each_tap([&](int64_t tap, int64_t kz, int64_t ky, int64_t kx) {
      bool any = false;
      for (int r = 0; r < count; ++r) {
        const int64_t under = pixel(places[r], kz, ky, kx);
        const size_t entry = static_cast<size_t>(taps.count * count + r);
        at[entry] = image + std::max<int64_t>(0, under) * (conv.channels / WORD);
        valid[entry] = under < 0 ? 0 : -1;
        any |= under >= 0;
      }
      if (any) offset[static_cast<size_t>(taps.count++)] = tap * taps.words * BLOCK;
    });
    shift = 0;
  }

  void multiply(int64_t group, const Blocks& blocks, float* sums, int64_t stride) override {
    const int64_t wanted = group * taps.words;
    if (wanted != shift)
      for (int64_t i = 0; i < taps.count * taps.rows; ++i) at[static_cast<size_t>(i)] += wanted - shift;
    shift = wanted;
    level.multiply_signs(taps, valid.data(), blocks, sums, stride);
  }

 private:
  const uint32_t* values;
  int64_t shift = 0;
  std::vector<const uint32_t*> at;
  std::vector<int32_t> valid;
  std::vector<int64_t> offset;
  Taps<uint32_t> taps{};
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
